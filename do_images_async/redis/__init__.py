"""One quota for many processes and machines, kept in Redis (extra: redis)."""

try:
    from do_images_async.redis.limiter import RedisRateLimiter
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ModuleNotFoundError(
        "RedisRateLimiter needs the extra redis: pip install redis", name="redis"
    ) from error

__all__ = ["RedisRateLimiter"]
