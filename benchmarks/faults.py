"""The same faults for this client and its alternatives, on a local server, with the outcome of each.

`python -m benchmarks.faults`. Each row is a fault that any client of the API can meet, and what a user must
be able to rely on then; each client is set up as its manual says, with its defaults. A call that has not
ended after half a minute has not coped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final, Protocol

import attrs

from do_images_async import ImagesAPI
from do_images_async.testing import Fault, ImagesEmulator
from do_images_async.testing.journal import digest

LIMIT: Final = 30.0
"""Seconds. This client goes slowly after refusals that it can't explain: the calls of row 16 take 21 s."""

NO_END: Final = "no end after half a minute"

COUNT: Final = 450
"""Private images of the account: three pages of 200."""

URL: Final = "https://example.com/golden.qcow2"


class Client(Protocol):
    """The adapter of a client: its calls for each operation, which return ids."""

    async def get(self, image_id: Any) -> Any: ...
    async def create(self, name: str) -> Any: ...
    async def list(self) -> list[Any]: ...


@attrs.frozen
class Ours:
    api: ImagesAPI

    async def get(self, image_id: Any) -> Any:
        return (await self.api.get(image_id)).id

    async def create(self, name: str) -> Any:
        return (await self.api.create_custom(name=name, url=URL, region="nyc3")).id

    async def list(self) -> list[Any]:
        return [image.id async for image in self.api.list(private=True)]


# The other clients come with an extra and without types: they are imported when they are run.


@attrs.frozen
class PydoAio:
    client: Any

    async def get(self, image_id: Any) -> Any:
        answer = await self.client.images.get(image_id=image_id, enforce_https=False)
        # It returns some answers unchanged: those are its results, not errors of this program.
        return answer["image"]["id"] if "image" in (answer or ()) else answer

    async def create(self, name: str) -> Any:
        body = {"name": name, "url": URL, "region": "nyc3", "distribution": "Ubuntu"}
        return (await self.client.images.create_custom(body=body, enforce_https=False))["image"]["id"]

    async def list(self) -> list[Any]:
        # Its user reads the pages; this is the loop of its manual.
        ids: list[Any] = []
        page, more = 1, True
        while more:
            answer = await self.client.images.list(private=True, per_page=200, page=page, enforce_https=False)
            ids += [image["id"] for image in answer["images"]]
            more, page = "next" in answer.get("links", {}).get("pages", {}), page + 1
        return ids


@attrs.frozen
class PythonDigitalOcean:
    module: Any
    token: str

    async def get(self, image_id: Any) -> Any:
        return await asyncio.to_thread(lambda: self.module.Manager(token=self.token).get_image(image_id).id)

    async def create(self, name: str) -> Any:
        image = self.module.Image(token=self.token, name=name, url=URL, region="nyc3")
        image.distribution, image.description, image.tags = "Ubuntu", "", []
        return await asyncio.to_thread(lambda: image.create().id)

    async def list(self) -> list[Any]:
        # What its get_images does, but for a slash at the path's end, which the emulator does not know.
        params = {"private": "true", "per_page": 200}
        manager = self.module.Manager(token=self.token)
        answer = await asyncio.to_thread(lambda: manager.get_data("images", params=params))
        return [image["id"] for image in answer["images"]]


@contextlib.asynccontextmanager
async def ours(url: str, token: str) -> AsyncGenerator[Client, None]:
    async with ImagesAPI(token, base_url=url) as api:
        yield Ours(api)


@contextlib.asynccontextmanager
async def pydo_aio(url: str, token: str) -> AsyncGenerator[Client, None]:
    async with import_module("pydo.aio").Client(token, endpoint=url) as client:
        yield PydoAio(client)


@contextlib.asynccontextmanager
async def python_digitalocean(url: str, token: str) -> AsyncGenerator[Client, None]:
    os.environ["DIGITALOCEAN_END_POINT"] = f"{url}/v2/"
    try:
        yield PythonDigitalOcean(import_module("digitalocean"), token)
    finally:
        del os.environ["DIGITALOCEAN_END_POINT"]


Open = Callable[[str, str], contextlib.AbstractAsyncContextManager[Client]]
ALTERNATIVES: Final[dict[str, Open]] = {
    "do-images-async": ours,
    "pydo": pydo_aio,
    "python-digitalocean": python_digitalocean,
}


@attrs.frozen
class Verdict:
    """The verdict on a client for one fault: pass or not, and the outcome in a few words."""

    coped: bool
    words: str


Judge = Callable[[Client, ImagesEmulator], Awaitable[Verdict]]


@attrs.frozen
class Row:
    """A fault, and the required outcome; the numbers are those of the tests' catalogue."""

    number: str
    what: str
    judge: Judge


async def _ended(call: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Return the call's result, or the error that it ended with."""
    scope = asyncio.timeout(LIMIT)
    try:
        async with scope:
            return await call, None
    except Exception as error:  # noqa: BLE001  (whatever a client raises is the finding)
        return None, TimeoutError(NO_END) if scope.expired() else error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else text[:24] + "…"


def _raised(error: BaseException) -> str:
    return str(error) if NO_END in str(error) else f"raised {type(error).__name__}"


def must_answer(**fault: Any) -> Judge:
    """Require that a read that meets this fault once still returns the image."""

    async def judge(client: Client, emulator: ImagesEmulator) -> Verdict:
        wanted = emulator.images.add(name="wanted")
        emulator.faults.add(Fault(**fault))
        got, error = await _ended(client.get(wanted))
        if error is not None:
            return Verdict(False, _raised(error))
        return Verdict(got == wanted, "answered" if got == wanted else f"returned {_short(got)}")

    return judge


def must_raise(says: str = "", **fault: Any) -> Judge:
    """Require that a read that meets this fault each time raises, with these words."""

    async def judge(client: Client, emulator: ImagesEmulator) -> Verdict:
        wanted = emulator.images.add(name="wanted")
        options: dict[str, Any] = {"times": None, **fault}
        emulator.faults.add(Fault(**options))
        got, error = await _ended(client.get(wanted))
        if error is None:
            return Verdict(False, f"returned {_short(got)}")
        if NO_END in str(error):
            return Verdict(False, str(error))
        if emulator.token in f"{error} {error!r} {vars(error)}":
            return Verdict(False, f"{_raised(error)}, with the token")
        if says not in str(error):
            return Verdict(False, f"{_raised(error)} that does not say so")
        return Verdict(True, _raised(error))

    return judge


def must_create(most: int = 1, least: int = 0, *, raises: bool = False, **fault: Any) -> Judge:
    """Require that a creation that meets this fault is executed so often, by the server's count."""

    async def judge(client: Client, emulator: ImagesEmulator) -> Verdict:
        options: dict[str, Any] = {"method": "POST", **fault}
        emulator.faults.add(Fault(**options))
        _, error = await _ended(client.create("golden"))
        made = sum(entry.carried_out for entry in emulator.requests.where("POST"))
        ended = _raised(error) if error else "returned"
        coped = least <= made <= most and (error is not None or not raises)
        return Verdict(coped, f"{ended}; {made} image{'' if made == 1 else 's'} made")

    return judge


def must_list(**fault: Any) -> Judge:
    """Require that a listing that meets this fault is complete, or raises."""

    async def judge(client: Client, emulator: ImagesEmulator) -> Verdict:
        there = _private(emulator)
        emulator.faults.add(Fault(times=None, **fault))
        return await _listed(client, there)

    return judge


def _private(emulator: ImagesEmulator) -> set[int]:
    return {image["id"] for image in emulator.images if not image["public"]}


async def _listed(client: Client, there: set[int]) -> Verdict:
    """Check that a listing has each image that existed all the time exactly once, or raises."""
    ids, error = await _ended(client.list())
    if error is not None:
        return Verdict(NO_END not in str(error), _raised(error))
    missing, repeated = len(there - set(ids)), len(ids) - len(set(ids))
    if missing:
        return Verdict(False, f"{missing} of {len(there)} missing")
    return Verdict(not repeated, f"{repeated} twice" if repeated else "all, once")


def _before_page_two(emulator: ImagesEmulator, change: Callable[[], object]) -> None:
    done = False

    def look(entry: Any) -> None:
        nonlocal done
        if not done and entry.query.get("page") == "2":
            done = True
            change()

    emulator.on_request.append(look)


async def _image_goes(client: Client, emulator: ImagesEmulator) -> Verdict:
    first = next(image["id"] for image in emulator.images if not image["public"])
    _before_page_two(emulator, lambda: emulator.images.remove(first))
    return await _listed(client, _private(emulator) - {first})


async def _image_comes(client: Client, emulator: ImagesEmulator) -> Verdict:
    _before_page_two(emulator, lambda: emulator.images.add(at=0, name="new"))
    return await _listed(client, _private(emulator))


async def _page_fails(client: Client, emulator: ImagesEmulator) -> Verdict:
    _before_page_two(emulator, lambda: emulator.faults.add(Fault(status=403, times=None)))
    return await _listed(client, _private(emulator))


async def _wait_for_quota(client: Client, emulator: ImagesEmulator) -> Verdict:
    """Require that twenty concurrent calls all succeed, though the server refuses five for a second."""
    wanted = emulator.images.add(name="wanted")
    emulator.faults.storm(5, retry_after=1)
    ends = await asyncio.gather(*(_ended(client.get(wanted)) for _ in range(20)))
    failed = [error for _, error in ends if error is not None]
    if failed:
        return Verdict(False, f"{len(failed)} of 20 {_raised(failed[0])}")
    return Verdict(True, "20 of 20 answered")


async def _redirect(client: Client, emulator: ImagesEmulator) -> Verdict:
    """Require that a redirect to another server is an error, and that the token is not sent there."""
    with ImagesEmulator(images=1, token=emulator.token) as elsewhere:
        wanted = next(iter(elsewhere.images))["id"]
        emulator.faults.add(
            Fault(status=302, times=None, headers={"location": f"{elsewhere.url}/v2/images/{wanted}"})
        )
        got, error = await _ended(client.get(wanted))
        leaked = any(entry.token == digest(emulator.token) for entry in elsewhere.requests)
        followed = "followed, with the token; " if leaked else "followed; " if elsewhere.requests else ""
    ended = _raised(error) if error else f"returned {_short(got)}"
    return Verdict(error is not None and not leaked, followed + ended)


async def _other_path(client: Client, emulator: ImagesEmulator) -> Verdict:
    """Require that a key that holds another path is not sent to that path."""
    _, error = await _ended(client.get("../account/keys"))
    others = [entry.path for entry in emulator.requests if not entry.path.startswith("/v2/images/")]
    if others:
        return Verdict(False, f"asked for {others[0]}")
    asked = "asked for it as one segment" if len(emulator.requests) else "asked for nothing"
    return Verdict(True, f"{asked}; {_raised(error)}" if error else asked)


async def _log(client: Client, emulator: ImagesEmulator) -> Verdict:
    """Require that the token is not in the log, with all logging on."""
    wanted = emulator.images.add(name="wanted")
    with _logging() as text:
        await _ended(client.get(wanted))
    shown = emulator.token in text.getvalue()
    return Verdict(not shown, "the token is in the log" if shown else "not shown")


@contextlib.contextmanager
def _logging() -> Generator[io.StringIO, None, None]:
    text = io.StringIO()
    handler, root = logging.StreamHandler(text), logging.getLogger()
    level, others = root.level, root.handlers
    root.handlers, root.level = [handler], logging.DEBUG
    try:
        yield text
    finally:
        root.handlers, root.level = others, level


async def _another_image(client: Client, emulator: ImagesEmulator) -> Verdict:
    """Require that an answer about another image than the requested one is an error."""
    wanted, other = emulator.images.add(name="wanted"), emulator.images.add(name="other")
    document = next(image for image in emulator.images if image["id"] == other)
    emulator.faults.add(Fault(body=json.dumps({"image": document}).encode(), times=None))
    got, error = await _ended(client.get(wanted))
    return Verdict(error is not None, _raised(error) if error else f"returned the other image, {_short(got)}")


async def _same_page(client: Client, emulator: ImagesEmulator) -> Verdict:
    """Require that a listing ends, and not as complete, if the server ignores the page's number."""
    page = [image for image in emulator.images if not image["public"]][:200]
    link = f"{emulator.url}/v2/images?private=true&per_page=200&page=2"
    body = {"images": page, "links": {"pages": {"next": link}}, "meta": {"total": 100_000}}
    emulator.faults.add(Fault(body=json.dumps(body).encode(), times=None))
    ids, error = await _ended(client.list())
    asked = len(emulator.requests)
    ended = _raised(error) if error else f"returned {len(set(ids))} images"
    coped = error is not None and NO_END not in str(error) and asked < 50
    return Verdict(coped, f"{ended}; {asked} request{'' if asked == 1 else 's'}")


async def _echoed_token(client: Client, emulator: ImagesEmulator) -> Verdict:
    """Require that an error that repeats the beginning of the token does not show it."""
    part = emulator.token[:30]
    emulator.faults.add(Fault(status=403, times=None, body={"id": "forbidden", "message": f"Bearer {part}"}))
    _, error = await _ended(client.get(emulator.images.add(name="wanted")))
    if error is None:
        return Verdict(False, "no error")
    shown = part in f"{error} {error!r}"
    return Verdict(not shown, f"{_raised(error)}{', with a part of the token' if shown else ''}")


ROWS: Final = (
    Row("5", "a read is reset once: answered", must_answer(broken="reset")),
    Row("8", "a body is cut short once: answered", must_answer(broken="cut")),
    Row("10", "an answer is garbage once: answered", must_answer(raw=b"\x00\x01garbage\r\n\r\n")),
    Row("12", "a gzip body is corrupt: an error", must_raise(encoding="corrupt-gzip")),
    Row("16", "20 calls, five 429s with a wait of 1 s: all answered", _wait_for_quota),
    Row(
        "21",
        "a creation meets 429: made once",
        must_create(least=1, status=429, headers={"retry-after": "1"}),
    ),
    Row("22", "401: an error", must_raise(status=401)),
    Row("23", "404: an error", must_raise(status=404)),
    Row(
        "24",
        "422: an error with the API's message",
        must_raise("too old", status=422, body={"id": "unprocessable_entity", "message": "too old"}),
    ),
    Row(
        "25",
        "a creation is done, and answered 500: made once",
        must_create(least=1, status=500, after=True, times=3),
    ),
    Row(
        "5",
        "a creation is done, its answer lost: made once",
        must_create(least=1, broken="reset", after=True, times=3),
    ),
    Row(
        "26",
        "an edge's HTML 403: an error that says 403",
        must_raise("403", status=403, body="<html>Forbidden</html>"),
    ),
    Row("27", "a redirect elsewhere: an error, no token", _redirect),
    Row("31", "200 with nothing in it: an error", must_raise(body=b"")),
    Row("36", "200 with a list: an error", must_raise(body=b"[]")),
    Row("41", "200 with an id that is none: an error", must_raise(body={"image": {"id": "one"}})),
    Row("37", "a page without `images`: an error", must_list(body={"meta": {"total": COUNT}})),
    Row("44", "an image goes while pages are read: the others, once", _image_goes),
    Row("45", "an image comes while pages are read: the others, once", _image_comes),
    Row("46", "the next page's link leads back: an end", must_list(pages="looping")),
    Row("52", "the second page is refused: an error, or all", _page_fails),
    Row("57", "a key `../account/keys`: not asked for", _other_path),
    Row("62", "all logging on: no token in it", _log),
    Row("75", "the page's number is ignored: an end, and an error", _same_page),
    Row("80", "an answer about another image: an error", _another_image),
    Row("81", "408 once: answered", must_answer(status=408)),
    Row("82", "the edge's 520 once: answered", must_answer(status=520, edge=True)),
    Row(
        "82",
        "a creation is done, and answered 520: made once",
        must_create(least=1, status=520, edge=True, after=True, times=3),
    ),
    Row(
        "84",
        "a creation is done, and answered 303: made once, an error",
        must_create(
            least=1, raises=True, status=303, after=True, times=3, headers={"location": "/v2/images"}
        ),
    ),
    Row(
        "85",
        "401 with a corrupt gzip body: an error that says 401",
        must_raise("401", status=401, encoding="corrupt-gzip"),
    ),
    Row(
        "89",
        "422 with an object as its message: an error that says it",
        must_raise("too long", status=422, body={"id": "invalid", "message": {"name": ["too long"]}}),
    ),
    Row("91", "an error repeats a part of the token: not shown", _echoed_token),
)


async def judge(row: Row, open_client: Open) -> Verdict:
    """Run one row with one client, against a new server."""
    with ImagesEmulator(images=COUNT, quotas=None, seed=4) as emulator:
        async with open_client(emulator.url, emulator.token) as client:
            return await row.judge(client, emulator)


async def run(names: list[str], rows: tuple[Row, ...] = ROWS) -> list[tuple[Row, dict[str, Verdict]]]:
    """Run all rows, each with all the named clients."""
    return [(row, {name: await judge(row, ALTERNATIVES[name]) for name in names}) for row in rows]


def table(results: list[tuple[Row, dict[str, Verdict]]]) -> str:
    """Return the results in Markdown."""
    names = list(results[0][1])
    lines = [f"| the fault, and what must happen | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row, verdicts in results:
        cells = [f"{'yes' if each.coped else '**no**'}: {each.words}" for each in verdicts.values()]
        lines.append(f"| {row.what} | {' | '.join(cells)} |")
    counts = [str(sum(verdicts[name].coped for _, verdicts in results)) for name in names]
    lines.append(f"| of {len(results)} | {' | '.join(counts)} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table; return 0 if this client passes every row, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "client", nargs="*", help=f"which clients, of {', '.join(ALTERNATIVES)} (default: all)"
    )
    names = parser.parse_args().client or list(ALTERNATIVES)
    if unknown := set(names) - set(ALTERNATIVES):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    # Only the results that a client's user gets count, not the log.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    results = asyncio.run(run(names))
    print(", ".join(f"{name} {version(name)}" for name in names), end="\n\n")
    print(table(results))
    return int(not all(verdicts[name].coped for _, verdicts in results for name in names[:1]))


if __name__ == "__main__":
    sys.exit(main())
