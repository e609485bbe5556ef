"""The bank's own ISO 20022: nothing outside this package knows XML."""
