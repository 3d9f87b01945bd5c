"""The emulator's additions to the API: faults, the journal, tokens, threads, state, the admin endpoint."""

from __future__ import annotations

import asyncio
import gzip
import io
import itertools
import json
import re
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, cast
from unittest import mock

import aiohttp
import attrs
import msgspec
import pytest
from aiohttp import web

from do_images_async import ImagesAPI, RetryPolicy, errors
from do_images_async.testing import Entry, Fault, ImagesEmulator, Journal, Quota
from do_images_async.testing.certificates import Certificate
from do_images_async.testing.pages import altered_page
from tests.support.servers import eventually, unused_port
from tests.support.slow import RUN_SLOW

LIST = "/v2/images"
NAN = float("nan")
TEAM = "4f6c71e2-1e90-4762-9fee-6cc4a0a9f2cf"


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(import_seconds=0, action_seconds=0, quotas=None) as running:
        yield running


@pytest.fixture
async def http(emulator: ImagesEmulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a plain HTTP session, without retries or checks."""
    async with aiohttp.ClientSession(
        emulator.url,
        headers={"Authorization": f"Bearer {emulator.token}"},
        connector=aiohttp.TCPConnector(force_close=True),
    ) as session:
        yield session


@pytest.fixture
async def once(emulator: ImagesEmulator) -> AsyncIterator[ImagesAPI]:
    """Yield a client without retries, which raises the first error."""
    async with ImagesAPI(emulator.token, base_url=emulator.url, retry=RetryPolicy(attempts=1)) as api:
        yield api


async def ask(http: aiohttp.ClientSession, path: str = LIST, **options: Any) -> tuple[int, bytes]:
    async with http.get(path, **options) as response:
        return response.status, await response.read()


# --- faults: which requests they strike ---


async def test_a_fault_strikes_as_often_as_it_says(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    once = emulator.faults.add(Fault(status=500))
    twice = emulator.faults.add(Fault(status=503, times=2))
    assert [(await ask(http))[0] for _ in range(5)] == [500, 503, 503, 200, 200]
    assert (once.struck, twice.struck) == (1, 2)
    emulator.faults.add(Fault(status=502, times=None))
    assert [(await ask(http))[0] for _ in range(5)] == [502] * 5
    emulator.faults.clear()
    assert (await ask(http))[0] == 200


async def test_a_fault_strikes_only_what_it_matches(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    fault = emulator.faults.add(Fault(method="GET", path="/v2/images/*", status=500, times=None))
    number = emulator.images.add()
    assert (await ask(http))[0] == 200
    assert (await ask(http, f"{LIST}/{number}"))[0] == 500
    assert (await ask(http, f"{LIST}/{number}/actions"))[0] == 500
    async with http.delete(f"{LIST}/{number}") as response:
        assert response.status == 204
    assert fault.struck == 2


async def test_the_first_fault_that_matches_strikes(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault(path="/v2/images/*", status=500, times=None))
    emulator.faults.add(Fault(status=503, times=None))
    assert ((await ask(http))[0], (await ask(http, f"{LIST}/1"))[0]) == (503, 500)


async def test_probability_is_drawn_from_the_seed() -> None:
    async def drawn(seed: int) -> list[int]:
        async with ImagesEmulator(images=0, seed=seed, quotas=None) as emulator:
            emulator.faults.add(Fault(status=500, probability=0.3, times=None))
            async with aiohttp.ClientSession() as session:
                return [(await ask(session, emulator.url))[0] for _ in range(60)]

    first = await drawn(1)
    assert first == await drawn(1)
    assert first != await drawn(2)
    assert 5 <= first.count(500) <= 35


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"probability": 1.5}, ValueError, "probability"),
        ({"probability": "often"}, TypeError, "probability"),
        ({"status": 99}, ValueError, "status"),
        ({"status": 200.5}, TypeError, "status"),
        ({"status": True}, TypeError, "status"),
        ({"times": -1}, ValueError, "times"),
        ({"delay": -1}, ValueError, "delay"),
        ({"delay": float("nan")}, ValueError, "delay"),
        ({"broken": "badly"}, ValueError, "broken"),
        ({"encoding": "br"}, ValueError, "encoding"),
        ({"pages": "lost"}, ValueError, "pages"),
        ({"method": 5}, TypeError, "method"),
        ({"after": "yes"}, TypeError, "after must be true or false"),
        ({"headers": [("a", "b")]}, TypeError, "headers"),
        ({"headers": {"a": "b\r\nc: d"}}, ValueError, "headers"),
        ({"headers": {"a": 1}}, ValueError, "headers"),
        ({"headers": {"a": "\ud800"}}, ValueError, "headers"),
        ({"path": "/\ud800"}, ValueError, "path must be a string without lone surrogates"),
        ({"method": "\ud800"}, ValueError, "method must be a string without lone surrogates"),
        (
            {"body": "\ud800"},
            ValueError,
            "body must be bytes, a string or JSON data, without NaN, infinity and",
        ),
        ({"body": {"a": ["\ud800"]}}, ValueError, "body must be"),
        ({"body": [float("nan")]}, ValueError, "body must be"),
        ({"body": object()}, ValueError, "body must be"),
        ({"raw": "\ud800"}, ValueError, "raw must be"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name) as caught:
        Fault(**arguments)
    assert "attr" not in str(caught.value)  # a sentence, not the validator's own objects


# --- faults: what they do ---


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b"\x00\xff", b"\x00\xff"),
        ("<h1>Bad Gateway</h1>", b"<h1>Bad Gateway</h1>"),
        ({"id": "x"}, b'{"id": "x"}'),
        ([1], b"[1]"),
        (b"", b""),
    ],
)
async def test_any_status_with_any_body(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, body: Any, sent: bytes
) -> None:
    emulator.faults.add(Fault(status=502, body=body, headers={"content-type": "text/html"}))
    async with http.get(LIST) as response:
        assert (response.status, await response.read()) == (502, sent)
        assert response.content_type == "text/html"


async def test_a_fault_prevents_the_request_or_only_hides_that_it_was_done(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    first, second = emulator.images.add(), emulator.images.add()
    emulator.faults.add(Fault(method="DELETE", status=500))
    emulator.faults.add(Fault(method="DELETE", status=500, after=True))
    for number in (first, second):
        async with http.delete(f"{LIST}/{number}") as response:
            assert response.status == 500
    assert first in emulator.images
    assert second not in emulator.images
    assert [entry.carried_out for entry in emulator.requests] == [False, True]


@pytest.mark.parametrize("after", [False, True])
async def test_a_reset_before_the_headers(emulator: ImagesEmulator, once: ImagesAPI, after: bool) -> None:
    number = emulator.images.add()
    emulator.faults.add(Fault(broken="reset", after=after))
    with pytest.raises(errors.TransportError) as caught:
        await once.delete(number)
    assert caught.value.outcome_unknown
    assert (number in emulator.images) is not after
    assert emulator.requests[-1].status is None
    assert emulator.served == {None: 1}


@pytest.mark.parametrize("broken", ["reset-body", "cut"])
async def test_an_answer_that_ends_in_its_body(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, broken: Any
) -> None:
    emulator.faults.add(Fault(broken=broken))
    async with http.get(LIST) as response:
        assert (response.status, response.content_type) == (200, "application/json")
        half = await response.content.readexactly((response.content_length or 0) // 2)
        assert half.startswith(b'{"images": ')
        with pytest.raises(aiohttp.ClientError) as caught:
            await response.read()
    assert ("reset" in str(caught.value).lower()) == (broken == "reset-body")


@pytest.mark.parametrize("broken", ["stall", "stall-body"])
async def test_a_stall_lasts_until_the_client_leaves(
    emulator: ImagesEmulator, once: ImagesAPI, broken: Any
) -> None:
    emulator.faults.add(Fault(broken=broken, times=None))
    with pytest.raises(errors.RequestTimeoutError):
        await once.with_options(timeout=0.2).list_page()
    stalled = [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)]
    await eventually(lambda: all(task.done() for task in stalled))
    emulator.faults.clear()
    assert (await once.list_page()).total == 43


async def test_a_body_that_comes_a_byte_at_a_time(emulator: ImagesEmulator, once: ImagesAPI) -> None:
    emulator.faults.add(Fault(pace=0.05))
    with pytest.raises(errors.RequestTimeoutError):
        await once.with_options(timeout=0.2).list_page()
    emulator.faults.add(Fault(pace=0.0001, body='{"image": {"id": 7}}'))
    assert (await once.get(7)).id == 7


async def test_a_body_that_is_no_json(emulator: ImagesEmulator, once: ImagesAPI) -> None:
    emulator.faults.add(Fault(malformed=True))
    with pytest.raises(errors.DecodeError):
        await once.list_page()


async def test_the_wrong_content_type(emulator: ImagesEmulator, http: aiohttp.ClientSession) -> None:
    emulator.faults.add(Fault(headers={"content-type": "text/html", "x-odd": "1", "server": ""}))
    async with http.get(LIST) as response:
        assert (response.content_type, response.headers["x-odd"]) == ("text/html", "1")
        assert len((await response.json(content_type=None))["images"]) == 20


async def test_gzip_whether_it_was_asked_for_or_not(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault(encoding="gzip", times=2))
    assert len(json.loads((await ask(http))[1])["images"]) == 20
    async with (
        aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as plain,
        plain.get(f"{emulator.url}{LIST}", headers=http.headers) as response,
    ):
        assert len(json.loads(gzip.decompress(await response.read()))["images"]) == 20


async def test_gzip_that_is_corrupt(emulator: ImagesEmulator, once: ImagesAPI) -> None:
    emulator.faults.add(Fault(encoding="corrupt-gzip"))
    with pytest.raises(errors.TransportError):
        await once.list_page()


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01 not http", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b""]
)
async def test_bytes_that_are_no_http(emulator: ImagesEmulator, once: ImagesAPI, raw: bytes) -> None:
    emulator.faults.add(Fault(raw=raw))
    with pytest.raises(errors.TransportError):
        await once.list_page()
    assert (await once.list_page()).total == 43


async def test_latency_and_jitter(emulator: ImagesEmulator, http: aiohttp.ClientSession) -> None:
    loop = asyncio.get_running_loop()

    async def took() -> float:
        started = loop.time()
        await ask(http)
        return loop.time() - started

    emulator.faults.add(Fault(delay=0.05))
    assert await took() >= 0.05
    emulator.latency, emulator.jitter = 0.03, 0.01
    assert await took() >= 0.03
    pauses = {emulator.faults.pause(Fault(delay=1, jitter=2)) for _ in range(50)}
    assert len(pauses) > 40
    assert 1 <= min(pauses) < 2 < max(pauses) <= 3


async def test_a_storm_of_429(emulator: ImagesEmulator, http: aiohttp.ClientSession) -> None:
    emulator.faults.storm(3, retry_after=7)
    for _ in range(3):
        async with http.get(LIST) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "7")
            assert (await response.json())["id"] == "too_many_requests"
    assert (await ask(http))[0] == 200
    emulator.faults.storm(None, retry_after=None)
    async with http.get(LIST) as response:
        assert (response.status, "retry-after" in response.headers) == (429, False)


async def test_a_client_sails_through_a_storm(emulator: ImagesEmulator) -> None:
    emulator.faults.storm(2, retry_after=1)
    async with ImagesAPI(emulator.token, base_url=emulator.url) as api:
        assert (await api.list_page()).total == 43
    assert emulator.requests.statuses() == {429: 2, 200: 1}


async def test_a_clock_that_is_wrong() -> None:
    async with ImagesEmulator(clock=lambda: 1000.0) as emulator, aiohttp.ClientSession() as session:
        resets: list[int] = []
        emulator.faults.add(Fault(reset_skew=-90, times=1))
        for _ in range(2):
            async with session.get(f"{emulator.url}{LIST}") as response:
                resets.append(int(response.headers["ratelimit-reset"]))
    assert resets == [4600 - 90, 4600]


async def test_an_answer_that_a_fault_gives_counts_and_a_broken_connection_does_not() -> None:
    async with ImagesEmulator(quotas=(Quota(3, 60.0),)) as emulator, aiohttp.ClientSession() as session:
        emulator.faults.add(Fault(status=500))
        emulator.faults.add(Fault(status=500, after=True))
        emulator.faults.add(Fault(broken="reset"))
        left: list[str] = []
        for _ in range(2):
            async with session.get(f"{emulator.url}{LIST}") as response:
                left.append(response.headers["ratelimit-remaining"])
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"{emulator.url}{LIST}")
        async with session.get(f"{emulator.url}{LIST}") as response:
            left.append(response.headers["ratelimit-remaining"])
    assert left == ["2", "1", "0"]


# --- faults: pages ---


async def pages(http: aiohttp.ClientSession, *numbers: int) -> list[list[int]]:
    """Return the ids of each of these pages, of five images."""
    found: list[list[int]] = []
    for number in numbers:
        body = json.loads((await ask(http, f"{LIST}?per_page=5&page={number}"))[1])
        found.append([image["id"] for image in body["images"]])
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("duplicated", [(0, 5), (0, 5), (5, 10)]),
        ("created", [(0, 5), (4, 9), (9, 14)]),
        ("deleted", [(0, 5), (6, 11), (11, 16)]),
    ],
)
async def test_pages_that_are_not_what_they_were(
    emulator: ImagesEmulator,
    http: aiohttp.ClientSession,
    kind: Any,
    expected: list[tuple[int, int]],
) -> None:
    ids = [image["id"] for image in emulator.images]
    emulator.faults.add(Fault(pages=kind, times=3))
    assert await pages(http, 1, 2, 3) == [ids[first:last] for first, last in expected]
    assert await pages(http, 1, 2) == [ids[0:5], ids[5:10]]


async def test_the_last_page_shrinks(emulator: ImagesEmulator, http: aiohttp.ClientSession) -> None:
    ids = [image["id"] for image in emulator.images]
    emulator.faults.add(Fault(pages="deleted"))
    assert await pages(http, 9) == [ids[41:43]]


@pytest.mark.parametrize(("kind", "total"), [("duplicated", 43), ("created", 44), ("deleted", 42)])
async def test_the_total_moves_with_the_pages(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, kind: Any, total: int
) -> None:
    emulator.faults.add(Fault(pages=kind))
    assert json.loads((await ask(http, f"{LIST}?page=2"))[1])["meta"]["total"] == total


async def test_pages_that_lead_to_themselves(emulator: ImagesEmulator, once: ImagesAPI) -> None:
    emulator.faults.add(Fault(pages="looping", times=None))
    with pytest.raises(errors.DecodeError, match="leads back to page 1"):
        [image async for image in once.list(per_page=5)]


async def test_pages_of_actions_are_pages_and_other_answers_are_not(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    number = emulator.images.add(regions=[])
    for region in ("ams3", "nyc3"):
        emulator.actions.start(number, "transfer", region)
    emulator.faults.add(Fault(pages="duplicated", times=None))
    path = f"{LIST}/{number}/actions?per_page=1"
    first, second = [(await ask(http, f"{path}&page={page}"))[1] for page in (1, 2)]
    assert json.loads(first)["actions"] == json.loads(second)["actions"]
    assert (await ask(http, f"{LIST}/{number}"))[0] == 200


async def test_pages_of_any_listing_are_pages() -> None:
    async def page(number: int) -> dict[str, Any]:
        return {"snapshots": [{"id": number}], "links": {"pages": {}}, "meta": {"total": 2}}

    assert await altered_page("duplicated", 2, await page(2), page) == await page(1)


@pytest.mark.parametrize(
    ("host", "origin"), [("localhost:{port}", "http://localhost:{port}"), ("[", "http://127.0.0.1:{port}")]
)
async def test_links_lead_to_where_the_client_sees_the_server(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, host: str, origin: str
) -> None:
    port = emulator.url.rpartition(":")[2]
    _, content = await ask(http, headers={"Host": host.format(port=port)})
    assert json.loads(content)["links"]["pages"]["next"] == f"{origin.format(port=port)}{LIST}?page=2"


@pytest.mark.parametrize(
    ("forwarded", "origin"),
    [
        ("https", "https://images.example"),
        ("HTTPS", "https://images.example"),
        ("https, http", "https://images.example"),
        ("http", "http://images.example"),
        ("javascript", "http://images.example"),
        ("", "http://images.example"),
    ],
)
async def test_links_have_the_scheme_that_a_proxy_names(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, forwarded: str, origin: str
) -> None:
    _, content = await ask(http, headers={"Host": "images.example", "X-Forwarded-Proto": forwarded})
    assert json.loads(content)["links"]["pages"]["next"] == f"{origin}{LIST}?page=2"


async def test_a_port_stays_in_the_links_behind_a_proxy(http: aiohttp.ClientSession) -> None:
    _, content = await ask(http, headers={"Host": "[::1]:8443", "X-Forwarded-Proto": "https"})
    assert json.loads(content)["links"]["pages"]["next"] == f"https://[::1]:8443{LIST}?page=2"


# --- the journal ---


async def test_the_journal_holds_what_was_asked_and_answered(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    async with http.put(f"{LIST}/7?x=1&x=2", json={"name": "b"}) as response:
        assert response.status == 404
    (entry,) = emulator.requests
    assert (entry.method, entry.path, entry.query) == ("PUT", f"{LIST}/7", {"x": "2"})
    assert (entry.body, entry.status, entry.carried_out) == ({"name": "b"}, 404, False)
    assert entry.token is not None
    assert entry.token not in emulator.token
    assert emulator.token not in repr(entry)
    assert emulator.requests.count(token=emulator.token) == 1
    assert emulator.requests.count(token="another") == 0


def entry(time: float, method: str = "GET", path: str = LIST, status: int = 200) -> Entry:
    return Entry(time=time, method=method, path=path, query={}, body=None, token=None, status=status)


def test_requests_are_filtered_and_counted() -> None:
    journal = Journal()
    for each in (
        *(entry(1), entry(2, path=f"{LIST}/7"), entry(3, "DELETE", f"{LIST}/7", 204)),
        *(entry(4, "DELETE", f"{LIST}/8", 404), entry(5, path=f"{LIST}/8/actions")),
    ):
        journal.append(each)
    assert journal.count() == len(journal) == 5
    assert journal.count("GET", LIST) == 1
    assert journal.count("GET", f"{LIST}/*") == 2
    assert journal.count("DELETE", status=404) == 1
    assert [each.time for each in journal.where(since=3)] == [3, 4, 5]
    assert [each.time for each in journal.where("DELETE").where(status=204)] == [3]
    assert len(journal.where(when=lambda each: each.path.endswith("/actions"))) == 1
    assert [each.time for each in journal[1:4].where("DELETE")] == [3, 4]
    assert journal.statuses() == {200: 3, 204: 1, 404: 1}
    assert repr(journal) == "<Journal of 5 requests: 3 of 200, 1 of 204, 1 of 404>"
    journal.clear()
    assert repr(journal) == "<Journal of 0 requests>"


@pytest.mark.parametrize(("seconds", "worst"), [(0.5, 2), (1, 2), (1.5, 3), (10, 4), (100, 6)])
def test_the_worst_window_of_any_length(seconds: float, worst: int) -> None:
    journal = Journal(entries=(entry(time) for time in (0, 0, 1, 5, 50, 59)))
    assert journal.worst_window(seconds) == worst
    assert journal.where("POST").worst_window(seconds) == 0


@pytest.mark.parametrize(
    ("question", "kind", "words"),
    [
        *(
            ({"status": status}, TypeError, "status must be a whole number from 100")
            for status in ("429", True)
        ),
        *(
            ({"status": status}, ValueError, "status must be a whole number from 100")
            for status in (42, 1000)
        ),
        ({"method": 5}, TypeError, "method must be a string"),
        ({"path": b"/v2/images"}, TypeError, "path must be a string"),
        ({"token": b"dop_v1_test"}, TypeError, "token must be a string"),
        *(({"since": since}, TypeError, "since must be Unix time in seconds") for since in ("3", True)),
        ({"since": float("nan")}, ValueError, "since must be Unix time in seconds"),
        ({"when": "DELETE"}, TypeError, "when must be a function"),
    ],
)
def test_a_question_about_the_journal_that_no_request_can_match_is_refused(
    question: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        Journal().where(**question)
    if not question.keys() & {"since", "when"}:
        with pytest.raises(kind, match=words):
            Journal().count(**question)


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [*((seconds, ValueError) for seconds in (0, -1, float("nan"))), ("60", TypeError), (True, TypeError)],
)
def test_a_window_that_holds_no_time_is_refused(seconds: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="seconds must be a number above 0"):
        Journal(entries=[entry(1)]).worst_window(seconds)
    assert Journal(entries=[entry(1), entry(9)]).worst_window(float("inf")) == 2


async def test_a_journal_that_is_limited_forgets_and_the_count_does_not() -> None:
    async with ImagesEmulator(journal_limit=2) as emulator, aiohttp.ClientSession() as session:
        for number in range(5):
            await ask(session, f"{emulator.url}/{number}")
        assert [each.path for each in emulator.requests] == ["/3", "/4"]
        assert emulator.served == {404: 5}


# --- HEAD ---


async def test_head_is_answered_as_get_counted_and_noted() -> None:
    async with ImagesEmulator(images=1, quotas=(Quota(20, 60.0),)) as emulator:
        number = next(image["id"] for image in emulator.images if not image["public"])
        action = emulator.actions.start(number, "transfer", "ams3")["id"]
        headers = {"Authorization": f"Bearer {emulator.token}"}
        paths = {
            LIST: 200,
            f"{LIST}/": 200,
            f"{LIST}?per_page=0": 422,
            f"{LIST}/{number}": 200,
            f"{LIST}/debian-12-x64": 200,
            f"{LIST}/1": 404,
            f"{LIST}/{number}/actions": 200,
            f"{LIST}/{number}/actions/{action}": 200,
            f"{LIST}/{number}/account_transfer": 405,
        }
        async with aiohttp.ClientSession(emulator.url, headers=headers) as session:
            for path, status in paths.items():
                async with session.get(path) as got, session.head(path) as response:
                    assert (response.status, await response.read()) == (status, b""), path
                    assert status == 405 or response.headers.keys() == got.headers.keys()
                    assert int(response.headers["Content-Length"]) > 0
            async with session.head(LIST, headers={"Authorization": ""}) as response:
                assert (response.status, response.headers["ratelimit-remaining"]) == (401, "19")
        assert emulator.requests.count("HEAD") == len(paths) + 1
        assert emulator.requests.count("HEAD", LIST, status=200) == 2
        assert emulator.requests.count(status=429) == 0


async def test_a_fault_of_get_is_none_of_head_and_no_fault_sends_head_a_body(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    emulator.faults.add(Fault(method="GET", status=503))
    emulator.faults.add(Fault(method="HEAD", pace=0.001, body=b"odd", status=500))
    emulator.faults.add(Fault(method="HEAD", broken="cut"))
    port = int(emulator.url.rpartition(":")[2])
    for status in (500, 200):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"HEAD {LIST} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {emulator.token}\r\n\r\n".encode()
        )
        answer = await reader.read()
        writer.close()
        assert answer.startswith(f"HTTP/1.1 {status} ".encode())
        assert answer.endswith(b"\r\n\r\n")
    assert (await ask(http))[0] == 503


# --- tokens ---


def test_scopes_must_be_scopes() -> None:
    emulator = ImagesEmulator()
    with pytest.raises(TypeError, match="scopes"):
        emulator.tokens.issue(scopes="image:read")
    with pytest.raises(ValueError, match=r"scopes .*image:wrte"):
        emulator.tokens.issue(scopes=["image:wrte"])
    token = emulator.tokens.issue(scopes=["image:read"])
    assert token.startswith("dop_v1_")
    assert set(emulator.tokens) == {emulator.token, token}
    assert repr(emulator.tokens) == "<Tokens: 2>"
    assert emulator.token not in repr(emulator)


# --- threads ---


def test_a_thread_serves_clients_that_block() -> None:
    before = threading.active_count()
    with ImagesEmulator(images=3) as emulator:
        headers = {"Authorization": f"Bearer {emulator.token}"}
        request = urllib.request.Request(f"{emulator.url}{LIST}?private=true", headers=headers)  # noqa: S310
        with urllib.request.urlopen(request) as response:  # noqa: S310  (http, to the emulator)
            assert json.load(response)["meta"]["total"] == 3
        emulator.faults.add(Fault(status=503))
        with pytest.raises(urllib.error.HTTPError, match="503") as caught:
            urllib.request.urlopen(request)  # noqa: S310
        caught.value.close()
        assert emulator.requests.count("GET", LIST) == 2
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.url


async def test_a_port_that_is_taken_is_said_at_once(emulator: ImagesEmulator) -> None:
    port = int(emulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"), ImagesEmulator(port=port):
        pass
    with pytest.raises(OSError, match="address already in use"):
        await ImagesEmulator(port=port).__aenter__()


@pytest.mark.skipif(sys.platform == "win32", reason="a process's limits can't be set")
async def test_that_it_listens_nowhere_is_said_at_once() -> None:
    import resource

    emulator = ImagesEmulator(images=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            await emulator.__aenter__()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    async with emulator:
        assert emulator.url


async def test_it_ends_though_a_client_waits() -> None:
    async with aiohttp.ClientSession() as session:
        async with ImagesEmulator(images=0) as emulator:
            emulator.faults.add(Fault(broken="stall"))
            waiting = asyncio.create_task(session.post(f"{emulator.url}{LIST}"))
            await eventually(lambda: len(emulator.requests) == 1)
        with pytest.raises(aiohttp.ClientError):
            await waiting


def test_it_can_run_again() -> None:
    emulator = ImagesEmulator(images=1, port=unused_port())
    numbers: list[int] = []
    for _ in range(2):
        with emulator:
            numbers.append(emulator.images.add())
    assert all(number in emulator.images for number in numbers)


async def test_many_threads_may_use_it_at_once() -> None:
    with ImagesEmulator(images=50, quotas=None) as emulator:
        async with ImagesAPI(emulator.token, base_url=emulator.url) as api:
            listing = asyncio.gather(*(api.list_page(per_page=200) for _ in range(20)))
            for _ in range(200):
                emulator.images.remove(emulator.images.add(name="brief"))
                emulator.requests.count("GET")
            assert all(page.total == len(page.images) for page in await listing)


# --- TLS ---


async def test_tls_with_a_certificate_of_its_own(tmp_path: Any) -> None:
    certificate = Certificate.issue()
    async with ImagesEmulator(tls=certificate.server) as emulator:
        assert emulator.url.startswith("https://")
        connector = aiohttp.TCPConnector(ssl=certificate.client)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            ImagesAPI(emulator.token, base_url=emulator.url, session=session) as api,
        ):
            assert (await api.get("debian-12-x64")).slug == "debian-12-x64"
        async with ImagesAPI(emulator.token, base_url=emulator.url, retry=RetryPolicy(attempts=1)) as api:
            with pytest.raises(errors.TransportError, match="certificate"):
                await api.get("debian-12-x64")
    assert "BEGIN CERTIFICATE" in certificate.authority.decode()


def test_without_trustme_tls_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trustme", None)
    with pytest.raises(ModuleNotFoundError, match="TLS needs the extra testing: pip install trustme"):
        Certificate.issue()


# --- state ---


async def test_a_state_survives_as_json() -> None:
    now = 10_000.0

    def clock() -> float:
        return now

    async with ImagesEmulator(clock=clock, import_seconds=10, action_seconds=10) as first:
        async with ImagesAPI(first.token, base_url=first.url) as api:
            number = first.images.add(name="mine", tags=["prod"])
            new = await api.create_custom(name="a", url="https://a.example/b.img", region="nyc3")
            action = await api.actions.transfer(number, "ams3")
            await api.account_transfers.create(number, email="a@example.com")
            (offer,) = first.transfers
        now += 4
        state = json.loads(json.dumps(first.dump()))

    now += 5000
    async with ImagesEmulator(images=0, clock=clock, import_seconds=10, action_seconds=10) as second:
        second.load(state)
        assert second.dump() == state
        async with ImagesAPI(second.token, base_url=second.url) as api:
            assert (await api.get(number)).tags == ("prod",)
            assert (await api.get(new.id)).status == "NEW"
            assert (await api.actions.get(number, action.id)).status == "in-progress"
            now += 6
            assert (await api.get(new.id)).status == "available"
            assert (await api.actions.get(number, action.id)).status == "completed"
            assert (await api.get(number)).regions == ("nyc3", "ams3")
            later = await api.actions.transfer(number, "fra1")
            assert later.id > action.id
            assert second.images.add() > new.id
            await api.account_transfers.cancel(number, offer.id)
            await api.account_transfers.create(number, email="a@example.com")
            assert [each.id - offer.id for each in second.transfers] == [0, 1]


def test_a_state_can_be_written_by_hand() -> None:
    emulator = ImagesEmulator()
    emulator.load({"images": [{"name": "golden"}, {"id": 7, "slug": "seven", "public": True}]})
    assert [image["name"] for image in emulator.images] == ["golden", "image-7"]
    assert emulator.images.find("seven") == emulator.images[7]
    assert emulator.images.find("debian-12-x64") is None


MINE = {"id": 7, "name": "mine"}
ACTION = {
    "id": 1,
    "status": "in-progress",
    "type": "transfer",
    "resource_id": 7,
    "region_slug": "ams3",
    "started_at": "2025-01-31T12:00:00Z",
    "completed_at": None,
}
JOB = {"image_id": 7, "elapsed": 0, "region": "nyc3", "works": True}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([], "a state must be an object"),
        ({"image": []}, "a state has no image; it has images, imports, actions, transfers, incomplete"),
        ({}, "a state needs images"),
        ({"images": None}, "images must be an array"),
        ({"images": [5]}, r"images\[0\] must be an object"),
        ({"images": [{"nome": "x"}]}, r"images\[0\] has no nome; it has id, name"),
        ({"images": [{"name": "a"}, {"tags": 5}]}, r"images\[1\].tags must be an array of strings"),
        (
            {"images": [{"id": 2**53}]},
            r"images\[0\].id must be a whole number from 1 to 9,007,199,254,740,991$",
        ),
        (
            {"images": [{"min_disk_size": -1}]},
            r"images\[0\].min_disk_size must be a whole number from 0 to 9,007,199,254,740,991 or null$",
        ),
        (
            {"images": [{"size_gigabytes": 1e13}]},
            r"images\[0\].size_gigabytes must be a number from 0 to 1,000,000,000,000 or null$",
        ),
        (
            {"images": [MINE], "imports": [JOB | {"elapsed": 1e10}]},
            r"imports\[0\].elapsed must be a number of seconds from -1,000,000,000 to 1,000,000,000$",
        ),
        (
            {"images": [], "incomplete": [0]},
            "incomplete must be an array of ids, each a whole number from 1 to",
        ),
        ({"images": [{"name": "\ud800"}]}, r"images\[0\].name must be a string without lone surrogates"),
        (
            {"images": [{"tags": ["a", "\ud800"]}]},
            r"images\[0\].tags must be an array of strings without lone",
        ),
        ({"images": [{"na\ud800me": "x"}]}, r"images\[0\] has no na\ud800me"),
        ({"images": [], "actions": [ACTION | {"region": {"a": "\udfff"}}]}, r"actions\[0\].region must be"),
        ({"images": [{"id": 1}, {"id": 1}]}, "the ids of images must be unique"),
        ({"images": [{"slug": "a"}, {"slug": "a"}]}, "slugs must be unique"),
        ({"images": [MINE], "imports": [JOB | {"image_id": 8}]}, "there is no image 8"),
        ({"images": [MINE], "imports": [JOB, JOB]}, "the ids of imports must be unique"),
        ({"images": [MINE], "imports": [{"image_id": 7}]}, r"imports\[0\] needs elapsed"),
        ({"images": [], "actions": [5]}, r"actions\[0\] must be an object"),
        (
            {"images": [MINE], "actions": [ACTION | {"status": "completed", "ends_in": 1}]},
            r"actions\[0\].ends_in is for actions in progress",
        ),
        (
            {"images": [MINE], "actions": [ACTION | {"region_slug": None, "ends_in": 1}]},
            r"actions\[0\] is a transfer in progress and needs region_slug",
        ),
        ({"images": [], "transfers": [{"id": 1}]}, r"transfers\[0\] needs image_id"),
        (
            {"images": [], "transfers": [{"id": 1, "image_id": 7, "state": "lost"}]},
            r"transfers\[0\].state must be one of pending, accepted, cancelled, declined",
        ),
        ({"images": [], "incomplete": [7]}, "there is no image 7"),
        ({"images": [MINE], "incomplete": [7]}, "image 7 is incomplete and still needs name, type"),
    ],
)
async def test_a_state_that_does_not_fit_together_is_refused(
    emulator: ImagesEmulator, state: Any, message: str
) -> None:
    before = emulator.dump()
    with pytest.raises(ValueError, match=message):
        emulator.load(state)
    assert emulator.dump() == before
    async with aiohttp.ClientSession(emulator.url) as session:
        async with session.put("/_emulator/state", json=state) as response:
            assert response.status == (422 if isinstance(state, dict) else 400)
            msgspec.json.decode(await response.read())  # refuses half of a surrogate pair
        async with session.get("/_emulator/state") as response:
            assert await response.json() == before


ODD: list[Any] = [
    *(None, True, 5, -1, 1e308, float("nan"), 10**30, "", "2025-02-31T12:00:00Z"),
    *("9999-12-31T23:59:59-12:00", "\ud800", [], [5], {}),
]
"""Values to put into every field."""


def fields_of(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value in a document, from the whole to the smallest."""
    yield path
    keys: Iterable[Any] = ()
    if isinstance(document, dict):
        keys = cast("dict[str, Any]", document)
    elif isinstance(document, list):
        keys = range(len(document))  # pyright: ignore[reportUnknownArgumentType]
    for key in keys:
        yield from fields_of(cast("Any", document)[key], (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a path."""
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = changed(document[path[0]], path[1:], value)
    return copy


async def test_whatever_a_field_of_a_state_holds_it_is_refused_or_served() -> None:
    """Load a full state with each invalid value in each field; each request works afterwards."""
    async with ImagesEmulator(
        images=0, quotas=None, clock=lambda: 1e9, style="observed", import_seconds=100, action_seconds=100
    ) as emulator:
        number = emulator.images.add(tags=["a"])
        emulator.actions.start(number, "transfer", "ams3")
        emulator.transfers.create(number, email="a@b.c")
        new = emulator.images.start_import(
            name="n", url="https://a.example/b.img", region="nyc3", distribution="", description="", tags=[]
        )["id"]
        state = emulator.dump()
        kept = (number, new, *state["incomplete"][:1])
        state["images"] = [image for image in state["images"] if image["id"] in kept]
        state["incomplete"] = state["incomplete"][:1]
        emulator.load(state)
        before = emulator.dump()
        headers = {"Authorization": f"Bearer {emulator.token}"}
        served = 0
        async with aiohttp.ClientSession(emulator.url, headers=headers) as session:
            cases = list(itertools.product(fields_of(state), ODD))
            for path, odd in cases if RUN_SLOW else cases[::3]:  # each field, and each value
                try:
                    emulator.load(changed(state, path, odd))
                except ValueError:
                    assert emulator.dump() == before, (path, odd)
                    continue
                served += 1
                for each in (f"{LIST}?type=application&tag_name=x", LIST, f"{LIST}/{number}/actions"):
                    assert (await ask(session, each))[0] in (200, 404), (path, odd)
                emulator.load(state)
    assert served > (100 if RUN_SLOW else 30)


# --- the admin endpoint ---


async def test_faults_are_set_from_outside(emulator: ImagesEmulator, http: aiohttp.ClientSession) -> None:
    admin = f"{emulator.admin_url}/faults"
    async with aiohttp.ClientSession() as other:
        fault = {"method": "GET", "path": f"{LIST}/*", "status": 503, "times": 2, "body": {"id": "x"}}
        async with other.post(admin, json=fault) as response:
            assert response.status == 201
        async with other.post(admin, json={"raw_base64": "AAE=", "probability": 0}) as response:
            assert response.status == 201
        assert [(await ask(http, f"{LIST}/1"))[0] for _ in range(3)] == [503, 503, 404]
        async with other.get(admin) as response:
            first, second = (await response.json())["faults"]
            assert (first["struck"], first["times"], first["status"]) == (2, 2, 503)
            assert second["raw_base64"] == "AAE="
        async with other.delete(admin) as response:
            assert response.status == 204
    assert len(emulator.faults) == 0


@pytest.mark.parametrize(
    ("path", "data", "status", "message"),
    [
        ("/faults", b'{"status": 1}', 422, "status must be"),
        ("/faults", b'{"stat": 500}', 422, "a fault has no stat; it has after, body,"),
        ("/faults", b'{"raw_base64": "?"}', 422, "raw_base64 must be a string in base64"),
        ("/faults", b'{"body_base64": 5}', 422, "body_base64 must be a string in base64"),
        ("/faults", b'{"body": "a", "body_base64": "Yg=="}', 422, "body and body_base64 exclude each other"),
        ("/faults", b'{"raw": "", "raw_base64": ""}', 422, "raw and raw_base64 exclude each other"),
        ("/faults", b'{"times": 1.5}', 422, "times must be a whole number from 0"),
        ("/faults", b"{", 400, "not JSON"),
        ("/faults", b"[]", 400, "object"),
        ("/tokens", b'{"scopes": "image:read"}', 422, "scopes"),
        (
            "/tokens",
            b'{"scope": ["image:read"]}',
            422,
            "a token has no scope; it has expires_in, scopes, token",
        ),
        ("/tokens", b'{"scopes": [5]}', 422, "scopes must be several strings such as image:read"),
        ("/tokens", b'{"scopes": 5}', 422, "scopes must be several strings such as image:read"),
        ("/tokens", b'{"token": 5}', 422, "token must be printable"),
        ("/tokens", b'{"token": "a b"}', 422, "token must be printable"),
        ("/tokens", b'{"expires_in": "soon"}', 422, "expires_in"),
        ("/tokens", b'{"expires_in": -1}', 422, "expires_in"),
        ("/tokens", b'{"expires_in": NaN}', 400, "not JSON"),
        ("/faults", b'{"delay": 1e308}', 422, "delay must be"),
        ("/nothing", b"{}", 404, ""),
    ],
)
async def test_what_the_admin_endpoint_refuses(
    emulator: ImagesEmulator, path: str, data: bytes, status: int, message: str
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            emulator.admin_url + path, data=data, headers={"Content-Type": "application/json"}
        ) as response,
    ):
        assert response.status == status
        assert message in (await response.json())["message"]


async def test_the_journal_is_read_from_outside(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    await ask(http)
    await ask(http, f"{LIST}/1")
    async with aiohttp.ClientSession() as other:
        async with other.get(f"{emulator.admin_url}/requests?path={LIST}/*&status=404") as response:
            found = await response.json()
        assert (found["count"], found["requests"][0]["path"]) == (1, f"{LIST}/1")
        async with other.get(f"{emulator.admin_url}/requests?statuses=503") as response:
            assert response.status == 422
            assert "statuses" in (await response.json())["message"]
        async with other.get(f"{emulator.admin_url}/requests?status=many") as response:
            assert response.status == 422
        async with other.get(emulator.admin_url) as response:
            overview = await response.json()
        assert overview.items() >= {"requests": 2, "statuses": {"200": 1, "404": 1}, "faults": 0}.items()
        async with other.delete(f"{emulator.admin_url}/requests") as response:
            assert response.status == 204
    assert len(emulator.requests) == 0


@pytest.mark.parametrize("slash", ["", "/"])
async def test_the_root_of_the_admin_endpoints_lists_them(emulator: ImagesEmulator, slash: str) -> None:
    async with aiohttp.ClientSession() as other:
        async with other.get(emulator.admin_url + slash) as response:
            assert response.status == 200
            listed = (await response.json())["endpoints"]
        assert {"/_emulator", "/_emulator/faults", "/_emulator/state"} < {each["path"] for each in listed}
        for each in listed:
            assert each["description"].count("\n") == 0
            url = emulator.url + each["path"]
            body: dict[str, Any] = {"images": []} if each["method"] == "PUT" else {}
            if each["path"].endswith("/faults"):
                body = {"status": 503}
            async with other.request(each["method"], url, json=body) as response:
                assert response.status in (200, 201, 204), each


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        (
            "DELETE",
            "/requests?status=503",
            "'status': the query of DELETE /_emulator/requests takes no param",
        ),
        (
            "GET",
            "/requests?since=5",
            "'since': the query of GET /_emulator/requests takes each of method, path",
        ),
        (
            "GET",
            "/requests?status=503&status=404",
            "'status': the query of GET /_emulator/requests takes each",
        ),
        ("GET", "?full=1", "'full': the query of GET /_emulator takes no parameters"),
        ("GET", "/?full=1", "'full': the query of GET /_emulator takes no parameters"),
        ("POST", "/faults?times=2", "'times'"),
        ("DELETE", "/faults?path=/v2", "'path'"),
        ("PUT", "/state?part=images", "'part'"),
        ("GET", "/state?part=images", "'part'"),
        ("POST", "/tokens?%F0%9F%90%8D=1", "no parameters"),
    ],
)
async def test_a_query_without_effect_is_refused_by_the_admin_endpoint(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, method: str, path: str, message: str
) -> None:
    await ask(http)
    emulator.faults.add(Fault(path="/none", status=503))
    before = (emulator.dump(), len(emulator.tokens))
    body: Any = {"images": []} if method == "PUT" else {} if method == "POST" else None
    async with (
        aiohttp.ClientSession() as other,
        other.request(method, emulator.admin_url + path, json=body) as response,
    ):
        assert response.status == 422
        assert message in (await response.json())["message"]
    assert (emulator.dump(), len(emulator.tokens)) == before
    assert (len(emulator.faults), len(emulator.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/faults", "GET, HEAD, POST, DELETE"),
        ("OPTIONS", "/faults", "GET, HEAD, POST, DELETE"),
        ("POST", "/requests", "GET, HEAD, DELETE"),
        ("DELETE", "/state", "GET, HEAD, PUT"),
        ("GET", "/tokens", "POST"),
        ("DELETE", "", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
    ],
)
async def test_a_method_that_the_admin_endpoint_does_not_have(
    emulator: ImagesEmulator, method: str, path: str, allowed: str
) -> None:
    url, sent = emulator.admin_url + path, {"Content-Type": "application/json"}
    async with aiohttp.ClientSession() as other, other.request(method, url, headers=sent) as response:
        assert (response.status, response.headers["Allow"]) == (405, allowed)
        assert (await response.json())["id"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["", "/", "/faults", "/requests?status=200", "/state"])
async def test_head_is_get_without_the_body(emulator: ImagesEmulator, path: str) -> None:
    async with aiohttp.ClientSession() as other, other.head(emulator.admin_url + path) as response:
        assert (response.status, await response.read()) == (200, b"")
        assert int(response.headers["Content-Length"]) > 0


RAW = re.compile(
    r"\b(int|str|float|bool|dict|list|NoneType|iterable|unhashable|bytes-like|argument)\b|object at"
)
"""What only Python's own messages say."""


ODD_TYPES: list[Any] = [None, True, 5, -1.5, "é", [], [5], [[]], {}, {"a": 5}]


@pytest.mark.parametrize(
    ("method", "path", "fields", "rest"),
    [
        ("POST", "/faults", [each.name for each in attrs.fields(Fault) if each.init], {"pace": 1}),
        ("POST", "/faults", ["body_base64", "raw_base64"], {"pace": 1}),
        ("POST", "/tokens", ["scopes", "expires_in", "token"], {}),
        ("PUT", "/state", ["images", "imports", "actions", "transfers", "incomplete"], {"images": []}),
    ],
)
async def test_a_wrong_type_in_a_field_is_refused_in_the_users_words(
    emulator: ImagesEmulator, method: str, path: str, fields: list[str], rest: dict[str, Any]
) -> None:
    refused = 0
    async with aiohttp.ClientSession() as other:
        for field in fields:
            for odd in ODD_TYPES:
                body = {**rest, field: odd}
                async with other.request(method, emulator.admin_url + path, json=body) as response:
                    if response.status == 422:
                        refused += 1
                        said = (await response.json())["message"]
                        assert field in said, body
                        assert not RAW.search(said), said
                    else:
                        assert response.status in (201, 204), body
    assert refused > len(fields)


async def test_a_state_of_many_images_can_be_loaded_from_outside() -> None:
    async with (
        ImagesEmulator(images=5000) as full,
        ImagesEmulator(images=0) as empty,
        aiohttp.ClientSession() as other,
    ):
        async with other.get(f"{full.admin_url}/state") as response:
            state = await response.json()
        data, sent = io.BytesIO(json.dumps(state).encode()), {"Content-Type": "application/json"}
        async with other.put(f"{empty.admin_url}/state", data=data, headers=sent) as response:
            assert response.status == 204
        assert empty.dump() == state


async def test_state_and_tokens_go_through_the_admin_endpoint(emulator: ImagesEmulator) -> None:
    async with aiohttp.ClientSession() as other:
        async with other.get(f"{emulator.admin_url}/state") as response:
            state = await response.json()
        state["images"] = [{"id": 42, "name": "only"}]
        async with other.put(f"{emulator.admin_url}/state", json=state) as response:
            assert response.status == 204
        async with other.put(f"{emulator.admin_url}/state", json={}) as response:
            assert response.status == 422
        async with other.post(f"{emulator.admin_url}/tokens", json={"scopes": ["image:read"]}) as response:
            token = (await response.json())["token"]
    async with ImagesAPI(token, base_url=emulator.url) as api:
        assert (await api.get(42)).name == "only"
        with pytest.raises(errors.PermissionDeniedError, match="image:delete"):
            await api.delete(42)


async def test_faults_quota_and_journal_know_nothing_of_the_admin_endpoint() -> None:
    async with ImagesEmulator(quotas=(Quota(1, 60.0),)) as emulator, aiohttp.ClientSession() as session:
        emulator.faults.add(Fault(status=500, times=None))
        for _ in range(3):
            assert (await ask(session, emulator.admin_url))[0] == 200
        assert len(emulator.requests) == 0


REMOTE_ADMIN = "Only this machine may administer the emulator"


async def test_the_admin_endpoint_answers_to_this_machine_alone(
    emulator: ImagesEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aiohttp.ClientSession() as session:
        for address, status in (("127.0.0.1", 200), ("::1", 200), ("192.0.2.7", 403), (None, 403)):
            monkeypatch.setattr(web.BaseRequest, "remote", address)
            answered, content = await ask(session, emulator.admin_url)
            assert answered == status
            assert status == 200 or REMOTE_ADMIN in content.decode()


async def test_other_machines_are_let_in_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ImagesEmulator(images=0, remote_admin=True) as emulator, aiohttp.ClientSession() as session:
        monkeypatch.setattr(web.BaseRequest, "remote", "192.0.2.7")
        assert (await ask(session, emulator.admin_url))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/", None),
        ("GET", "/requests", None),
        ("GET", "/state", None),
        ("POST", "/faults", {"status": 503, "times": None}),
        ("DELETE", "/faults", None),
        ("DELETE", "/requests", None),
        ("PUT", "/state", {"images": []}),
        ("POST", "/tokens", {"token": "planted"}),
    ],
)
async def test_row_96_web_pages_of_others_are_refused(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, method: str, path: str, body: Any
) -> None:
    """Send what a browser sends for a page of another origin, or of a name that resolves to this machine."""
    await ask(http)
    emulator.faults.add(Fault(path="/none", status=500))
    before = (emulator.dump(), len(emulator.faults), len(emulator.requests), set(emulator.tokens))
    url, port = emulator.admin_url + path, emulator.url.rpartition(":")[2]
    async with aiohttp.ClientSession() as session:

        async def status(content_type: str = "application/json", **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            data = None if body is None else json.dumps(body).encode()
            if data is not None:
                sent["Content-Type"] = content_type
            async with session.request(method, url, data=data, headers=sent) as response:
                return response.status

        for origin in (
            "https://evil.example",
            "null",
            f"http://localhost:{int(port) + 1}",
            "http://127.0.0.1",
        ):
            assert await status(Origin=origin) == 403
        for host in (f"evil.example:{port}", "evil.example", "", "192.0.2.7", "localhost.evil.example", "["):
            assert await status(Host=host) == 403
        assert await status(Host="evil.example", Origin="http://evil.example") == 403
        for site in ("cross-site", "same-site"):
            assert await status(Sec_Fetch_Site=site) == 403
        if body is not None:
            for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
                assert await status(kind) == 415
        assert (emulator.dump(), len(emulator.faults), len(emulator.requests), set(emulator.tokens)) == before

        for host in (f"localhost:{port}", f"LOCALHOST:{port}", "127.0.0.1", f"[::1]:{port}"):
            assert await status(Host=host, Origin=f"http://{host}") < 300


async def test_a_name_of_the_emulator_can_be_allowed() -> None:
    async with (
        ImagesEmulator(images=0, names=["Emulator"]) as emulator,
        aiohttp.ClientSession() as session,
    ):
        for host, status in (("emulator:8080", 200), ("EMULATOR", 200), ("other:8080", 403)):
            assert (await ask(session, emulator.admin_url, headers={"Host": host}))[0] == status


async def test_a_status_that_is_no_status_is_refused(emulator: ImagesEmulator) -> None:
    async with aiohttp.ClientSession() as session:
        for status in ("9" * 5000, "-1", "2e2"):
            assert (await ask(session, f"{emulator.admin_url}/requests?status={status}"))[0] == 422


@pytest.mark.parametrize("name", ["a b", "", "emulator:8080", "http://emulator", "-a", "a..b", "a" * 64])
def test_names_of_the_emulator_are_host_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"names: .* is no host name or address"):
        ImagesEmulator(images=0, names=["emulator", name])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": -1}, ValueError, "images must be a whole number from 0"),
        ({"images": True}, TypeError, "images must be a whole number from 0"),
        ({"images": "3"}, TypeError, "images must be a whole number from 0"),
        ({"images": 2.0}, TypeError, "images must be a whole number from 0"),
        ({"seed": "x"}, TypeError, "seed must be a whole number"),
        (
            {"quotas": [(10, 60)]},
            TypeError,
            r"quotas must be several Quota\(limit, seconds\), or None for no",
        ),
        ({"quotas": Quota(10, 60.0)}, TypeError, "quotas must be several Quota"),
        ({"quotas": "x"}, TypeError, "quotas must be several Quota"),
        ({"quotas": []}, ValueError, "quotas must hold at least one Quota.*; None is for no limit"),
        ({"import_seconds": "x"}, TypeError, "import_seconds must be a number from 0 to 1,000,000,000"),
        ({"action_seconds": float("inf")}, ValueError, "action_seconds must be a number from 0"),
        ({"latency": "50ms"}, TypeError, "latency must be a number from 0 to 86,400"),
        ({"latency": float("nan")}, ValueError, "latency must be a number from 0 to 86,400"),
        ({"latency": -1}, ValueError, "latency must be a number from 0 to 86,400"),
        ({"latency": True}, TypeError, "latency must be a number from 0 to 86,400"),
        ({"jitter": -1}, ValueError, "jitter must be a number from 0 to 86,400"),
        ({"token": 5}, ValueError, "token must be printable ASCII without spaces"),
        ({"host": 5}, TypeError, "host must be a host name or an address"),
        ({"host": ""}, ValueError, "host: '' is no host name or address"),
        ({"host": "a b"}, ValueError, "host: 'a b' is no host name or address"),
        ({"port": 99999}, ValueError, "port must be a whole number from 0 to 65,535"),
        ({"port": "80"}, TypeError, "port must be a whole number from 0 to 65,535"),
        ({"tls": "x"}, TypeError, "tls must be an ssl.SSLContext, or None for plain HTTP"),
        ({"tls": True}, TypeError, "tls must be an ssl.SSLContext"),
        ({"clock": 5}, TypeError, "clock must be a function that returns Unix time in seconds"),
        ({"clock": lambda: "now"}, TypeError, "clock must return Unix time in seconds"),
        ({"clock": lambda: float("nan")}, TypeError, "clock must return Unix time in seconds"),
        ({"journal_limit": -1}, ValueError, "journal_limit must be a whole number from 0"),
        ({"style": "x"}, ValueError, "style must be one of documented, observed"),
        ({"style": None}, ValueError, "style must be one of documented, observed"),
        ({"burst_remaining_zero": "no"}, TypeError, "burst_remaining_zero must be true or false"),
        ({"names": [1]}, TypeError, "names must be several host names, each a string"),
        ({"names": 5}, TypeError, "names must be several host names, each a string"),
        ({"remote_admin": 1}, TypeError, "remote_admin must be true or false"),
    ],
)
def test_an_argument_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        ImagesEmulator(**arguments)


@pytest.mark.parametrize("name", ["latency", "jitter"])
@pytest.mark.parametrize(("value", "error"), [("50ms", TypeError), (-1, ValueError)])
def test_a_latency_that_makes_no_sense_is_refused_later_too(
    name: str, value: Any, error: type[Exception]
) -> None:
    emulator = ImagesEmulator(images=0, latency=0.5, jitter=0.5)
    with pytest.raises(error, match=f"^{name} must be a number from 0 to 86,400"):
        setattr(emulator, name, value)
    assert getattr(emulator, name) == 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 60.0), ValueError, "limit must be a whole number from 1"),
        ((1.5, 60.0), TypeError, "limit must be a whole number from 1"),
        ((10, 0), ValueError, "seconds must be a number from 0.001 to 1,000,000,000"),
        ((10, "60"), TypeError, "seconds must be a number from 0.001"),
    ],
)
def test_a_quota_that_makes_no_sense_is_refused(
    arguments: tuple[Any, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Quota(*arguments)


def test_one_string_is_not_several_names() -> None:
    with pytest.raises(TypeError, match="names must be several host names, not one string"):
        ImagesEmulator(images=0, names="emulator")


# --- what would hide a mistake in a test ---


@pytest.mark.parametrize("method", ["get", "", "G ET", "Delete"])
def test_a_method_that_no_request_has_is_refused(method: str) -> None:
    emulator = ImagesEmulator()
    for use in (lambda: Fault(method=method, status=503), lambda: emulator.requests.count(method)):
        with pytest.raises(ValueError, match="method must be in capitals, such as GET"):
            use()


@pytest.mark.parametrize("path", ["v2/images", "", "/v2/images?per_page=1"])
def test_a_path_that_no_request_has_is_refused(path: str) -> None:
    emulator = ImagesEmulator()
    for use in (lambda: Fault(path=path, status=503), lambda: emulator.requests.count("GET", path)):
        with pytest.raises(ValueError, match="path must begin with / or"):
            use()


async def test_brackets_in_a_path_are_a_class_of_characters_and_can_be_written(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    ids = emulator.faults.add(Fault(path=f"{LIST}/[0-9]*", status=500, times=None))
    bracket = emulator.faults.add(Fault(path=f"{LIST}/[[]1]", status=503, times=None))
    paths = (f"{LIST}/1", f"{LIST}/12/actions", f"{LIST}/[1]", f"{LIST}/debian-12-x64")
    assert [(await ask(http, path))[0] for path in paths] == [500, 500, 503, 200]
    assert (ids.struck, bracket.struck) == (2, 1)
    assert emulator.requests.count("GET", f"{LIST}/[[]*") == 1


def test_a_fault_that_does_nothing_is_refused() -> None:
    nothing: list[dict[str, Any]] = [{}, {"method": "GET"}, {"times": None, "after": True}]
    for fields in nothing:
        with pytest.raises(ValueError, match="a fault needs one of delay"):
            ImagesEmulator().faults.add(Fault(**fields))


async def test_the_journal_ignores_the_slash_behind_a_path_in_the_question_too() -> None:
    async with ImagesEmulator(images=0) as emulator, ImagesAPI(emulator.token, base_url=emulator.url) as api:
        await api.list_page()
        assert (
            emulator.requests.count("GET", "/v2/images/") == emulator.requests.count("GET", "/v2/images") == 1
        )


def test_an_emulator_that_runs_is_not_entered_again() -> None:
    with ImagesEmulator(images=0) as emulator:
        with pytest.raises(RuntimeError, match="running already"), emulator:
            pass
        assert emulator.url.startswith("http://127.0.0.1:")
    with emulator:
        assert emulator.url


def test_an_image_with_an_id_or_slug_that_is_taken_is_refused() -> None:
    emulator = ImagesEmulator(images=1)
    taken = next(each for each in emulator.images if each["slug"])
    for fields in ({"id": taken["id"]}, {"slug": taken["slug"]}):
        with pytest.raises(ValueError, match=f"{next(iter(fields))} must be new"):
            emulator.images.add(**fields)


@pytest.mark.parametrize(
    ("field", "odd", "message"),
    [
        ("id", "7", "id must be a whole number from 1 to 9,007,199,254,740,991"),
        ("id", 0, "id must be a whole number from 1 to 9,007,199,254,740,991"),
        ("tags", "prod", "tags must be an array of strings without lone surrogates or null"),
        ("regions", ["nyc3", 5], "regions must be an array of strings without lone surrogates"),
        ("created_at", "yesterday", "created_at must be a date such as 2025-01-31T12:00:00Z"),
        ("public", 1, "public must be true or false"),
        ("size_gigabytes", "2.5", "size_gigabytes must be a number from 0 to 1,000,000,000,000 or null"),
        ("name", None, "name must be a string without lone surrogates"),
    ],
)
def test_an_image_is_not_added_with_a_value_that_a_state_can_not_have(
    field: str, odd: Any, message: str
) -> None:
    emulator = ImagesEmulator(images=1)
    before = emulator.dump()
    with pytest.raises(ValueError, match=f"^{message}$"):
        emulator.images.add(**{field: odd})
    assert emulator.dump() == before


async def test_an_image_is_damaged_by_an_update(
    emulator: ImagesEmulator, http: aiohttp.ClientSession
) -> None:
    number = emulator.images.add(tags=("prod",), regions=("nyc3",))
    emulator.load(emulator.dump())
    emulator.images.update(number, tags="prod", public=None)
    image = json.loads((await ask(http, f"{LIST}/{number}"))[1])["image"]
    assert (image["tags"], image["public"], image["regions"]) == ("prod", None, ["nyc3"])


def test_an_image_without_an_id_gets_one_that_is_free() -> None:
    emulator = ImagesEmulator(images=0)
    following = emulator.images.add() + 1
    emulator.images.add(id=following)
    assert emulator.images.add() == following + 1


@pytest.mark.parametrize(
    "fault", [{}, {"method": "get", "status": 503}, {"path": "v2/images", "status": 503}]
)
async def test_the_admin_endpoint_refuses_the_same(
    emulator: ImagesEmulator, http: aiohttp.ClientSession, fault: dict[str, Any]
) -> None:
    async with http.post(f"{emulator.admin_url}/faults", json=fault) as answer:
        assert answer.status == 422
    async with http.get(f"{emulator.admin_url}/requests", params={"method": "get"}) as answer:
        assert answer.status == 422
        assert "method must be in capitals" in (await answer.json())["message"]
    assert not len(emulator.faults)


# Functions that are called with each request.


async def test_a_coroutine_function_is_awaited_before_the_request_is_answered() -> None:
    async with ImagesEmulator(images=0) as emulator, ImagesAPI(emulator.token, base_url=emulator.url) as api:

        async def remove(request: web.Request) -> None:
            await asyncio.sleep(0.01)
            emulator.on_request.remove(remove)
            emulator.images.add(name="new")

        emulator.on_request.append(remove)
        emulator.on_request.append(lambda request: seen.append(request.path))
        seen: list[str] = []
        assert (await api.list_page(private=True)).total == 1
        assert (await api.list_page(private=True)).total == 1
        assert seen == ["/v2/images"] * 2


@pytest.mark.parametrize(
    "name",
    ["tokens", "images", "actions", "transfers", "requests", "served", "faults", "on_request"],
)
def test_what_the_server_would_not_see_can_not_be_set(name: str) -> None:
    with pytest.raises(AttributeError, match=f"^{name} of an ImagesEmulator can't be set"):
        setattr(ImagesEmulator(images=0), name, [])


@pytest.mark.parametrize(
    ("part", "name", "value", "kind", "words"),
    [
        *(("actions", "fails", value, TypeError, "fails must be a function") for value in (True, None)),
        ("actions", "seconds", "1", TypeError, "seconds must be a number from 0"),
        *(
            ("actions", "seconds", value, ValueError, "seconds must be a number from 0")
            for value in (-1, NAN)
        ),
        ("images", "import_seconds", None, TypeError, "import_seconds must be a number from 0"),
        ("images", "import_seconds", NAN, ValueError, "import_seconds must be a number from 0"),
        *(
            ("transfers", "own_teams", value, TypeError, "own_teams must be a set")
            for value in (TEAM, [5], None)
        ),
    ],
)
def test_a_part_is_not_set_to_what_would_break_each_answer(
    part: str, name: str, value: object, kind: type[Exception], words: str
) -> None:
    emulator = ImagesEmulator(images=0)
    with pytest.raises(kind, match=f"^{words}"):
        setattr(getattr(emulator, part), name, value)
    assert emulator.dump()["actions"] == []


def test_a_transfer_and_a_fault_are_not_changed_to_what_none_is() -> None:
    emulator = ImagesEmulator(images=0)
    transfer = emulator.transfers.create(emulator.images.add(), email="a@example.com")
    with pytest.raises(ValueError, match="state must be one of pending, accepted"):
        cast("Any", transfer).state = "done"
    fault = emulator.faults.add(Fault(status=503))
    with pytest.raises(ValueError, match="method must be in capitals"):
        fault.method = "get"
    with pytest.raises(ValueError, match="path must begin with"):
        fault.path = "v2/images"


class CountingEmulator(ImagesEmulator):
    def __init__(self) -> None:
        super().__init__(images=0)
        self.calls = 0


async def test_attributes_of_the_users_own_and_changes_in_place_are_set() -> None:
    async with CountingEmulator() as emulator:

        def count(_: web.Request) -> None:
            emulator.calls += 1

        emulator.on_request += [count]
        emulator.served += Counter({404: 1})
        async with ImagesAPI(emulator.token, base_url=emulator.url) as api:
            await api.list_page()
    assert emulator.calls == 1
    assert emulator.served == {200: 1, 404: 1}


def test_the_token_that_clients_get_can_be_replaced() -> None:
    emulator = ImagesEmulator(images=0)
    token = emulator.token
    with mock.patch.object(emulator, "token", "dop_v1_unknown"):
        assert emulator.token == "dop_v1_unknown"
    assert emulator.token == token
