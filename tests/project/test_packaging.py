"""The content of the sdist and the wheel, and their metadata."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path, PurePosixPath

import attrs
import pytest

from do_images_async import __version__

ROOT = Path(__file__).parents[2]
PACKAGE = "do_images_async"

pytestmark = pytest.mark.once
PLUGIN = f"{PACKAGE}/testing/plugin/do_images_async_pytest.py"  # a module of its own, beside the package


@attrs.frozen
class Built:
    """The names in the two files, and the wheel's metadata."""

    wheel: frozenset[str]
    sdist: frozenset[str]
    metadata: Message
    entry_points: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    pytest.importorskip("build", reason="needs the extra dev")
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(  # noqa: S603  (ours)
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=55,
    )
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive, tarfile.open(sdist) as tar:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        yield Built(
            wheel=frozenset(archive.namelist()),
            sdist=frozenset(name.partition("/")[2] for name in tar.getnames()),
            metadata=Parser().parsestr(archive.read(f"{info}/METADATA").decode()),
            entry_points=archive.read(f"{info}/entry_points.txt").decode(),
        )


def sources(directory: str) -> set[str]:
    """Return the files in a directory that are under version control, or should be."""
    listed = subprocess.run(  # noqa: S603  (ours)
        ["/usr/bin/env", "git", "ls-files", "--cached", "--others", "--exclude-standard", directory],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    info = f"{PACKAGE}-{__version__}.dist-info"
    extras = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    package = {name for name in sources(PACKAGE) if name != PLUGIN} | {PurePosixPath(PLUGIN).name}
    assert built.wheel == package | extras | {f"{info}/licenses/LICENSE"}
    assert f"{PACKAGE}/py.typed" in built.wheel


def test_the_sdist_holds_what_building_and_testing_need(built: Built) -> None:
    needed = sources(PACKAGE) | sources("tests") | sources("benchmarks") | sources(".ci")
    needed |= {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"}
    assert needed <= built.sdist
    strays = {name for name in built.sdist - needed if name not in {"PKG-INFO", ".gitignore"}}
    assert {name for name in strays if PurePosixPath(name).suffix} == set()


def test_the_metadata_is_complete(built: Built) -> None:
    metadata = built.metadata
    assert (metadata["Name"], metadata["Version"]) == ("do-images-async", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).startswith("# do_images_async")
    urls = dict(value.split(", ", 1) for value in metadata.get_all("Project-URL") or [])
    assert urls.keys() == {"API reference", "Rate limits"}
    assert all(url.startswith("https://") for url in urls.values())
    classifiers = metadata.get_all("Classifier") or []
    assert {"Typing :: Typed", "Framework :: AsyncIO"} <= set(classifiers)
    for version in ("3.11", "3.12", "3.13", "3.14", "3.15"):
        assert f"Programming Language :: Python :: {version}" in classifiers


def test_the_core_needs_four_packages_and_extras_name_the_rest(built: Built) -> None:
    required = built.metadata.get_all("Requires-Dist") or []
    core = {line.split(">=")[0].split("[")[0] for line in required if "extra ==" not in line}
    assert core == {"aiohttp", "attrs", "cattrs", "yarl"}
    assert set(built.metadata.get_all("Provides-Extra") or []) >= {"cli", "dev", "docs", "redis", "test"}


def test_the_command_is_installed(built: Built) -> None:
    assert "do-images = do_images_async.cli:main" in built.entry_points
