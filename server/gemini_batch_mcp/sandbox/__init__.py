"""An embedded Gemini Batch service that speaks the wire protocol and never pretends to be a model."""
