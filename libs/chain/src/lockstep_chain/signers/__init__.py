"""Accounts that sign: whose keys lie in an encrypted keystore, or in a hardware security module that never shows them."""
