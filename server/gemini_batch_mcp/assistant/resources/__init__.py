"""Read by URI: templates, batches, answers, models, the dashboard; who hears of changes, names completed."""
