"""Score maps of evidence: against the outlines, by perturbation and by randomised weights."""
