"""Other people's servers, visited politely and without being led astray."""
