"""One training or pretraining as a run: fit, resume, evaluate and log it."""
