"""What clients read by URI: request templates, batches, answers, models; who is told of changes; names completed."""
