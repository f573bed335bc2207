"""The prepared dataset: open it, check it, and take its tables."""
