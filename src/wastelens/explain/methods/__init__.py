"""Explanation methods: each gives a map of evidence for one material on one photo."""
