"""Real databases and certificates for tests."""
