"""Whoever holds the coordinator's certificate, against everybody else."""
