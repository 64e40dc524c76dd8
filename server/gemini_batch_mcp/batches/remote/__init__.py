"""Orders whose rows lie in BigQuery, and whose answers stay there: what is asked of BigQuery, and what is kept here."""
