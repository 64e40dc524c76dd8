"""Whether a line is a request that Gemini would take: the wire schema, the exact check, the fast decoders."""
