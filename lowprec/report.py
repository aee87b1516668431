"""What was done to a model and why (being built)."""
