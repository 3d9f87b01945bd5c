"""The library's own exceptions; bad arguments are plain ValueError and TypeError.

None of them holds the token or an aiohttp exception, whose `request_info` does. All can be pickled.
"""

from __future__ import annotations

import math
from typing import Any

from do_images_async.models import Action, Image, RateLimit

__all__ = [
    "APIError",
    "ActionFailedError",
    "AuthenticationError",
    "BadRequestError",
    "ClientStateError",
    "ConflictError",
    "DOImagesError",
    "DecodeError",
    "ImportFailedError",
    "IncompleteListingError",
    "NotFoundError",
    "PermissionDeniedError",
    "PublicImageError",
    "QuotaStoreError",
    "QuotaWaitError",
    "RateLimitError",
    "RequestTimeoutError",
    "ServerError",
    "TokenError",
    "TransportError",
    "UnprocessableEntityError",
    "WaitTimeoutError",
    "WrongResourceError",
]


class DOImagesError(Exception):
    """The base of all errors of a call.

    `str(error)` is one printable line: line breaks, terminal escapes and invisible characters of a server's
    text are escaped, as in `repr`. Attributes have the text as it came, without the token.

    Attributes:
        outcome_unknown: True when a write may have been carried out although the call raised; `str` and
            `repr` say so. Look before you send it again.
        page: the page of a listing that was being read, so that `list_page` can take up from there.
    """

    outcome_unknown: bool = False
    page: int | None = None

    def __str__(self) -> str:
        suffix = "; it may have been carried out" if self.outcome_unknown else ""
        return _printable(super().__str__()) + suffix

    def __repr__(self) -> str:
        # A printed list of outcomes must show it as well.
        shown = [repr(argument) for argument in self.args] + ["outcome_unknown=True"] * self.outcome_unknown
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _rebuild(cls: type[DOImagesError], args: tuple[Any, ...], state: dict[str, Any]) -> DOImagesError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class APIError(DOImagesError):
    """A response whose status is not success.

    Attributes:
        status: the HTTP status.
        id: the body's short identifier, such as "not_found"; None when the body is not the API's.
        message: the body's explanation, or the beginning of a body that is not the API's.
        request_id: what the provider's support asks for; from the body or `x-request-id`.
        method: the request's HTTP method.
        url: the request's URL.
        rate_limit: the quota that came with the answer.
    """

    def __init__(
        self,
        *,
        status: int,
        id: str | None,  # noqa: A002  (the API's own name)
        message: str,
        request_id: str | None,
        method: str,
        url: str,
        rate_limit: RateLimit | None,
    ) -> None:
        self.status = status
        self.id = id
        self.message = message
        self.request_id = request_id
        self.method = method
        self.url = url
        self.rate_limit = rate_limit
        label = f"{status} {id}" if id else str(status)
        suffix = f" (request id {request_id})" if request_id else ""
        super().__init__(f"{method} {url} was answered {label}: {message}{suffix}")


class BadRequestError(APIError):
    """400: the request was malformed."""


class AuthenticationError(APIError):
    """401: the token is unknown, expired or revoked."""


class PermissionDeniedError(APIError):
    """403: the token's scopes, or the image's owner, do not allow it."""


class NotFoundError(APIError):
    """404: there is no such image, or it is another account's."""


class ConflictError(APIError):
    """409: the image is busy with something else."""


class UnprocessableEntityError(APIError):
    """422: the request was understood and its values refused."""


class RateLimitError(APIError):
    """429: the quota is spent, and waiting for it was not possible or did not help.

    Attributes:
        retry_after: seconds that the server asked to wait, from `retry-after` or `ratelimit-reset`, 3,605
            at most, after which the whole quota is back; None when it said nothing usable.
    """

    retry_after: float | None = None


class ServerError(APIError):
    """5xx: the server failed. A write may have been carried out all the same: see `outcome_unknown`."""


class TransportError(DOImagesError):
    """No response: the connection failed, broke, or carried something that is not HTTP.

    Attributes:
        method: the request's HTTP method.
        url: the request's URL.
        transient: False when the same request would fail in the same way later: the server's certificate is
            not trusted, the proxy refuses for good, the body is too large, or its Content-Encoding, which was
            not asked for, can't be decoded.
    """

    transient: bool = True

    def __init__(self, reason: str, *, method: str, url: str) -> None:
        self.method = method
        self.url = url
        super().__init__(f"{method} {url} failed: {reason}")


class RequestTimeoutError(TransportError, TimeoutError):
    """An attempt did not finish within `timeout` seconds, counted from when it had its permit."""


class DecodeError(DOImagesError):
    """The body is not what the API page describes; the message names the place as a JSON path.

    Attributes:
        transient: True when the body was no JSON at all, such as a proxy's page, or nests too deeply to be
            read: the same request may get a good answer later. Not if its Content-Encoding is why.
    """

    transient: bool = False


class WrongResourceError(DecodeError):
    """The answer is about another image or action than was asked for; the client does not use it.

    So is a page of a listing with an image that the listing's filter leaves out. After a write,
    `outcome_unknown` is True.

    Attributes:
        asked: the id, slug or name that the request was about; of a listing, the filter's value.
        answered: the same of the answer; of a listing, the image's id.
    """

    def __init__(
        self, *, kind: str, asked: int | str, answered: int | str, message: str | None = None
    ) -> None:
        self.asked = asked
        self.answered = answered
        super().__init__(
            message or f"asked about {kind} {asked!r}, but the answer is about {kind} {answered!r}"
        )


class QuotaWaitError(DOImagesError):
    """The quota would make the call wait longer than `max_wait`; nothing was sent.

    Attributes:
        wait: seconds that the call would have waited in all, at least as far as is known; always more than
            `max_wait`.
        max_wait: the seconds that were allowed.
    """

    def __init__(self, *, wait: float, max_wait: float) -> None:
        self.wait = wait
        self.max_wait = max_wait
        shown = math.ceil(wait * 10) / 10  # not a rounded one that is no more than `max_wait`
        super().__init__(f"the quota would make the call wait {shown:.1f} s; max_wait is {max_wait:g} s")


class QuotaStoreError(DOImagesError):
    """The quota that several processes share can't be asked; nothing was sent.

    Attributes:
        reason: what the store's client says.
        refused: whether the store answers and does not let this worker in, for a wrong password, a missing
            permission or a setting: that does not pass, and `on_store_failure="local"` does not hide it.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        self.reason = reason
        self.refused = refused
        trouble = "refuses this worker" if refused else "can't be reached"
        super().__init__(f"the store of the shared quota {trouble}: {reason}")


class TokenError(DOImagesError):
    """The function that was given as `token` returned no token; no request was sent without one.

    What the function raised is not repeated, and is no cause or context of this error: it can hold a secret.

    Attributes:
        reason: what went wrong, in words.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"no token: {reason}")


class ImportFailedError(DOImagesError):
    """The import failed: the image will not become available.

    Attributes:
        image: the image as last seen.
        error_message: what the API says of the cause; may be empty.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self.error_message: str = image.error_message or ""
        reason = self.error_message or "the API gives no reason"
        super().__init__(f"image {image.id} ended as {image.status}: {reason}")


class ActionFailedError(DOImagesError):
    """The action ended with an error. The API gives no reason.

    Attributes:
        action: the action as last seen.
    """

    def __init__(self, action: Action) -> None:
        self.action = action
        where = f" to {action.region_slug}" if action.region_slug else ""
        what = f", {action.type}{where}," if action.type else ""
        super().__init__(f"action {action.id}{what} ended as {action.status}")


class WaitTimeoutError(DOImagesError, TimeoutError):
    """The state that was waited for did not come in time. It may still come.

    Attributes:
        image: the image as last seen; None when no answer came in time, or it was not an image's wait.
        action: the same of an action.
        last_error: the error of the last poll that failed, such as a 503 or a reset connection; None when no
            poll failed.
    """

    def __init__(
        self,
        message: str,
        *,
        image: Image | None = None,
        action: Action | None = None,
        last_error: DOImagesError | None = None,
    ) -> None:
        self.image = image
        self.action = action
        self.last_error = last_error
        super().__init__(message)


class PublicImageError(DOImagesError):
    """`delete_many` did not delete an image that others may use; `allow_public=True` deletes it all the same.

    Attributes:
        image: the image as it was read.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        reason = "is public" if image.public else "may be public (the API does not say)"
        super().__init__(f"image {image.id} {reason}, so it was not deleted")


class IncompleteListingError(DOImagesError):
    """The listing can't be shown to be complete.

    Attributes:
        seen: how many different images were read.
        total: how many the server says there are.
    """

    def __init__(self, message: str, *, seen: int, total: int | None) -> None:
        self.seen = seen
        self.total = total
        super().__init__(f"{message} ({seen} images read; the server counts {total})")


class ClientStateError(DOImagesError):
    """The client can't be used: it is closed, or belongs to another event loop."""
