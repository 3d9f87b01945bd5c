"""What most test modules share: a scripted server, and a client that talks to it."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from do_images_async import ImagesAPI, RetryPolicy
from do_images_async._quota import sharing
from tests.support.servers import Server
from tests.support.surroundings import allow_open_files, clean_environment

TOKEN = "dop_v1_c0ffee5ec7e7" + "0123456789abcdef" * 3
FAST = RetryPolicy(base=0.002, cap=0.002)
ONCE = RetryPolicy(attempts=1)

clean_environment()
allow_open_files()
# The command keeps its quota in the user's state folder, and finds doctl's token in that for
# configuration: the tests have their own.
os.environ["XDG_STATE_HOME"] = os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp(prefix="do-images-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

NEED_DEVELOPERS_TOOLS = (  # the extra `dev`: type checkers, builders, what the benchmarks compare with
    "project/test_benchmarks.py",
    "project/test_packaging.py",
    "project/test_pydo.py",
    "project/test_quota_benchmark.py",
    "project/test_soak.py",
    "project/test_typing.py",
)
collect_ignore = [] if os.environ.get("RUN_SLOW") == "1" else list(NEED_DEVELOPERS_TOOLS)


# Property tests: no bounds on time, which busy machines fail; few examples where a test names no number.
settings.register_profile("whole", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", settings.get_profile("whole"), max_examples=20)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run-slow",
        action="store_true",
        help="run the slow tests too, those that need the extra `dev`, and property tests in full",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes `-n auto` means: more than cores, since tests wait, and slow ones more."""
    return (os.cpu_count() or 1) + (4 if config.getoption("--run-slow") else 3)


def pytest_configure(config: pytest.Config) -> None:
    # The commands that tests interrupt inherit what is ignored, but no handler.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:  # as in the background of a script, or under nohup
            signal.signal(number, _ignore)
    if config.getoption("--run-slow"):
        os.environ["RUN_SLOW"] = "1"  # before any test module is imported, and for xdist's workers
        collect_ignore.clear()
    settings.load_profile("whole" if os.environ.get("RUN_SLOW") == "1" else "short")


def _ignore(_number: int, _frame: object) -> None:
    """Do nothing on a signal, as if it were ignored."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect without the garbage collector, which finds nothing there and takes two fifths of the time.

    Later it looks at all objects rarely: with thousands of tests, that stops a process for half a second.
    """
    gc.disable()
    try:
        _import_a_share(session.config)
        return (yield)
    finally:
        gc.set_threshold(20_000, 50, 100)
        gc.enable()


def _import_a_share(config: pytest.Config) -> None:
    """Import some test modules, in each of xdist's workers others: what one compiles, the rest read."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is None or config.args != ["tests"]:
        return
    here = Path(__file__).parent
    modules = sorted(set(here.rglob("test_*.py")) - {here / name for name in collect_ignore})
    for path in modules[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        with suppress(Exception, pytest.skip.Exception):  # collecting the module will report it
            importlib.import_module(".".join(path.relative_to(here.parent).with_suffix("").parts))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("RUN_SLOW") == "1":
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what did not run, and how to run it."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"not run: {count} tests: {reason}")
    if os.environ.get("RUN_SLOW") != "1":
        terminalreporter.write_line("not run: the slow tests: install the extra dev, and add --run-slow")


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
