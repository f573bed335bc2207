"""All figures, by subject."""
