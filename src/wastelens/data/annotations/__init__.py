"""Annotations: their layouts, COCO, materials and outlines."""
