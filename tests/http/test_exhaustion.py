"""A process that has run out of file descriptors or threads: errors are typed, and keep the outcome."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from do_images_async import FileRateLimiter, ImagesAPI, errors
from tests.conftest import ONCE, TOKEN
from tests.support.coverage import unmeasured
from tests.support.servers import CLOSE, Server, image_reply

OUT_OF_FILES = """
import asyncio, resource, sys
from redis.asyncio import Redis
from do_images_async import FileRateLimiter, ImagesAPI, RetryPolicy, errors, fan_out
from do_images_async.redis import RedisRateLimiter

url, token, path = sys.argv[1:]
new = {"name": "a", "url": "https://example.com/a", "region": "nyc3"}
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def use_up_all_files(event):
    if event.method == "POST":  # which has a permit, and finds a connection that is open
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))

async def show(name, call):
    try:
        await call
    except errors.DOImagesError as error:
        print(name, type(error).__name__, error.outcome_unknown)
        if name == "a host's name":
            print(str(error).partition(" failed: ")[2].partition(":")[0])
    else:
        print(name, "done")

def client(address=url, **options):
    return ImagesAPI(token, base_url=address, retry=RetryPolicy(attempts=1), **options)

async def main():
    limiters = {
        "file": FileRateLimiter(path),
        "file or local": FileRateLimiter(path, on_store_failure="local"),
        "redis": RedisRateLimiter(Redis(port=1), token, store_timeout=0.02),
    }
    async with client(on_event=use_up_all_files) as api:
        await api.get(1)
        await show("in flight", api.create_custom(**new))
        await show("not sent", api.create_custom(**new))
        async for outcome in api.get_many([1]):
            print("get_many", type(outcome.error).__name__)
        async for outcome in fan_out(api.get, [1]):
            print("fan_out", type(outcome.error).__name__)
        for name, limiter in limiters.items():
            await show(name, client(limiter=limiter).create_custom(**new))
        await show("a host's name", client(url.replace("127.0.0.1", "localhost")).get(1))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await show("later", api.get(1))

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="file descriptors can't be limited")
async def test_without_file_descriptors_every_error_is_typed_and_keeps_the_outcome(
    server: Server, tmp_path: Path
) -> None:
    server.script(image_reply(1), CLOSE, image_reply(1))
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OUT_OF_FILES, server.url, TOKEN, str(tmp_path / "quota.db")),
        env=unmeasured(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await program.communicate()
    assert stdout.decode().splitlines() == [
        "in flight TransportError True",
        "not sent TransportError False",
        "get_many TransportError",
        "fan_out TransportError",
        "file QuotaStoreError False",
        "file or local TransportError False",
        "redis QuotaStoreError False",
        "a host's name TransportError False",
        "no file descriptor is left",
        "later done",
    ], stderr.decode()
    assert server.methods == ["GET", "POST", "GET"]


def start_no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_without_threads_a_hosts_name_can_not_be_looked_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://localhost:{server.port}"
    async with ImagesAPI(TOKEN, base_url=address, allow_insecure_http=True, retry=ONCE) as api:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_no_thread)
            with pytest.raises(errors.TransportError) as caught:
                await api.delete(1)
    assert str(caught.value).endswith("RuntimeError: can't start new thread")
    assert not caught.value.outcome_unknown


async def test_without_threads_the_quota_file_can_not_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "quota.db"
    async with (
        FileRateLimiter(path, token=TOKEN) as shared,
        FileRateLimiter(path, token=TOKEN, on_store_failure="local") as local,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start_no_thread)
            with pytest.raises(errors.QuotaStoreError, match=r"quota\.db: can't start new thread"):
                await shared.acquire()
            (await local.acquire()).settle()
        (await shared.acquire()).settle()
