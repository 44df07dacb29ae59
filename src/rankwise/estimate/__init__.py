"""Prices a candidate: each number has one owner, a unit, a source, an interval."""
