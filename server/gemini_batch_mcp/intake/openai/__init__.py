"""Another vendor's batch lines as Gemini's."""
