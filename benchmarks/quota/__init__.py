"""This limiter and others against the provider's sliding log, at scale, in virtual time."""
