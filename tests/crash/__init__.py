"""The crash campaign: processes killed at every place where one can die."""
