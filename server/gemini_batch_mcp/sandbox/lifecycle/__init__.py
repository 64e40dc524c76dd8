"""Jobs of the sandbox from their create to their output."""
