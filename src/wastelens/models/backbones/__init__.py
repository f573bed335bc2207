"""The backbones of transfer models: one file each. A new file registers itself."""
