"""Wastelens: photos of litter to a verdict on its materials, with numbers that can be believed."""
