"""Methods of training beside each other at one budget: what each may spend, and what their scores allow to say."""
