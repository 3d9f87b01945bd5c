"""One quota for many processes and machines, kept in Redis (extra: redis)."""

try:
    from do_images_async.redis.limiter import RedisRateLimiter
except ModuleNotFoundError as _error:  # a name without the underscore would be public
    if _error.name != "redis":
        raise
    raise ModuleNotFoundError(
        "RedisRateLimiter needs the extra redis: pip install redis", name="redis"
    ) from _error

__all__ = ["RedisRateLimiter"]
