"""Photos: find, decode, shrink and cache them."""
