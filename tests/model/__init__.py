"""The model check: an exhaustive search over the very functions that production imports."""
