"""One short method for each endpoint, and the calls that are built on them."""
