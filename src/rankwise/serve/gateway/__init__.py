"""The OpenAI-compatible HTTP gateway: keys, limits, templates and text; what it knows of models are ids and names."""
