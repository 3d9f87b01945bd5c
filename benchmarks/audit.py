"""The cost of an audit as the account grows: time, requests, and the peak memory of its process.

python -m benchmarks.audit [IMAGES ...]

The emulator serves from a process of its own, without a quota; each account is audited in a new process.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from do_images_async import ImagesAPI, RateLimiter, TokenBucket
from do_images_async.audit import audit
from do_images_async.testing import ImagesEmulator
from tests.support.memory import peak_memory

SIZES = (1_000, 10_000, 100_000)


async def serve(images: int) -> None:
    async with ImagesEmulator(images=images, quotas=None, journal_limit=0) as emulator:
        print(emulator.url, emulator.token, flush=True)
        # It ends when the parent process closes its input.
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def measure(url: str, token: str) -> None:
    limiter = RateLimiter(TokenBucket(1_000_000, per=60.0))
    async with ImagesAPI(token, base_url=url, limiter=limiter) as api:
        started = time.perf_counter()
        report = await audit(api.list(strict=True), keep=1000)
        elapsed = time.perf_counter() - started
    requests = limiter.stats().granted
    print(
        f"{report.images:>9,} images {report.findings_total:>9,} findings {requests:>6,} requests "
        f"{elapsed:>7.1f} s {report.images / elapsed:>8,.0f} images/s {peak_memory():>6.0f} MiB at most"
    )


@contextmanager
def emulator_process(images: int) -> Generator[list[str], None, None]:
    """Run an emulator until the block ends; yield its URL and token."""
    command = [sys.executable, "-m", "benchmarks.audit", "serve", str(images)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()
        finally:
            process.communicate("")


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["serve"]:
        asyncio.run(serve(int(arguments[1])))
    elif arguments[:1] == ["measure"]:
        asyncio.run(measure(*arguments[1:]))
    else:
        parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__)
        parser.add_argument("images", type=int, nargs="*", default=SIZES, help="how many an account has")
        for images in parser.parse_args(arguments).images:
            with emulator_process(images) as where:
                subprocess.run([sys.executable, "-m", "benchmarks.audit", "measure", *where], check=True)  # noqa: S603


if __name__ == "__main__":
    main(sys.argv[1:])
