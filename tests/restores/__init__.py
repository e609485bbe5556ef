"""Each of the five databases set back to an earlier moment, with everything real around it."""
