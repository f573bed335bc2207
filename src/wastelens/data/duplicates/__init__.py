"""Near-duplicate photos: find them by perceptual hash, confirm them by correlation."""
