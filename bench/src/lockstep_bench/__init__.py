"""Measures a whole installation."""
