"""The notary: puts each plan's digest and outcome into the NotaryRegistry contract."""
