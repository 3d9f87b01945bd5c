"""The commands of the retention page, for a shell, cron and Kubernetes, which do what the page says."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from do_images_async.testing import ImagesEmulator
from tests.support.cli_processes import Ended, account, do_images_here, environment, several_accounts
from tests.support.slow import RUN_SLOW, fewer

PAGE = (Path(__file__).parents[1] / "docs" / "pages" / "howto" / "retention.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
CONSOLE = [
    commands
    for language, text in BLOCKS
    if language == "console" and (commands := re.findall(r"^\$ (do-images .+)$", text, re.MULTILINE))
]


def block(language: str) -> str:
    (text,) = (text for found, text in BLOCKS if found == language)
    return text


@asynccontextmanager
async def running() -> AsyncGenerator[ImagesEmulator]:
    """Serve two weeks of a web server's snapshots, and a golden image."""
    async with ImagesEmulator(images=0, quotas=None, action_seconds=0.01) as emulator:
        for age in range(14):
            created_at = datetime.now(UTC) - timedelta(days=age)
            emulator.images.add(name=f"web-{age}", created_at=created_at.strftime("%Y-%m-%dT%H:%M:%SZ"))
        emulator.images.add(name="golden", tags=["golden"], regions=["nyc3"])
        yield emulator


async def run(command: str, emulator: ImagesEmulator, folder: Path) -> Ended:
    """Run a line of the page in an empty folder, with no terminal to answer questions."""
    if "LAB_TOKEN" not in command:
        return await run_with(command, account(emulator, emulator.token), folder)
    async with ImagesEmulator(images=0) as lab, several_accounts(emulator, lab) as url:
        tokens = {"PROD_TOKEN": emulator.token, "LAB_TOKEN": lab.token}
        return await run_with(command, tokens | {"DIGITALOCEAN_API_URL": url}, folder)


async def run_with(command: str, variables: Mapping[str, str], folder: Path) -> Ended:
    if "--apply" in command.split() and "--yes" not in command:
        command += " --yes"
    if " replicate " in command:
        command += " --poll-interval 0.02"
    if not RUN_SLOW:  # without a shell; `test_docs` runs the page's first command in one
        with contextlib.chdir(folder):
            return await do_images_here(*shlex.split(command.removeprefix("do-images ")), **variables)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("/bin/bash", "-euo", "pipefail", "-c", command),
        cwd=folder,
        env=environment(**variables, PATH=path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return Ended(await process.wait(), stdout.decode(), stderr.decode())


def snapshots(emulator: ImagesEmulator) -> int:
    return sum(image["name"].startswith("web-") for image in emulator.images)


@pytest.mark.parametrize("commands", fewer(CONSOLE), ids=lambda commands: commands[0])
async def test_the_commands_of_a_shell(commands: list[str], tmp_path: Path) -> None:
    async with running() as emulator:
        for command in commands:
            ended = await run(command, emulator, tmp_path)
            assert ended.status == 0, ended.stderr
            assert ended.stdout
        deletes = any("--apply" in command for command in commands)
        assert (snapshots(emulator) < 14) == deletes


async def test_the_line_of_cron(tmp_path: Path) -> None:
    line = re.fullmatch(r"(?:\S+ ){5} ?/usr/local/bin/(do-images .+)\n", block("crontab"))
    assert line is not None
    async with running() as emulator:
        (tmp_path / "do-token").write_text(emulator.token, encoding="utf-8")
        command = re.sub(r"/(?:etc|var/lib)/", f"{tmp_path}/", line[1])
        ended = await run(command, emulator, tmp_path)
        assert ended.status == 0, ended.stderr
        assert (ended.stdout, ended.stderr.count("\n")) == ("", 1)
        assert ended.stderr.startswith(f"do-images: {14 - snapshots(emulator)} of ")
        assert (tmp_path / "prune.txt").read_text(encoding="utf-8").count("\ndeleted ") == 14 - snapshots(
            emulator
        )
        assert 7 <= snapshots(emulator) < 14
        assert len((tmp_path / "prune.jsonl").read_text(encoding="utf-8").splitlines()) == 2 * (
            14 - snapshots(emulator)
        )


async def test_the_cron_job_of_kubernetes(tmp_path: Path) -> None:
    job: Any = yaml.safe_load(block("yaml"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert all(isinstance(word, str) for word in container["command"]), "Kubernetes takes strings only"
    assert {each["name"] for each in container["env"]} == {"DIGITALOCEAN_TOKEN"}
    async with running() as emulator:
        command = shlex.join(container["command"]).replace("/journal/", f"{tmp_path}/")
        ended = await run(command, emulator, tmp_path)
        assert ended.status == 0, ended.stderr
        assert 7 <= snapshots(emulator) < 14
        assert (tmp_path / "prune.jsonl").stat().st_size > 0
