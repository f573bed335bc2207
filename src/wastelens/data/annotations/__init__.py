"""Annotations: the layouts they come in, COCO, materials and outlines."""
