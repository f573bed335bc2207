"""Helpers for the terminal, processes, files and text. They know nothing about photos or models."""
