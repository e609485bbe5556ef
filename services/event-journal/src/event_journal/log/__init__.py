"""The log: a Merkle tree over all entries of the journal in order of position, its checkpoints, and proofs of both."""
