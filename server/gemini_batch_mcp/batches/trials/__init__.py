"""Trials: candidates for a prompt and a model on the same rows, and the whole run measured against its trial."""
