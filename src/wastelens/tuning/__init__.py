"""Trials of a model's settings: the space they come from, where they are kept, what they have come to."""
