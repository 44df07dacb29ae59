"""Useful tokens per second of one LoRA job: ours as planned, beside TRL at the lesson's settings and at its best."""
