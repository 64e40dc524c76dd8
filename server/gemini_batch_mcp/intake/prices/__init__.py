"""What a batch will take and cost: tokens, samples, the dated price list, the estimate."""
