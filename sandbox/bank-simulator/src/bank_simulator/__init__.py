"""A bank that speaks ISO 20022 over HTTPS and keeps double-entry books of its own: a counterparty, related to no service."""
