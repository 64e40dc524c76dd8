"""Its routes of Google Cloud: jobs of Vertex AI, and as much of Cloud Storage and BigQuery as they need."""
