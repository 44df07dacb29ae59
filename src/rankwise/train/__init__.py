"""Carries a plan out: the only stage that changes weights."""
