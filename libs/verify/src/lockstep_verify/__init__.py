"""Checks a plan's bundle of evidence offline (docs/bundle.md). Imports nothing of the services or the kit."""
