"""Tuned model against the untouched base: held-out loss, format, closed-book facts."""
