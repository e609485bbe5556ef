"""Async client of Lockstep, the validator agent, and the `lockstep` command."""
