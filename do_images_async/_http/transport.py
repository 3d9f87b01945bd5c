"""One logical request: its URL, its attempts, their deadlines, and the model or error that comes of it."""

from __future__ import annotations

import asyncio
import platform
from types import NoneType
from typing import Any, Final, NoReturn, TypeVar, cast

import aiohttp
import attrs
import msgspec
from yarl import URL

from do_images_async._credentials import Token
from do_images_async._http.attempt import Attempt, Authorization
from do_images_async._http.converter import ModelConverter, is_json
from do_images_async._http.converter import converter as default_converter
from do_images_async._http.deadlines import Deadlines
from do_images_async._http.failures import (
    WIRE_ERRORS,
    BodyTooLargeError,
    UnwritableError,
    failure_of,
    in_words,
)
from do_images_async._http.request import Call, Options, Reply
from do_images_async._http.responses import Answer, error_of, pause_of
from do_images_async._http.retry import (
    Failure,
    RetryBudget,
    classify_status,
    leaves_doubt,
    may_send_again,
)
from do_images_async._quota.protocols import Limiter
from do_images_async._quota.sharing import shared_limiter
from do_images_async._version import __version__
from do_images_async.errors import (
    ClientStateError,
    DecodeError,
    DOImagesError,
    NotFoundError,
    RequestTimeoutError,
    TransportError,
)
from do_images_async.events import EventHook, logger
from do_images_async.models import RateLimit

__all__ = ["Transport"]

T = TypeVar("T")

MAX_BODY: Final = 16 * 1024 * 1024
"""Bytes of a decoded body that are read at most; a page of 200 images has about 100,000."""

# Deadlines are ours, for each attempt: the session's own would count the wait for quota.
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_USER_AGENT: Final = (
    f"do-images-async/{__version__} aiohttp/{aiohttp.__version__} python/{platform.python_version()}"
)
_JSON_BODY: Final = {"Content-Type": "application/json"}


@attrs.frozen
class _Problem:
    """An attempt without success; `pause` is how many seconds the server asked to wait."""

    failure: Failure
    error: DOImagesError
    pause: float | None = None


class Transport:
    """Sends calls to one origin with one token, through one session and one limiter.

    Attributes:
        limiter: pays for every attempt.
        rate_limit: the quota as the server last reported it.
        base_url: what every path is put behind.
    """

    def __init__(
        self,
        *,
        token: Token,
        base_url: URL,
        session: aiohttp.ClientSession | None,
        limiter: Limiter | None,
        user_agent: str | None,
        on_event: EventHook | None = None,
        converter: ModelConverter | None = None,
    ) -> None:
        self.limiter: Limiter = shared_limiter(token, base_url.origin(), self) if limiter is None else limiter
        self.rate_limit: RateLimit | None = None
        self.base_url = base_url
        self._on_event = on_event
        self._converter = default_converter if converter is None else converter
        self._token = token
        headers = {"Accept": "application/json", "User-Agent": user_agent or _USER_AGENT}
        self._authorization = Authorization(token, base_url.origin(), headers)
        self._prefix = base_url.raw_path.rstrip("/")
        self._session = session
        self._owns_session = session is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()
        self._deadlines = Deadlines()
        self._budget = RetryBudget()

    async def send(self, call: Call[T], options: Options) -> Reply[T]:
        """Send a call until it succeeds, may not be sent again, or has had all its attempts.

        Raises:
            DOImagesError: one of the tree, with `outcome_unknown` for all the attempts together.
        """
        url = self._url(call)
        doubt = False
        number = 0
        try:
            while True:
                number += 1
                attempt = Attempt(
                    self._authorization,
                    self.limiter,
                    self._on_event,
                    call,
                    url,
                    options,
                    number,
                    self._deadlines.new(),
                )
                try:
                    result = await self._try(attempt)
                except BaseException as error:
                    attempt.ended(error)
                    raise
                if isinstance(result, Reply):
                    self._budget.earn()
                    attempt.ended()
                    return result
                if call.method == "DELETE" and doubt and isinstance(result.error, NotFoundError):
                    # An earlier attempt may have been carried out, and this shows that it was.
                    attempt.ended()
                    return Reply(cast("T", None), result.error.rate_limit)
                doubt = doubt or leaves_doubt(call.method, result.failure)
                wait = self._wait_before_next(call.method, result, number, options)
                attempt.ended(result.error, retry_in=wait)
                if wait is None:
                    raise result.error
                await self._sleep(wait)
        except DOImagesError as error:
            error.outcome_unknown = error.outcome_unknown or doubt
            raise

    async def close(self) -> None:
        """Close the session if it is ours; calls under way or in the queue raise `ClientStateError`.

        A client whose loop is closed already may be closed from anywhere. Its sockets are closed when they
        are collected: to close them now would take the loop.
        """
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            if not self._loop.is_closed():
                raise ClientStateError("the client belongs to another event loop: close it there")
            self._closed.set()
            return
        self._closed.set()
        self._deadlines.expire()
        if self._owns_session and self._session is not None:
            await self._session.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client is neither pickled nor deep-copied: it has a token, a loop and connections")

    def _url(self, call: Call[Any]) -> URL:
        # To parse a whole URL instead takes three times as long.
        url = self.base_url.with_path(self._prefix + call.path, encoded=True)
        return url.with_query(call.query) if call.query else url

    def _wait_before_next(
        self, method: str, problem: _Problem, number: int, options: Options
    ) -> float | None:
        """Seconds to sleep before the next attempt; None when there must not be one."""
        if number >= options.retry.attempts or not may_send_again(method, problem.failure):
            return None
        pause = problem.pause
        if pause is not None and options.max_wait is not None and pause > options.max_wait:
            return None
        if problem.failure is Failure.REFUSED:
            return 0.0  # the limiter makes everybody wait, this call too
        if not self._budget.spend():
            logger.warning("not sent again: too many of this client's calls fail")
            return None
        delay = options.retry.delay(number)
        return delay if pause is None else max(delay, min(pause, options.retry.cap))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return
        raise ClientStateError("the client was closed while the call waited for its next attempt")

    async def _try(self, attempt: Attempt[T]) -> Reply[T] | _Problem:
        session = self._open_session()
        call = attempt.call
        body = None if call.body is None else msgspec.json.encode(call.body)
        try:
            with attempt.deadline:
                response = await session.request(
                    call.method,
                    attempt.url,
                    data=body,
                    headers=None if body is None else _JSON_BODY,
                    middlewares=(attempt,),
                    allow_redirects=False,
                    raise_for_status=False,
                    auto_decompress=True,
                    timeout=_NO_TIMEOUT,
                )
                try:
                    content = await _read(response)
                finally:
                    # One that is read to its end has given its connection back.
                    if not response.closed:
                        response.release()
                        await response.wait_for_close()
        except WIRE_ERRORS as error:
            # Nothing is raised in here: aiohttp's exceptions can hold the request's headers, and would be
            # the context of ours.
            problem = self._diagnose(error, attempt)
        else:
            if attempt.rate_limit is not None:
                self.rate_limit = attempt.rate_limit
            if 200 <= response.status < 300:
                return self._reply(call, attempt.url, content, attempt.rate_limit)
            return self._refuse(attempt, response, content)
        return problem

    def _open_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._closed.is_set():
            raise ClientStateError("the client is closed")
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClientStateError("the client belongs to another event loop; make one for each loop")
        if self._session is None:
            # The quota bounds the connections: a pool that made permits wait would only waste them.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        if self._session.closed:
            raise ClientStateError("the session that the client was given is closed")
        return self._session

    def _reply(
        self, call: Call[T], url: URL, content: bytes, rate_limit: RateLimit | None
    ) -> Reply[T] | _Problem:
        if call.model is NoneType:
            return Reply(cast("T", None), rate_limit)
        try:
            return Reply(self._converter.loads(content, call.model), rate_limit)
        except DecodeError as error:
            error.args = (f"{call.method} {url} was answered with success, but {error}",)
            # What is no JSON was spoilt on its way; JSON that says something else will say so again.
            return _Problem(Failure.DOUBTFUL if is_json(content) else Failure.BROKEN, error)

    def _refuse(self, attempt: Attempt[Any], response: aiohttp.ClientResponse, content: bytes) -> _Problem:
        """What to make of an answer that is no success."""
        answer = Answer(
            method=attempt.call.method,
            url=str(attempt.url),
            status=response.status,
            headers=response.headers,
            body=content,
            rate_limit=attempt.rate_limit,
        )
        failure = classify_status(answer.status)
        return _Problem(failure, error_of(answer, self._token.redact), pause_of(answer))

    def _diagnose(self, error: Exception, attempt: Attempt[Any]) -> _Problem:
        """What to make of an attempt that brought no answer."""
        sent = attempt.may_have_been_sent
        if self._closed.is_set():
            failure = Failure.DOUBTFUL if sent else Failure.FINAL
            return _Problem(failure, ClientStateError("the client was closed while the call was under way"))
        if isinstance(error, UnwritableError):
            # Our own headers are checked when the client is made.
            reason = self._token.redact(f"a header of the session can't be sent: {error}")
            return _Problem(Failure.FINAL, ClientStateError(reason))
        if isinstance(error, TimeoutError):
            reason = f"not done within {attempt.options.timeout} s"
            kind: type[TransportError] = RequestTimeoutError
        else:
            reason = self._token.redact(in_words(error))[:300]
            kind = TransportError
        problem = kind(reason, method=attempt.call.method, url=str(attempt.url))
        return _Problem(failure_of(error, sent=sent), problem)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The decoded body, whole; a larger one than any that is documented is not read to its end."""
    chunks: list[bytes] = []
    size = 0
    content = response.content
    while not content.at_eof():
        chunk = await content.readany()
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY:
            response.close()
            raise BodyTooLargeError(f"the body is larger than {MAX_BODY} bytes")
    return b"".join(chunks)
