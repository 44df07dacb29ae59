"""Serving: many adapters on one base, measured and tried with adapters that each know a secret."""
