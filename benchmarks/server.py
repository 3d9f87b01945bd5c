"""The benchmarks' server: canned answers from a process of its own, whose CPU is not counted."""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from aiohttp import web

LIMIT = 10_000_000
IMAGES = 1000


def image(number: int) -> dict[str, object]:
    """Return an image as the API describes it, with all fields."""
    return {
        "id": 7_000_000 + number,
        "name": f"web-{number % 17:02}.example.com 2026-03-{number % 28 + 1:02} nightly",
        "type": ("snapshot", "backup", "custom")[number % 3],
        "distribution": ("Ubuntu", "Debian", "Rocky Linux", "Fedora")[number % 4],
        "slug": None,
        "public": False,
        "regions": ["nyc3", "ams3", "fra1"][: number % 3 + 1],
        "created_at": f"2026-03-{number % 28 + 1:02}T04:{number % 60:02}:11Z",
        "min_disk_size": 25 * (number % 4 + 1),
        "size_gigabytes": round(2.34 + number * 0.37, 2),
        "description": "",
        "tags": ["prod", "web", f"team-{number % 5}"][: number % 4],
        "status": "available",
        "error_message": "",
    }


def page(size: int, *, number: int = 1, total: int | None = None, origin: str = "") -> bytes:
    """Return the body of one page of a listing.

    Args:
        size: images in a full page.
        number: the page's number, from 1.
        total: images in the whole listing; by default one page of them.
        origin: the origin of the links.
    """
    total = size if total is None else total
    begin = (number - 1) * size
    images = [image(n) for n in range(begin, min(begin + size, total))]
    last = -(-total // size)
    link = f"{origin}/v2/images?per_page={size}&page="
    pages = {"last": f"{link}{last}", "next": f"{link}{number + 1}"} if number < last else {}
    return json.dumps({"images": images, "links": {"pages": pages}, "meta": {"total": total}}).encode()


class Service:
    """A listing of so many images, with so many seconds of latency."""

    def __init__(self, *, images: int, latency: float) -> None:
        self.images = images
        self.latency = latency
        self._served: Counter[str] = Counter()
        self._page = functools.lru_cache(128)(page)

    async def one(self, request: web.Request) -> web.Response:
        asked = int(request.match_info["image_id"])
        body = json.dumps({"image": image(asked % self.images) | {"id": asked}}).encode()
        return await self._answer(request, body)

    async def listing(self, request: web.Request) -> web.Response:
        size = int(request.query.get("per_page", "20"))
        number = int(request.query.get("page", "1"))
        origin = str(request.url.origin())
        return await self._answer(request, self._page(size, number=number, total=self.images, origin=origin))

    async def _answer(self, request: web.Request, body: bytes) -> web.Response:
        token = request.headers.get("authorization", "")
        self._served[token] += 1
        remaining = LIMIT - self._served[token]
        if self.latency:
            await asyncio.sleep(self.latency)
        quota = {
            "ratelimit-limit": str(LIMIT),
            "ratelimit-remaining": str(remaining),
            "ratelimit-reset": "1444931833",
        }
        return web.Response(body=body, content_type="application/json", headers=quota)


async def serve(service: Service) -> None:
    app = web.Application()
    app.router.add_get("/v2/images", service.listing)
    app.router.add_get("/v2/images/{image_id}", service.one)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    # It ends when the parent process closes its input.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


@contextmanager
def running_server(*, images: int = IMAGES, latency: float = 0.0) -> Generator[str, None, None]:
    """Run a server process until the block ends; yield its URL.

    Args:
        images: the number of images in the listing.
        latency: seconds before each answer.
    """
    command = [sys.executable, "-m", "benchmarks.server", f"--images={images}", f"--latency={latency}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate("")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--latency", type=float, default=0.0)
    asyncio.run(serve(Service(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
