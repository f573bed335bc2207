"""Searches for a model's best settings: the search space, the store of trials, and their results."""
