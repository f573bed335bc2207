"""Photos from elsewhere: what is downloaded and collected, and what of it is a photo."""
