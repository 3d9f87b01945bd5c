"""An asyncio-native client for the DigitalOcean Images API that stays under the quota."""

# ruff: noqa: F405
from typing import TYPE_CHECKING

from do_images_async._version import __version__

__all__ = [  # those of `_names`
    "AccountTransfer",
    "Action",
    "ActionPage",
    "ActionStatus",
    "BulkProgress",
    "FileRateLimiter",
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

if TYPE_CHECKING:
    from do_images_async._names import *  # noqa: F403
    from do_images_async._quota.file_limiter import FileRateLimiter
else:

    def __getattr__(name: str) -> object:
        """Import the public names, and aiohttp, when the first name is used: `--help` needs neither."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "FileRateLimiter":
            # It takes its worker and store along, which a client with the default limiter does not need.
            from do_images_async._quota.file_limiter import FileRateLimiter

            globals()[name] = FileRateLimiter
            return FileRateLimiter
        from do_images_async import _names

        names = {each: getattr(_names, each) for each in __all__ if each != "FileRateLimiter"}
        globals().update(names)
        return names[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
