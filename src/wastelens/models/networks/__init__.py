"""The kinds of networks: one file each, with its settings and its layers. A new file registers itself."""
