"""The README's code runs, as it stands there, against the emulator."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from do_images_async.testing import ImagesEmulator
from tests.redis_servers import EXECUTABLE, redis_server, shared_redis

__all__ = ["redis_server", "shared_redis"]  # fixtures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_readme_holds_programs() -> None:
    assert len(PROGRAMS) >= 4


@pytest.mark.parametrize("program", PROGRAMS, ids=range(1, len(PROGRAMS) + 1))
async def test_a_program_runs(program: str, request: pytest.FixtureRequest) -> None:
    redis_url = ""
    if "REDIS_URL" in program:
        if EXECUTABLE is None:
            pytest.skip("there is no redis-server")
        redis_url = request.getfixturevalue("redis_server").url
    async with ImagesEmulator(images=30, seed=7) as emulator:
        environment = os.environ | {
            "DIGITALOCEAN_TOKEN": emulator.token,
            "DIGITALOCEAN_API_URL": emulator.url,
            "REDIS_URL": redis_url,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-X",
            "dev",
            "-W",
            "error",
            "-c",
            program.replace("timeout=3600)", "timeout=3600, poll_interval=0.05)"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert errors.decode() == ""
        assert process.returncode == 0
        if "import failed" in program:
            writes = [entry.method for entry in emulator.requests if entry.method != "GET"]
            assert writes == ["POST", "PUT", "DELETE"]
