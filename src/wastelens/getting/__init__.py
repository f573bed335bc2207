"""Photos from the web: what ``download`` and ``collect`` fetch, and which of it is kept."""
