"""The layouts that are recognised, one file each; see ``data/annotations/layout.py`` for how to add one."""
