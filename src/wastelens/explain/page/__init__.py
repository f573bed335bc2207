"""The page of explanations."""
