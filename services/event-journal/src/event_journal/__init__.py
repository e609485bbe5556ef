"""The event journal: each plan's chain of signed events, append-only, verifiable, sealed at the end."""
