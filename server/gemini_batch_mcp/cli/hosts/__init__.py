"""Assistants on this machine: where each keeps its servers, our entry there, how it is written, undone, tried."""
