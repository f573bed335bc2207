"""Use of a finished model: open it, predict with it, judge it on other photos, promote it."""
