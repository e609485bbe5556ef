"""A second reader of the journal: it trusts nobody's word but the keys in its own registry, and raises what does not hold."""
