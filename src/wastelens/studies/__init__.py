"""Studies: a grid of runs, compared in pairs, and the report on them."""
