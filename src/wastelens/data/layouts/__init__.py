"""How datasets lie on disk: each layout a file, all of them read into the same ``CocoDataset``."""
