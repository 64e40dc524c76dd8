"""The command line: it reads the environment, puts the parts together, and prints what the desk answers."""
