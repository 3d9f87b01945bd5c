"""The rate limiters: token buckets, and the quota that the server reports."""
