"""From an order to jobs at Gemini, once: agreed to, reserved, uploaded, created, retried."""
