"""The README's code, which runs unchanged against the emulator."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from do_images_async import ImagesAPI
from do_images_async._api.actions import AccountTransfers, ImageActions
from do_images_async.testing import ImagesEmulator
from tests.support.descriptions import DESCRIPTIONS, Description
from tests.support.programs import impatient, outcome_here
from tests.support.redis_servers import EXECUTABLE, NO_SERVER, redis_server, shared_redis
from tests.support.slow import RUN_SLOW

__all__ = ["redis_server", "shared_redis"]  # fixtures

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = os.environ.get("README_PYTHON", sys.executable)  # `.ci/package` names one that has the wheel alone
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_readme_holds_programs() -> None:
    assert len(PROGRAMS) >= 4


@pytest.mark.parametrize("program", PROGRAMS, ids=range(1, len(PROGRAMS) + 1))
async def test_a_program_runs(
    program: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis_url = ""
    if "REDIS_URL" in program:
        if EXECUTABLE is None:
            pytest.skip(NO_SERVER)
        redis_url = request.getfixturevalue("redis_server").url
    async with ImagesEmulator(images=30, seed=7) as emulator:
        monkeypatch.setenv("DIGITALOCEAN_TOKEN", emulator.token)
        monkeypatch.setenv("DIGITALOCEAN_API_URL", emulator.url)
        monkeypatch.setenv("REDIS_URL", redis_url)
        if RUN_SLOW or sys.executable != PYTHON or program == PROGRAMS[0]:
            process = await asyncio.create_subprocess_exec(
                *(PYTHON, "-W", "error", "-c", impatient(program)),
                cwd=tmp_path,  # no package is found here but the one that is installed
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            assert errors.decode() == ""
            assert process.returncode == 0
        else:
            assert (await asyncio.to_thread(outcome_here, impatient(program)))[1] == ""
        if "import failed" in program:
            writes = [entry.method for entry in emulator.requests if entry.method != "GET"]
            assert writes == ["POST", "PUT", "DELETE"]


def endpoints() -> dict[str, list[str]]:
    """Return the table's operations, each with its methods."""
    rows = re.findall(r"^\| `([A-Z]+ /v2/[^`]*)` \| (.*) \|$", README, re.MULTILINE)
    return {operation: re.findall(r"`api\.([\w.]+)\(", calls) for operation, calls in rows}


def test_the_table_of_endpoints_names_methods_that_exist() -> None:
    assert endpoints()
    for operation, calls in endpoints().items():
        assert calls, operation
        for call in calls:
            group, _, method = call.rpartition(".")
            owner = {"": ImagesAPI, "actions": ImageActions, "account_transfers": AccountTransfers}[group]
            assert callable(getattr(owner, method, None)), call


def test_every_endpoint_is_in_a_program_that_the_tests_run() -> None:
    guides = (ROOT / "tests" / "docs" / "pages" / "howto").glob("*.md")
    programs = "\n".join([*PROGRAMS, *(path.read_text(encoding="utf-8") for path in guides)])
    for operation, calls in endpoints().items():
        assert any(re.search(rf"\b(api|images)\.{re.escape(call)}\(", programs) for call in calls), operation


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda description: description.name)
def test_the_table_of_endpoints_has_no_gap(description: Description) -> None:
    operations = {
        f"{method.upper()} {path}"
        for path, item in description.document["paths"].items()
        for method in item
        if method in ("get", "post", "put", "patch", "delete")
    }
    assert operations
    assert operations == {each for each in endpoints() if description.covers(each.split()[1])}
