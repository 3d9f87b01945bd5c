"""What most test modules share: a scripted server, and a client that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from do_images_async import ImagesAPI, RetryPolicy
from do_images_async._quota import sharing
from tests.support.servers import Server

TOKEN = "dop_v1_c0ffee5ec7e7" + "0123456789abcdef" * 3
FAST = RetryPolicy(base=0.002, cap=0.002)
ONCE = RetryPolicy(attempts=1)


@pytest.fixture(autouse=True)
def own_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test spends another's quota because the system gave its server the same port again."""
    monkeypatch.setattr(sharing, "entries", {})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[ImagesAPI]:
    async with ImagesAPI(TOKEN, base_url=server.url, retry=FAST) as client:
        yield client
