"""The Gemini Developer API through the google-genai SDK."""
