"""Every figure that is drawn, by what it shows."""
