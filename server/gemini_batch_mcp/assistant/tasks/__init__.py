"""Calls that are answered with a task: `extension` speaks the protocol, `batches` is what tasks of this server are."""
