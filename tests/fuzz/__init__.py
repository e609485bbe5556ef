"""Fuzzing: every method of every service, called by every kind of caller with requests that are forged, broken or none at all."""
