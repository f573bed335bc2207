"""A Tracker that outlives an absent server: what cannot be logged waits on disk."""
