"""Batches on Google Cloud (Vertex AI) through the google-genai SDK, with requests and answers in Cloud Storage."""
