"""Random input: only documented exceptions, never the token, in bounded time and memory.

A short pass by default; `FUZZ_SCALE=1000` in the environment makes it a thousand times as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC
from operator import attrgetter
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from do_images_async import Image, ImagesAPI, Outcome, RateLimiter, TokenBucket, converter, errors
from do_images_async._http.bodies import ImageBody, ImageListBody
from tests.conftest import ONCE, TOKEN
from tests.support.leaks import assert_not_shown
from tests.support.memory import peak_memory
from tests.support.servers import CLOSE, After, Answer, Server, image_document
from tests.support.slow import RUN_SLOW

PLENTY = RateLimiter(TokenBucket(10**9, per=60), slow_start=False)
SCALE = float(os.environ.get("FUZZ_SCALE", "1" if RUN_SLOW else "0.25"))


def cases(count: int) -> settings:
    return settings(
        max_examples=max(1, int(count * SCALE)),
        deadline=None,
        derandomize=SCALE <= 1,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


# --- decoding ---


def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)


def changed_image(changes: dict[str, Any]) -> dict[str, Any]:
    return image_document() | changes


def listing_document(images: Any, total: Any, link: Any) -> dict[str, Any]:
    return {"images": images, "meta": {"total": total}, "links": {"pages": {"next": link}}}


def keyed(key: str, value: Any) -> dict[str, Any]:
    return {key: value}


SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
)
JSON: st.SearchStrategy[Any] = st.recursive(SCALARS, extend, max_leaves=8)
FIELDS = st.sampled_from(sorted(image_document()))
IMAGES: st.SearchStrategy[Any] = st.dictionaries(FIELDS, JSON, max_size=3).map(changed_image)
DOCUMENTS: st.SearchStrategy[Any] = st.one_of(
    JSON,
    st.builds(keyed, st.just("image"), IMAGES | JSON),
    st.builds(keyed, st.just("images"), st.lists(IMAGES, max_size=2) | JSON),
    st.builds(listing_document, st.lists(IMAGES, max_size=2) | JSON, JSON, JSON),
)


def encode(document: object) -> bytes:
    return json.dumps(document).encode()  # NaN, Infinity and lone surrogates included


def damage(body: bytes, place: int, with_: bytes, length: int) -> bytes:
    at = place % (len(body) + 1)
    return body[:at] + with_ + body[at + length :]


BODIES = st.one_of(
    st.binary(max_size=60),
    DOCUMENTS.map(encode),
    st.builds(damage, DOCUMENTS.map(encode), st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 4)),
)


@pytest.mark.timeout(60 * max(1, SCALE))
@cases(200)
@given(body=BODIES, model=st.sampled_from([ImageBody, ImageListBody]))
@example(body=b'{"image": {"id": ' + b"9" * 5000 + b"}}", model=ImageBody)
@example(body=b'{"image": ' + b"[" * 100_000, model=ImageBody)
@example(body=b'{"image": {"id": 1, "name": "\\ud800"}}', model=ImageBody)
@example(body=b'{"image": {"id": 1, "created_at": "0001-01-01T00:00:00+14:00"}}', model=ImageBody)
@example(body=b'{"image": {"id": 1, "size_gigabytes": 1e999}}', model=ImageBody)
def test_a_body_is_a_model_or_a_decode_error(body: bytes, model: type[Any]) -> None:
    try:
        value = converter.loads(body, model)
    except errors.DecodeError:
        return
    assert isinstance(value, model)
    msgspec.json.encode(value)


# --- the wire ---

VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("retry-after", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "date"),
                *("content-type", "content-encoding", "transfer-encoding", "content-length", "connection"),
                *("x-request-id", "location", "set-cookie", "link", "upgrade"),
            ]
        ),
        st.one_of(
            VALUES,
            st.integers().map(str),
            st.sampled_from(
                [
                    *("gzip", "deflate", "br", "zstd", "identity", "chunked", "gzip, chunked", "nan", "0"),
                    *("Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "close", "h2c"),
                ]
            ),
        ),
    ),
    max_size=4,
)
STATUSES = st.integers(100, 599) | st.integers(0, 2000)


def response(status: int, headers: list[tuple[str, str]], body: bytes, length: bool) -> bytes:
    fields = [*headers, ("content-length", str(len(body)))] if length else headers
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode("latin-1") + body


RESPONSES = st.builds(response, STATUSES, HEADERS, BODIES, st.booleans())
STREAMS = st.one_of(
    st.binary(max_size=100),
    RESPONSES,
    st.builds(damage, RESPONSES, st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 4)),
)
CALLS: list[Callable[[ImagesAPI], Awaitable[object]]] = [
    lambda api: api.get(42),
    lambda api: api.list_page(),
    lambda api: api.update(42, name="a"),
    lambda api: api.delete(42),
    lambda api: api.create_custom(name="a", url="https://example.com/a.img", region="nyc3"),
]


Case = tuple[bytes, After, int]


BATCHES = st.lists(
    st.tuples(STREAMS, st.sampled_from(["keep", "close", "reset"]), st.integers(0, len(CALLS) - 1)),
    min_size=5,
    max_size=10,
)


class Wire:
    """A server and a session for all cases of a test; the cases of one example run at once."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self._answers: dict[str, Answer] = {}
        self._names = (f"case-{number}" for number in itertools.count())
        # A request whose call has timed out meanwhile comes late, and finds no answer.
        server.answer_with(lambda request: self._answers.pop(request.headers["user-agent"], CLOSE))

    async def try_all(self, batch: list[Case]) -> None:
        try:
            await asyncio.gather(*(self._try(next(self._names), case) for case in batch))
            sent = Counter(request.headers["user-agent"] for request in self._server.received)
            assert max(sent.values(), default=0) <= 1, "a case was sent twice"
        finally:
            self._server.received.clear()
            self._answers.clear()

    async def _try(self, name: str, case: Case) -> None:
        data, after, call = case
        self._answers[name] = Answer(data, after)
        # A limiter for each case: what one server says of the quota is not another's business.
        limiter = RateLimiter()
        api = ImagesAPI(
            TOKEN,
            session=self._session,
            base_url=self._server.url,
            limiter=limiter,
            retry=ONCE,
            timeout=0.1,
            max_wait=0,
            user_agent=name,
        )
        try:
            async with asyncio.timeout(10):
                await CALLS[call](api)
        except errors.DOImagesError as error:
            assert_not_shown(TOKEN, error)
        assert limiter.stats().in_flight == 0


@contextlib.contextmanager
def wire() -> Generator[Callable[[list[Case]], None], None, None]:
    """Yield a function that tries a list of cases, on one loop, one server and one session."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:

        async def open_all() -> tuple[contextlib.AsyncExitStack, Wire]:
            stack = contextlib.AsyncExitStack()
            server = await stack.enter_async_context(Server().running())
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            return stack, Wire(server, session)

        stack, wire = runner.run(open_all())
        try:
            yield lambda batch: runner.run(wire.try_all(batch))
        finally:
            runner.run(stack.aclose())


def bomb(mebibytes: int) -> bytes:
    squeezer = zlib.compressobj(wbits=31)
    body = b"".join(squeezer.compress(bytes(2**20)) for _ in range(mebibytes)) + squeezer.flush()
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@pytest.mark.timeout(60 * max(1, SCALE))
def test_whatever_the_socket_brings_is_a_result_or_a_documented_error() -> None:
    before = peak_memory()
    with wire() as try_all:

        @cases(15)
        @given(BATCHES)
        @example([(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", "keep", 0)])
        @example([(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, "close", 0)])
        @example([(b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}", "keep", 0)])
        @example([(b"HTTP/1.1 200 OK\r\ncontent-encoding: zstd\r\ncontent-length: 2\r\n\r\n{}", "keep", 1)])
        @example([(b"HTTP/1.1 200 OK\r\nset-cookie: \xff=\x00\r\ncontent-length: 2\r\n\r\n{}", "keep", 3)])
        @example([(b"HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n", "keep", 2)])
        def check(batch: list[Case]) -> None:
            try_all(batch)

        try_all([(bomb(128), "keep", 0)])
        check()
    # The bomb is cut off at 16 MiB; Hypothesis keeps what it has tried.
    assert peak_memory() - before < 64 + SCALE


# --- the caller ---

ANYTHING: st.SearchStrategy[Any] = st.one_of(
    JSON,
    st.text(),
    st.binary(max_size=5),
    st.integers(),
    st.floats(),
    st.lists(st.text(max_size=3), max_size=2),
)
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "get": ("image_id",),
    "delete": ("image_id",),
    "update": ("image_id", "name", "description", "distribution"),
    "create_custom": ("name", "url", "region", "distribution", "description", "tags"),
    "list_page": ("type", "private", "tag_name", "page", "per_page"),
    "list": ("type", "private", "tag_name", "per_page", "concurrency"),
    "find_created": ("name", "since", "tags"),
    "wait_until_available": ("image_id", "timeout", "poll_interval"),
    "get_many": ("ids", "concurrency"),
    "delete_many": ("ids", "concurrency"),
    "update_many": ("changes", "concurrency"),
    "actions.list": ("image_id", "per_page"),
    "actions.list_page": ("image_id", "page", "per_page"),
    "actions.get": ("image_id", "action_id"),
    "actions.transfer": ("image_id", "region"),
    "actions.convert": ("image_id",),
    "actions.transfer_to_regions": ("image_id", "regions", "timeout"),
    "actions.wait": ("image_id", "action_id", "timeout", "poll_interval"),
    "account_transfers.create": ("image_id", "email", "team_uuid"),
    "account_transfers.accept": ("image_id", "transfer_id", "team_uuid"),
    "account_transfers.cancel": ("image_id", "transfer_id"),
    "account_transfers.decline": ("image_id", "transfer_id"),
}
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "image_id": st.just(1),
    "action_id": st.just(1),
    "transfer_id": st.just(1),
    "name": st.just("a"),
    "url": st.just("https://example.com/a.img"),
    "region": st.just("nyc3"),
    "regions": st.just(["nyc3"]),
    "ids": st.lists(ANYTHING | st.integers(1, 5), max_size=3),
    "changes": st.dictionaries(st.integers(-1, 3), ANYTHING, max_size=3)
    | st.lists(ANYTHING | st.tuples(ANYTHING, ANYTHING), max_size=3),
    "concurrency": st.integers(1, 4),
    "since": st.datetimes() | st.datetimes(timezones=st.just(UTC)),
    "tags": st.lists(ANYTHING, max_size=2),
    "timeout": st.just(0.05),
    "poll_interval": st.just(0.01),
    "per_page": st.integers(1, 200),
    "page": st.integers(1),
}


def arguments_of(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw arguments, some of them good: otherwise the first bad one would hide the others."""
    return st.fixed_dictionaries({each: GOOD.get(each, st.none()) | ANYTHING for each in ARGUMENTS[name]})


INPUTS = st.sampled_from(sorted(ARGUMENTS)).flatmap(lambda name: st.tuples(st.just(name), arguments_of(name)))


async def _call(api: ImagesAPI, name: str, arguments: dict[str, Any]) -> None:
    """Call a method; raise the first error of one that yields outcomes."""
    made = attrgetter(name)(api)(**arguments)
    if not hasattr(made, "aclose"):
        await made
        return
    async with contextlib.aclosing(made) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Outcome) and outcome.error is not None:
                raise outcome.error


async def _refuse_or_send(api: ImagesAPI, name: str, arguments: dict[str, Any]) -> None:
    try:
        # A wait with a long timeout would poll until then: nothing listens there.
        async with asyncio.timeout(0.2):
            await _call(api, name, arguments)
    except (TimeoutError, errors.TransportError, errors.WaitTimeoutError) as error:
        # Good arguments end so.
        assert_not_shown(TOKEN, error)
    except (TypeError, ValueError) as error:
        assert_not_shown(TOKEN, error)
        known = (*arguments, "image_id", "name", "description", "distribution")
        assert any(key in str(error) for key in known), error  # noqa: PT017
        assert len(str(error)) < 300  # noqa: PT017


@pytest.mark.timeout(60 * max(1, SCALE))
def test_whatever_a_caller_passes_is_sent_or_refused_by_name() -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        api = ImagesAPI(TOKEN, base_url="http://127.0.0.1:9", limiter=PLENTY, retry=ONCE, timeout=5)

        @cases(300)
        @given(INPUTS)
        @example(("find_created", {"name": "a", "since": None, "tags": 0}))
        @example(("wait_until_available", {"image_id": 1, "timeout": 1e-300, "poll_interval": 1}))
        @example(("wait_until_available", {"image_id": 1, "timeout": 10**400, "poll_interval": 1}))
        @example(("actions.transfer_to_regions", {"image_id": 1, "regions": 0, "timeout": 1}))
        @example(("update_many", {"changes": [5], "concurrency": 1}))
        @example(("update_many", {"changes": {1: {"size": "x"}}, "concurrency": 1}))
        @example(("update_many", {"changes": None, "concurrency": 1}))
        def check(case: tuple[str, dict[str, Any]]) -> None:
            runner.run(_refuse_or_send(api, *case))

        check()
        runner.run(api.aclose())


@pytest.mark.timeout(60 * max(1, SCALE))
@cases(150)
@given(
    st.sampled_from(
        ["token", "base_url", "timeout", "max_wait", "user_agent", "retry", "limiter", "session"]
    ),
    ANYTHING.filter(lambda value: value is not None),
)
def test_whatever_a_client_is_made_of_is_taken_or_refused_by_name(name: str, value: object) -> None:
    arguments: dict[str, Any] = {"token": TOKEN, name: value}
    try:
        ImagesAPI(**arguments)
    except (TypeError, ValueError) as error:
        assert name in str(error)  # noqa: PT017


def test_a_model_has_no_more_than_it_was_sent() -> None:
    assert converter.loads(b'{"image": {"id": 1}}', ImageBody).image == Image(id=1)
    with pytest.raises(errors.DecodeError):
        converter.loads(b"{}", ImageBody)
