"""The forgetting watch on runs that forget: a bad one, the same with replay, and what the plan chooses."""
