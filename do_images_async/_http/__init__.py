"""One logical request: its attempts, and the model or the error that they end in."""
