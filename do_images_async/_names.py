"""The public names but `FileRateLimiter`, from their modules; `do_images_async` imports them at first use."""

from do_images_async import errors, events
from do_images_async._api.bulk import BulkProgress, Outcome, fan_out
from do_images_async._api.images import ImagesAPI
from do_images_async._http.converter import converter
from do_images_async._http.messages import quota_middleware
from do_images_async._http.retry import RetryPolicy
from do_images_async._quota.buckets import TokenBucket
from do_images_async._quota.limiter import RateLimiter
from do_images_async._quota.protocols import Limiter, LimiterStats, Permit, Report
from do_images_async._version import __version__
from do_images_async._whole import WholeListing
from do_images_async.models import (
    AccountTransfer,
    Action,
    ActionPage,
    ActionStatus,
    Image,
    ImagePage,
    ImageStatus,
    ImageType,
    RateLimit,
    Region,
)

__all__ = [
    "AccountTransfer",
    "Action",
    "ActionPage",
    "ActionStatus",
    "BulkProgress",
    "Image",
    "ImagePage",
    "ImageStatus",
    "ImageType",
    "ImagesAPI",
    "Limiter",
    "LimiterStats",
    "Outcome",
    "Permit",
    "RateLimit",
    "RateLimiter",
    "Region",
    "Report",
    "RetryPolicy",
    "TokenBucket",
    "WholeListing",
    "__version__",
    "converter",
    "errors",
    "events",
    "fan_out",
    "quota_middleware",
]
