"""One request over HTTP: token, attempts, retries, mapping, logs; and the middleware for other sessions."""
