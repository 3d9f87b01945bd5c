"""The other side of the wire: canned answers from a process of its own, whose CPU is not counted."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from aiohttp import web


def image(number: int) -> dict[str, object]:
    """An image as the API describes it, with all fields."""
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


def page(size: int) -> bytes:
    """The body of a listing of `size` images."""
    links = {"pages": {"last": "https://api.digitalocean.com/v2/images?page=2"}}
    body = {"images": [image(n) for n in range(size)], "links": links, "meta": {"total": size}}
    return json.dumps(body).encode()


ONE = json.dumps({"image": image(42)}).encode()
LIMIT = 10_000_000
served = itertools.count(1)


async def answer(request: web.Request) -> web.Response:
    quota = {
        "ratelimit-limit": str(LIMIT),
        "ratelimit-remaining": str(LIMIT - next(served)),
        "ratelimit-reset": "1444931833",
    }
    return web.Response(body=ONE, content_type="application/json", headers=quota)


async def serve() -> None:
    app = web.Application()
    app.router.add_get("/v2/images/{image_id}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    # It ends when whoever started it closes its input.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


@contextmanager
def running_server() -> Generator[str, None, None]:
    """The URL of a server process, for as long as the context lasts."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate("")


if __name__ == "__main__":
    asyncio.run(serve())
