"""An asyncio-native client for the DigitalOcean Images API that stays under the quota."""

from do_images_async import errors
from do_images_async._version import __version__
from do_images_async.codec import converter
from do_images_async.images import ImagesAPI
from do_images_async.models import Image, ImagePage, ImageStatus, ImageType, RateLimit
from do_images_async.ratelimit import Limiter, LimiterStats, RateLimiter, TokenBucket
from do_images_async.retry import RetryPolicy

__all__ = [
    "Image",
    "ImagePage",
    "ImageStatus",
    "ImageType",
    "ImagesAPI",
    "Limiter",
    "LimiterStats",
    "RateLimit",
    "RateLimiter",
    "RetryPolicy",
    "TokenBucket",
    "__version__",
    "converter",
    "errors",
]
