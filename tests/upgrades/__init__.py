"""The release before, and how one gives way to the next: its code on this tree's schema, beside this tree's code."""
