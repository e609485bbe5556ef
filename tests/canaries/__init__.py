"""What must not be told is planted everywhere, and looked for everywhere."""
