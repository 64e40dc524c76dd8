"""The drop page: files from a person's browser, and results back, where all they have is a chat."""
