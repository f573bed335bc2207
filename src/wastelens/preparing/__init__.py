"""Make a prepared dataset: group, split, balance, write and relabel it."""
