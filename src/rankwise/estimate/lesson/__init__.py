"""A published lesson on fine-tuning, claim by claim and cell by cell, computed by the product's own verbs."""
