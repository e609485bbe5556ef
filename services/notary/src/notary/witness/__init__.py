"""The notary as the journal's witness: it cosigns a checkpoint of the journal's log only when that continues the last one that it cosigned."""
