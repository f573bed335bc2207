"""The page of explanations and the pictures on it."""
