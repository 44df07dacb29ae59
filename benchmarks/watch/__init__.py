"""Runs that forget, what the watch makes of them, and what watching costs."""
