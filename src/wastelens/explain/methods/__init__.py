"""Explanation methods, a file each: maps of evidence for one material in one photo."""
