"""Compare this rate limiter with others on a simulated clock.

The servers count requests as DigitalOcean and others do. `--servers` varies how the server counts, and
`--neighbours` which policy is switched off while somebody else uses the same token. `--starved` runs a real
Redis on the simulated clock. `--store`, `--runs` and `--killed` are timed for real: what an exchange with the
store costs, and what processes that share a quota reach.
"""
