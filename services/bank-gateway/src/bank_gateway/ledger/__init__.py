"""The gateway's double-entry ledger: what was instructed, is held and was settled, as the bank told it.

`rules` says what is posted, `chain` how entries are hashed and verified, `store` holds the statements; the database function `ledger_post` is the only way in.
"""
