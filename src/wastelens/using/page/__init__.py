"""The page about predictions of new photos."""
