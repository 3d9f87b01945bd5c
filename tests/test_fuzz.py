"""Whatever comes in, only documented exceptions come out, never the token, in bounded time and memory.

A short pass by default; `FUZZ_SCALE=1000` in the environment makes it a thousand times as long.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from do_images_async import Image, ImagesAPI, RateLimiter, errors
from do_images_async.codec import decode
from do_images_async.models import ImageBody, ImageListBody
from tests.conftest import ONCE, TOKEN
from tests.servers import After, Answer, Server, image_document

SCALE = float(os.environ.get("FUZZ_SCALE", "1"))


def cases(count: int) -> settings:
    return settings(
        max_examples=max(1, int(count * SCALE)),
        deadline=None,
        derandomize=SCALE == 1,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


def run(main: Coroutine[Any, Any, None]) -> None:
    # With a loop factory, what pytest-asyncio holds to be the current loop stays so.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(main)


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


@cases(200)
@given(body=BODIES, model=st.sampled_from([ImageBody, ImageListBody]))
@example(body=b'{"image": {"id": ' + b"9" * 5000 + b"}}", model=ImageBody)
@example(body=b'{"image": ' + b"[" * 100_000, model=ImageBody)
@example(body=b'{"image": {"id": 1, "name": "\\ud800"}}', model=ImageBody)
@example(body=b'{"image": {"id": 1, "created_at": "0001-01-01T00:00:00+14:00"}}', model=ImageBody)
@example(body=b'{"image": {"id": 1, "size_gigabytes": 1e999}}', model=ImageBody)
def test_a_body_is_a_model_or_a_decode_error(body: bytes, model: type[Any]) -> None:
    try:
        value = decode(body, model)
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


async def _talk(cases: list[tuple[bytes, After, int]]) -> None:
    async with Server().running() as server:
        for data, after, call in cases:
            server.script(Answer(data, after))
            # A limiter for each case: what one server says of the quota is not another's business.
            limiter = RateLimiter()
            async with ImagesAPI(
                TOKEN, base_url=server.url, limiter=limiter, retry=ONCE, timeout=0.2, max_wait=0
            ) as api:
                try:
                    async with asyncio.timeout(10):
                        await CALLS[call](api)
                except errors.DOImagesError as error:
                    assert TOKEN not in f"{error} {error!r} {vars(error)}"  # noqa: PT017  (most end so, not all)
            assert limiter.stats().in_flight == 0
            assert len(server.received) <= 1
            server.received.clear()


@cases(15)
@given(
    st.lists(
        st.tuples(STREAMS, st.sampled_from(["keep", "close", "reset"]), st.integers(0, len(CALLS) - 1)),
        min_size=5,
        max_size=10,
    )
)
@example([(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", "keep", 0)])
@example([(b"HTTP/1.1 100 Continue\r\n\r\n" * 50, "close", 0)])
@example([(b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}", "keep", 0)])
@example([(b"HTTP/1.1 200 OK\r\ncontent-encoding: zstd\r\ncontent-length: 2\r\n\r\n{}", "keep", 1)])
@example([(b"HTTP/1.1 200 OK\r\nset-cookie: \xff=\x00\r\ncontent-length: 2\r\n\r\n{}", "keep", 3)])
@example([(b"HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n", "keep", 2)])
def test_whatever_the_socket_brings_is_a_result_or_a_documented_error(
    cases: list[tuple[bytes, After, int]],
) -> None:
    run(_talk(cases))


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
    "find_created": ("name", "since", "tags"),
    "wait_until_available": ("image_id", "timeout", "poll_interval"),
}
INPUTS = st.sampled_from(sorted(ARGUMENTS)).flatmap(
    lambda name: st.tuples(st.just(name), st.fixed_dictionaries(dict.fromkeys(ARGUMENTS[name], ANYTHING)))
)


@cases(80)
@given(INPUTS)
@example(("find_created", {"name": "a", "since": None, "tags": 0}))
def test_whatever_a_caller_passes_is_sent_or_refused_by_name(case: tuple[str, dict[str, Any]]) -> None:
    name, arguments = case

    async def call() -> None:
        # Nothing listens there: an argument that passes the checks ends as a TransportError, or as a wait
        # that is over before its first answer.
        async with ImagesAPI(
            TOKEN, base_url="http://127.0.0.1:9", limiter=RateLimiter(), retry=ONCE, timeout=5
        ) as api:
            try:
                await getattr(api, name)(**arguments)
            except (errors.TransportError, errors.WaitTimeoutError):
                return
            except (TypeError, ValueError) as error:
                assert any(key in str(error) for key in arguments), error  # noqa: PT017

    run(call())


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
    assert decode(b'{"image": {"id": 1}}', ImageBody).image == Image(id=1)
    with pytest.raises(errors.DecodeError):
        decode(b"{}", ImageBody)
