"""The fair bake-off: which arms there are, what each may spend, and where it is written down."""
