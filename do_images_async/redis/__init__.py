"""One quota for many processes and machines, kept in Redis (extra: redis)."""

from do_images_async.redis.limiter import RedisRateLimiter

__all__ = ["RedisRateLimiter"]
