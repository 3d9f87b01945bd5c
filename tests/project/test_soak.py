"""A short soak; `python -m benchmarks.soak` is the long one."""

from __future__ import annotations

import sys

import pytest

from benchmarks.soak import soak


@pytest.mark.skipif(sys.platform != "linux", reason="counts file descriptors in /proc")
async def test_a_short_soak_leaves_nothing_and_loses_no_call() -> None:
    account = await soak(600)
    assert account.sound, account
    assert account.outcomes["answered"] > 500
    assert account.outcomes["cancelled"]
    assert account.requests > 500
