"""One logical request: its attempts, and the model or error that is its result."""
