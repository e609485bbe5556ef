"""Every SQL statement of the coordinator, each with a name and a sentence. All take lists: many plans are one statement."""
