"""Its routes of Google Cloud: batch prediction jobs of Vertex AI, and as much of Cloud Storage as they need."""
