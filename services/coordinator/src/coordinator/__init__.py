"""The coordinator: drives plans through their states, and their participants through two-phase commit."""
