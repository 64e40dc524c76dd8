"""The routes of the sandbox, and what surrounds every one of them."""
