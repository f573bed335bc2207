"""Use a trained model on new photos."""
