"""Published head-to-heads, our call on each, and what the call would have cost."""
