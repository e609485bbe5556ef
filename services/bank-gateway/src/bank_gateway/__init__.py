"""The bank-gateway: money on hold at the bank at Prepare, released at Commit, cancelled at Abort, in ISO 20022."""
