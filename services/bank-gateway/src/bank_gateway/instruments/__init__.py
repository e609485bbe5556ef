"""Undertakings: what is said about them, what it means for a leg, and what is done about it."""
