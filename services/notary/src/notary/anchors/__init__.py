"""Merkle roots on chain: of the journal's checkpoints, and of batches of plans."""
