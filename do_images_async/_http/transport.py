"""Sends one API call: authorizes it, retries it, and returns a model object or raises an error."""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from functools import partial
from types import NoneType
from typing import Any, Final, NoReturn, TypeVar, cast

import aiohttp
import attrs
import msgspec
from yarl import URL

from do_images_async._credentials import Token, TokenProvider
from do_images_async._http.attempt import Attempt
from do_images_async._http.authorization import Access, Credentials
from do_images_async._http.bodies import holds_models
from do_images_async._http.converter import ModelConverter, is_json
from do_images_async._http.converter import converter as default_converter
from do_images_async._http.deadlines import Deadlines
from do_images_async._http.failures import (
    WIRE_ERRORS,
    BodyTakenError,
    BodyTooLargeError,
    UnwritableError,
    failure_of,
    in_words,
    unknown_encoding,
)
from do_images_async._http.headers import parse_retry_after
from do_images_async._http.idle import ConnectionCheck
from do_images_async._http.last_error import note_error
from do_images_async._http.logs import logger
from do_images_async._http.request import Call, Options, Reply
from do_images_async._http.responses import Answer, beginning, error_of, pause_of
from do_images_async._http.retry import (
    BUDGET_IS_SPENT,
    Failure,
    RetryBudget,
    classify_status,
    leaves_outcome_unknown,
    may_retry,
)
from do_images_async._loop import running_loop
from do_images_async._quota.policies import LONGEST_PAUSE
from do_images_async._quota.protocols import Limiter
from do_images_async._version import __version__
from do_images_async.errors import (
    AuthenticationError,
    ClientStateError,
    DecodeError,
    DOImagesError,
    NotFoundError,
    RequestTimeoutError,
    TokenError,
    TransportError,
)
from do_images_async.events import EventHook
from do_images_async.models import RateLimit

__all__ = ["Transport"]

T = TypeVar("T")

MAX_BODY: Final = 16 * 1024 * 1024
"""The largest decoded body that is read, in bytes; a page of 200 images has about 100,000."""

_UNTIL_SHARED: Final = 0.1
"""Seconds in which a limiter with a shared store usually hears of a refusal."""

_LONGEST_ENCODING: Final = 40
"""Characters of a Content-Encoding that an error shows."""

# Deadlines are ours, for each attempt: the session's own would count the wait for quota.
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
_USER_AGENT: Final = (
    f"do-images-async/{__version__} aiohttp/{aiohttp.__version__} python/{platform.python_version()}"
)
_JSON_BODY: Final = {"Content-Type": "application/json"}


@attrs.frozen
class _Problem:
    """A failed attempt.

    Attributes:
        pause: seconds that the server asked to wait, by `retry-after` or by the reset of a 429.
        retry_after: seconds that it asked to wait by `retry-after`, `LONGEST_PAUSE` at most; 0 if it did not.
        is_of_api: whether it is the API's own answer, with its JSON or what it says of the quota. The page of
            an edge server that blocks a client has neither.
    """

    failure: Failure
    error: DOImagesError
    pause: float | None = None
    retry_after: float = 0.0
    is_of_api: bool = False


class _Patience:
    """The rule for which 429 responses count as attempts.

    None of the API's own does while the quota may still come back: the limiter makes the call wait as long as
    the response says, else a pause that doubles, up to a minute. That ends after the longest window, or after
    `max_wait`.
    """

    __slots__ = ("_longest", "_once", "_since")

    def __init__(self, options: Options) -> None:
        self._once = options.retry.attempts == 1
        self._longest = LONGEST_PAUSE if options.max_wait is None else options.max_wait
        self._since: float | None = None

    def allows(self, problem: _Problem) -> bool:
        """Return whether an attempt's failure leaves the number of attempts as it was."""
        if self._once or problem.failure is not Failure.RATE_LIMITED or not problem.is_of_api:
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
        return now - self._since <= self._longest


class Transport:
    """Sends calls to one origin, with the client's token, one session and the token's limiter.

    Attributes:
        rate_limit: the quota as the server last reported it.
        base_url: the URL that every path is appended to.
    """

    def __init__(
        self,
        *,
        token: Token | TokenProvider,
        base_url: URL,
        session: aiohttp.ClientSession | None,
        limiter: Limiter | None,
        user_agent: str | None,
        on_event: EventHook | None = None,
        converter: ModelConverter | None = None,
    ) -> None:
        self.rate_limit: RateLimit | None = None
        self.base_url = base_url
        self._on_event = on_event
        self._converter = default_converter if converter is None else converter
        agent = _USER_AGENT if user_agent is None else f"{user_agent} {_USER_AGENT}"
        headers = {"Accept": "application/json", "User-Agent": agent}
        grant = partial(Access, origin=base_url.origin(), headers=headers, limiter=limiter)
        self._credentials = Credentials(token, grant, limiter)
        self._prefix = base_url.raw_path.rstrip("/")
        self._session = session
        self._owns_session = session is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()
        self._entered = 0
        self._deadlines = Deadlines()
        self._connections = ConnectionCheck()
        self._budget = RetryBudget()

    @property
    def limiter(self) -> Limiter:
        """Return the limiter of all attempts; another one if a function provides another token."""
        return self._credentials.limiter

    def redact(self, text: str) -> str:
        """Return the text without the client's tokens and parts of them."""
        return self._credentials.redact(text)

    async def send(self, call: Call[T], options: Options) -> Reply[T]:
        """Send a call, and retry it until it succeeds, must not be retried or has no attempts left.

        Raises:
            DOImagesError: one of the tree, with `outcome_unknown` for all the attempts together.
        """
        if not self._credentials.known:
            self._open_session()
            await self._renew(None, options)
        url = self._url(call)
        unknown = renewed = False
        number = uncounted = 0
        patience: _Patience | None = None
        try:
            while True:
                number += 1
                attempt = Attempt(
                    credentials=self._credentials,
                    connections=self._connections,
                    hook=self._on_event,
                    call=call,
                    url=url,
                    options=options,
                    number=number,
                    deadline=self._deadlines.new(),
                    access=self._credentials.access,
                )
                try:
                    result = await self._try(attempt)
                except BaseException as error:
                    unknown = unknown or _has_maybe_written(attempt)
                    _note_outcome(error, unknown=unknown)
                    attempt.ended(error)
                    if attempt.sent_and_cancelled(error):
                        note_error(_unfinished(attempt, unknown=unknown))
                    raise
                if isinstance(result, Reply):
                    self._budget.earn()
                    attempt.ended()
                    return result
                if call.method == "DELETE" and unknown and isinstance(result.error, NotFoundError):
                    # An earlier attempt may have been executed, and this shows that it was.
                    attempt.ended()
                    return Reply(cast("T", None), result.error.rate_limit)
                unknown = unknown or leaves_outcome_unknown(call.method, result.failure)
                result.error.outcome_unknown = result.error.outcome_unknown or unknown
                if isinstance(result.error, AuthenticationError) and not renewed:
                    # With a new token it is a new request: it gets one attempt more than `retry` allows.
                    renewed = await self._renew(attempt, options)
                    wait = 0.0 if renewed else None
                else:
                    patience = patience or _Patience(options)
                    uncounted += patience.allows(result)
                    counted = number - renewed - uncounted
                    wait = self._wait_before_next(call.method, result, options, number, counted)
                attempt.ended(result.error, retry_in=self._expected(wait, result))
                note_error(result.error)
                if wait is None:
                    raise result.error
                await self._wait(wait, result.failure)
        except DOImagesError as error:
            error.outcome_unknown = error.outcome_unknown or unknown
            raise

    def enter(self) -> None:
        """Begin an `async with` block of the client, or of one of its copies.

        Raises:
            ClientStateError: the client can't be used.
        """
        self._check_usable()
        self._entered += 1

    async def leave(self) -> None:
        """End a block, and close with the outermost one."""
        self._entered -= 1
        if not self._entered:
            await self.close()

    async def close(self) -> None:
        """Close the session if it is ours; calls in flight or in the queue raise `ClientStateError`.

        A client whose loop is closed already may be closed from anywhere. Its sockets are closed when they
        are garbage-collected: closing them now would need the loop.
        """
        if self._loop is not None and self._loop is not running_loop():
            if not self._loop.is_closed():
                raise ClientStateError("the client belongs to another event loop: close it there")
            self._closed.set()
            return
        self._closed.set()
        self._credentials.cancel()
        self._deadlines.expire()
        if self._owns_session and self._session is not None:
            await self._session.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client is neither pickled nor deep-copied: it has a token, a loop and connections")

    def _url(self, call: Call[Any]) -> URL:
        # Parsing a whole URL instead would take three times as long.
        url = self.base_url.with_path(self._prefix + call.path, encoded=True)
        return url.with_query(call.query) if call.query else url

    async def _renew(self, rejected: Attempt[Any] | None, options: Options) -> bool:
        """Get the first token, or one to replace the rejected one; return whether there is a new one."""
        try:
            return await self._credentials.renew(rejected.access if rejected else None, options.timeout)
        except TokenError as error:
            problem: DOImagesError = error
        if self._closed.is_set():
            problem = ClientStateError("the client was closed while the call waited for a token")
        if rejected is not None:
            rejected.ended(problem)
        raise problem

    def _wait_before_next(
        self, method: str, problem: _Problem, options: Options, number: int, counted: int
    ) -> float | None:
        """Return the seconds to sleep before the next attempt; None for no further attempt.

        Args:
            method, problem, options: of the attempt that failed.
            number: its number.
            counted: how many attempts are used up.
        """
        if counted >= options.retry.attempts or not may_retry(method, problem.failure):
            return None
        pause = problem.pause
        if pause is not None and options.max_wait is not None and pause > options.max_wait:
            return None
        if problem.failure is Failure.RATE_LIMITED:
            return problem.retry_after or options.retry.delay(number)
        known = self._budget.was_spent
        if not self._budget.spend():
            problem.error.add_note(BUDGET_IS_SPENT)
            # An outage is one warning, not one for each call.
            logger.log(logging.DEBUG if known else logging.WARNING, BUDGET_IS_SPENT)
            return None
        delay = options.retry.delay(counted)
        return delay if pause is None else max(delay, min(pause, options.retry.cap))

    def _expected(self, wait: float | None, problem: _Problem) -> float | None:
        """Return the seconds until the next attempt at the earliest, the limiter's wait included."""
        if wait is None or problem.failure is not Failure.RATE_LIMITED:
            return wait
        # A limiter with a shared store may not know of the 429 yet.
        return max(self.limiter.next_permit_in() or wait, problem.retry_after)

    async def _wait(self, seconds: float, failure: Failure) -> None:
        """Sleep; after a 429 only if the limiter does not make all calls wait, this one too.

        Ours do, that with a shared store a moment later; one of the user's need not.
        """
        if failure is not Failure.RATE_LIMITED:
            await self._sleep(seconds)
            return
        first = min(seconds, _UNTIL_SHARED)
        for part in (first, seconds - first):
            if self.limiter.next_permit_in() > 0:
                return
            await self._sleep(part)

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
                    middlewares=attempt.within(session),
                    allow_redirects=False,
                    raise_for_status=False,
                    auto_decompress=True,
                    timeout=_NO_TIMEOUT,
                )
                attempt.response = response  # a middleware may have answered with another one
                try:
                    content = await _read(response)
                finally:
                    # A response that was read to its end has returned its connection.
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
            if _is_success(response):
                return self._reply(attempt, response, self._credentials.redact_json(content))
            return self._refused(attempt, response, content)
        return problem

    def _check_usable(self) -> asyncio.AbstractEventLoop:
        """Return the running event loop, if the client is open and belongs to no other one."""
        loop = running_loop()
        if self._closed.is_set():
            raise ClientStateError("the client is closed")
        if self._loop is not None and self._loop is not loop:
            raise ClientStateError("the client belongs to another event loop; make one for each loop")
        return loop

    def _open_session(self) -> aiohttp.ClientSession:
        self._loop = loop = self._check_usable()
        if self._session is None:
            # The quota bounds the connections: a limit of the pool would only make permits wait.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        if self._session.closed:
            raise ClientStateError("the session that the client was given is closed")
        if getattr(self._session, "_loop", loop) is not loop:
            raise ClientStateError("the session that the client was given belongs to another event loop")
        return self._session

    def _reply(
        self, attempt: Attempt[T], response: aiohttp.ClientResponse, content: bytes
    ) -> Reply[T] | _Problem:
        call = attempt.call
        try:
            return Reply(self._decoded(content, call.model), attempt.rate_limit)
        except DecodeError as error:
            reason = self.redact(str(error))
            # Invalid JSON: damaged in transit, retry. Valid JSON of another shape, or an encoding that stays
            # unknown: do not.
            valid = is_json(content)
            encoding = None if valid else unknown_encoding(response.headers.get("Content-Encoding"))
            final = valid or encoding is not None
            if encoding is not None:
                name = self.redact(encoding)[:_LONGEST_ENCODING]
                reason += f"; its Content-Encoding is {name!r}, which can't be decoded"
            elif not content and "Content-Encoding" in response.headers:
                # aiohttp says nothing of compressed data that ends before anything could be unpacked.
                reason += ", or its Content-Encoding can't be decoded"
            elif not valid and content.lstrip()[:1] not in (b"", b"{", b"["):
                reason += f"; it begins {beginning(content, self.redact)!r}"  # such as a proxy's page
            error.args = (f"{call.method} {attempt.url} was answered with success, but {reason}",)
            error.transient = not final
            error.__traceback__ = None  # its frames hold the body
            return _Problem(Failure.MAYBE_EXECUTED_FINAL if final else Failure.MAYBE_EXECUTED_RETRY, error)

    def _decoded(self, content: bytes, model: type[T]) -> T:
        """Return the body as a model; raises `DecodeError` when it is none."""
        if model is NoneType:
            if content.strip() and not is_json(content):  # a proxy's page, such as a login: it was not done
                raise DecodeError("the body is neither empty nor JSON")
            return cast("T", None)
        value = self._converter.loads(content, model)
        if self._converter is not default_converter and not holds_models(value, model):
            raise DecodeError(f"a hook of the converter made no {model.__name__} of the body")
        return value

    def _refused(self, attempt: Attempt[Any], response: aiohttp.ClientResponse, content: bytes) -> _Problem:
        """Return the problem of an error response."""
        answer = Answer(
            method=attempt.call.method,
            url=str(attempt.url),
            status=response.status,
            headers=response.headers,
            body=content,
            rate_limit=attempt.rate_limit,
        )
        error, pause = error_of(answer, self.redact), pause_of(answer)
        return _Problem(
            classify_status(answer.status),
            error,
            pause,
            min(parse_retry_after(answer.headers, now=time.time()) or 0.0, LONGEST_PAUSE),
            is_of_api=error.id is not None or pause is not None or answer.rate_limit is not None,
        )

    def _diagnose(self, error: Exception, attempt: Attempt[Any]) -> _Problem:
        """Return the problem of an attempt whose response did not arrive completely."""
        sent = attempt.may_have_been_sent
        if self._closed.is_set():
            failure = Failure.MAYBE_EXECUTED_FINAL if sent else Failure.NOT_EXECUTED_FINAL
            return _Problem(failure, ClientStateError("the client was closed while the call was under way"))
        if attempt.response is not None and not _is_success(attempt.response):
            # Only the explanation is lost: the status is enough.
            return self._refused(attempt, attempt.response, b"")
        if isinstance(error, UnwritableError):
            # Our own headers are checked when the client is made.
            reason = self.redact(f"a header of the session can't be sent: {error}")
            return _Problem(Failure.NOT_EXECUTED_FINAL, ClientStateError(reason))
        kind = RequestTimeoutError if isinstance(error, TimeoutError) else TransportError
        if attempt.deadline.expired and kind is RequestTimeoutError:
            reason = f"not done within {attempt.options.timeout} s"
        else:
            reason = self.redact(in_words(error))[:300]
        failure = failure_of(error, sent=sent)
        problem = kind(reason, method=attempt.call.method, url=str(attempt.url))
        problem.transient = failure.retryable
        return _Problem(failure, problem)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the decoded body; raise BodyTooLargeError if it is larger than any documented one.

    Raises:
        BodyTakenError: a middleware left a part of it, or nothing.
    """
    content = response.content
    if content.at_eof():
        # A middleware may have read it. `read` would raise if it released the response after that.
        body = (await response.text("latin-1")).encode("latin-1")
        _check_size(len(body), response)
    elif response.closed and content.exception() is not None:
        raise BodyTakenError
    else:
        body = await _read_stream(response)
    if len(body) < content.total_bytes:
        raise BodyTakenError
    return body


async def _read_stream(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    content = response.content
    while not content.at_eof():
        chunk = await content.readany()
        chunks.append(chunk)
        size += len(chunk)
        _check_size(size, response)
    return b"".join(chunks)


def _check_size(size: int, response: aiohttp.ClientResponse) -> None:
    if size > MAX_BODY:
        response.close()
        raise BodyTooLargeError(f"the body is larger than {MAX_BODY} bytes")


def _is_success(response: aiohttp.ClientResponse) -> bool:
    return 200 <= response.status < 300


def _has_maybe_written(attempt: Attempt[Any]) -> bool:
    """Return whether an attempt that raised may have been executed: a middleware may have sent it before."""
    failure = Failure.MAYBE_EXECUTED_FINAL
    return attempt.may_have_been_sent and leaves_outcome_unknown(attempt.call.method, failure)


def _note_outcome(error: BaseException, *, unknown: bool) -> None:
    """Add the ambiguous outcome to an exception of the user's own code, such as a middleware's."""
    if unknown and isinstance(error, Exception) and not isinstance(error, DOImagesError):
        error.add_note("the request had been sent, and may have been carried out")


def _unfinished(attempt: Attempt[Any], *, unknown: bool) -> RequestTimeoutError:
    """Return the error of an attempt that was cancelled, as when its caller's time was up.

    `unknown` says whether the call may have been executed.
    """
    reason = "not done when the caller's time was up"
    error = RequestTimeoutError(reason, method=attempt.call.method, url=str(attempt.url))
    error.outcome_unknown = unknown
    return error
