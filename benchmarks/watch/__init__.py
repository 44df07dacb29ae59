"""What watching a run costs, and what it catches."""
