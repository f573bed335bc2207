"""Explanations: maps of evidence by several methods, scored against the outlines of the litter."""
