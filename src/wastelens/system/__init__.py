"""Helpers for the terminal, processes, files and text. They know nothing of photos or models."""
