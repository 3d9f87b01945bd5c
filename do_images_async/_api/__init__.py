"""One short method for each endpoint, and what is built on them."""
