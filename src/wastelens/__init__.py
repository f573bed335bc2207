"""Wastelens: classify photos of litter by material, with results you can trust."""
