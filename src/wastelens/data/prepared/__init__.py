"""The prepared dataset: open it, check it, and read its tables."""
