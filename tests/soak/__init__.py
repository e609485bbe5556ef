"""The soak: all faults mixed over many plans, then a final reading."""
