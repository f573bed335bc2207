"""Batches of photos for training: shuffled, augmented, with or without noise."""
