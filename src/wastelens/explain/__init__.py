"""Explanations: maps of evidence by several methods, and what they are worth against the outlines of the litter."""
