"""When a request may be sent: the token buckets, and what the server says of them."""
