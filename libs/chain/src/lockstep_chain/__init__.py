"""The machine that gets transactions onto an EVM chain exactly once, and the legs that stand on it."""
