"""The pages' promises in a new environment with only the package and what the page names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.slow, pytest.mark.once, pytest.mark.timeout(900)]


def installed(directory: Path, *packages: str) -> Path:
    """Return the Python of a new environment with these packages."""
    python = directory / ".venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", directory / ".venv", directory=directory)
    run(python, "-m", "pip", "install", "--quiet", *packages, directory=directory)
    return python


def run(*command: str | Path, directory: Path) -> str:
    """Return the output of a command that runs with nothing of this project in its environment."""
    ours = ("DIGITALOCEAN_", "PYTHON", "PYTEST_", "COVERAGE_")
    done = subprocess.run(  # noqa: S603  (ours)
        command,
        cwd=directory,
        env={name: value for name, value in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "plugins",
    [
        *("pytest-asyncio", "pytest-aiohttp", "anyio"),
        # The oldest that the page on tests names, and between them the ends of what pytest-asyncio changed.
        "pluggy==1.0.0 pytest==7.0.0 pytest-asyncio==0.17.2",
        "pluggy==1.0.0 pytest==7.0.0 pytest-aiohttp==1.0.0 pytest-asyncio==0.17.2",
        "pluggy==1.0.0 pytest==7.0.0 anyio==3.5.0",
        *("pytest==8.2.2 pytest-asyncio==0.23.8", "pytest==8.2.2 pytest-asyncio==0.24.0"),
        "pytest==8.3.5 pytest-asyncio==0.25.3",
    ],
)
def test_the_readmes_test_passes_with_each_plugin_that_it_names(plugins: str, tmp_path: Path) -> None:
    """Run the ten lines of "Test your own code", without a mark and without a setting."""
    example = re.search(r"^```python\n(# (test_\w+\.py)\n.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert example is not None
    (tmp_path / example[2]).write_text(example[1], encoding="utf-8")
    python = installed(tmp_path, str(ROOT), "pytest", *plugins.split())
    assert "1 passed" in run(python, "-m", "pytest", "-q", directory=tmp_path)


def test_the_package_alone_brings_the_client_and_the_emulator_and_no_extra(tmp_path: Path) -> None:
    python = installed(tmp_path, str(ROOT))
    program = """
import asyncio, importlib.util
from do_images_async import ImagesAPI
from do_images_async.testing import ImagesEmulator

async def main():
    async with ImagesEmulator() as emulator, ImagesAPI(emulator.token, base_url=emulator.url) as images:
        print((await images.get("ubuntu-24-04-x64")).slug)
    extras = ("click", "redis", "rich", "trustme", "uvloop")
    print([name for name in extras if importlib.util.find_spec(name)])

asyncio.run(main())
"""
    assert run(python, "-W", "error", "-c", program, directory=tmp_path) == "ubuntu-24-04-x64\n[]\n"
    without = subprocess.run(  # noqa: S603  (ours)
        [python.with_name("do-images"), "list"], capture_output=True, text=True, check=False, timeout=55
    )
    assert without.returncode != 0
    assert without.stderr == "do-images needs its extra cli: pip install click rich pyyaml\n"
