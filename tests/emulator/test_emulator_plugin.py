"""The pytest plugin, in runs of its own, under each plugin that runs asynchronous tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.test_readme import README
from tests.support.slow import fewer

PLUGIN = ("-p", "do_images_async_pytest")
ASYNCIO = ("-p", "pytest_asyncio.plugin")
ANYIO = ("-p", "anyio.pytest_plugin")

ASYNC_TESTS = """
import pytest
from do_images_async import ImagesAPI
from do_images_async.testing import ImagesEmulator

{mark}
async def test_both(images_emulator: ImagesEmulator, images_api: ImagesAPI):
    assert (await images_api.get("debian-12-x64")).slug == "debian-12-x64"
    assert images_emulator.requests.count("GET", "/v2/images/*", status=200) == 1

{mark}
async def test_another_emulator(images_emulator, images_api):
    assert len(images_emulator.requests) == 0
    assert len([image async for image in images_api.list(private=True)]) == 20
"""

BLOCKING_TEST = """
import urllib.request
import pytest

@pytest.mark.images_emulator(images=3, token="dop_v1_known")
def test_a_client_that_blocks(images_emulator):
    headers = {"Authorization": "Bearer dop_v1_known"}
    request = urllib.request.Request(images_emulator.url + "/v2/images?private=true", headers=headers)
    with urllib.request.urlopen(request) as response:
        assert response.status == 200
        assert b'"total": 3' in response.read()
    assert images_emulator.requests.count("GET", "/v2/images") == 1
"""


def run(
    directory: Path, source: str, *options: str, autoload: bool = False, ini: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the tests of another project, in a directory of its own."""
    (directory / "test_it.py").write_text(source, encoding="utf-8")
    (directory / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{ini}", encoding="utf-8")
    return pytest_in(directory, *options, autoload=autoload)


def pytest_in(directory: Path, *options: str, autoload: bool = False) -> subprocess.CompletedProcess[str]:
    """Run pytest in a directory, with the plugins that the options name."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    if not autoload:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.run(  # noqa: S603
        [sys.executable, "-X", "dev", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def passed(outcome: subprocess.CompletedProcess[str]) -> int:
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    found = re.search(r"(\d+) passed", outcome.stdout)
    assert found, outcome.stdout
    return int(found[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "options", "ini"),
    [
        ("", (*ASYNCIO, "--asyncio-mode=auto"), ""),
        ("@pytest.mark.asyncio", (*ASYNCIO, "--asyncio-mode=strict"), ""),
        ("@pytest.mark.asyncio(loop_scope='module')", (*ASYNCIO, "--asyncio-mode=strict"), ""),
        ("", (*ASYNCIO, "--asyncio-mode=auto"), "asyncio_default_test_loop_scope = session"),
        ("", (*ASYNCIO, "-p", "pytest_aiohttp.plugin", "--asyncio-mode=auto"), ""),
        ("@pytest.mark.anyio", ("-p", "anyio.pytest_plugin", "-k", "not trio"), ""),
        ("@pytest.mark.anyio", ("-p", "anyio.pytest_plugin", *ASYNCIO, "-k", "not trio"), ""),
    ],
    ids=[
        *("asyncio-auto", "asyncio-strict", "asyncio-module-loop", "asyncio-session-loop"),
        *("aiohttp", "anyio", "anyio-beside-asyncio"),
    ],
)
def test_the_fixtures_work_with(tmp_path: Path, mark: str, options: tuple[str, ...], ini: str) -> None:
    if "pytest_asyncio.plugin" in options:
        ini += "\nasyncio_default_fixture_loop_scope = function"
    assert passed(run(tmp_path, ASYNC_TESTS.format(mark=mark), *PLUGIN, *options, ini=ini)) == 2


MARKED_CLIENT = """
import pytest
from do_images_async import ImagesAPI, RateLimiter, RetryPolicy, TokenBucket, errors
from do_images_async.testing import Fault, ImagesEmulator

events: list[object] = []
pytestmark = pytest.mark.images_api(on_event=events.append, retry=RetryPolicy(base=0))

async def test_the_modules_mark(images_emulator: ImagesEmulator, images_api: ImagesAPI):
    images_emulator.faults.add(Fault(status=503, times=3))
    await images_api.get("debian-12-x64")
    assert len(images_emulator.requests) == 4

@pytest.mark.images_api(retry=RetryPolicy(attempts=1))
async def test_the_nearest_mark_wins(images_emulator: ImagesEmulator, images_api: ImagesAPI):
    images_emulator.faults.add(Fault(status=503))
    events.clear()
    with pytest.raises(errors.ServerError):
        await images_api.get("debian-12-x64")
    assert len(images_emulator.requests) == 1
    assert events  # the argument of the module's mark stays

@pytest.mark.images_emulator(quotas=None)
@pytest.mark.images_api(limiter=RateLimiter(TokenBucket(10**6, per=60), slow_start=False))
async def test_more_requests_than_the_quota(images_emulator: ImagesEmulator, images_api: ImagesAPI):
    outcomes = [each async for each in images_api.get_many(range(1, 301))]
    assert len(outcomes) == len(images_emulator.requests) == 300
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "plugins",
    fewer([(*ASYNCIO, "--asyncio-mode=strict"), (*ANYIO, "-k", "not trio")]),
)
def test_a_mark_says_what_the_client_is_made_with(tmp_path: Path, plugins: tuple[str, ...]) -> None:
    ini = "asyncio_default_fixture_loop_scope = function" if ASYNCIO[1] in plugins else ""
    assert passed(run(tmp_path, MARKED_CLIENT, *PLUGIN, *plugins, "--strict-markers", ini=ini)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("images_emulator(5)", "the mark images_emulator takes keyword arguments only, not 5"),
        ("images_api(token='x')", "the mark images_api can't set token: it is the emulator's"),
        ("images_api(retries=3)", "the mark images_api has no retries; it has session, "),
        ("images_emulator(latency='50ms')", "latency must be a number from 0 to 86,400"),
        (
            "images_emulator(imagse=3)",
            "the mark images_emulator has no imagse; it has images, seed, quotas, ",
        ),
    ],
)
def test_a_mark_that_can_not_be_used_says_why(tmp_path: Path, mark: str, said: str) -> None:
    source = f"import pytest\n\n@pytest.mark.{mark}\nasync def test_it(images_api): ...\n"
    outcome = run(tmp_path, source, *PLUGIN, *ASYNCIO, ini="asyncio_default_fixture_loop_scope = function")
    assert said in outcome.stdout
    assert "1 error" in outcome.stdout


OWN_FIXTURE = """
import pytest

@pytest.{fixture}
async def image(images_api):
    return await images_api.get("debian-12-x64")

{mark}
async def test_its_loop_is_that_of_the_test(image, images_api, images_emulator):
    assert await images_api.get(image.id) == image
    assert len(images_emulator.requests) == 2

async def test_the_next_test_has_a_new_emulator(images_api, images_emulator):
    assert len(images_emulator.requests) == 0
    await images_api.get("debian-12-x64")
"""
SESSION = "asyncio_default_fixture_loop_scope = session\nasyncio_default_test_loop_scope = session\n"
FUNCTION = "asyncio_default_fixture_loop_scope = function\n"
BY_ASYNCIO = OWN_FIXTURE.replace("import pytest", "import pytest\nimport pytest_asyncio").replace(
    "@pytest.{fixture}", "@pytest_asyncio.{fixture}"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ini", "fixture", "mark"),
    [
        (FUNCTION, "fixture", ""),
        (SESSION, "fixture", ""),
        (SESSION + "asyncio_mode = auto", "fixture", ""),
        (FUNCTION, 'fixture(loop_scope="module")', '@pytest.mark.asyncio(loop_scope="module")'),
    ],
)
def test_a_fixture_of_ones_own_in_the_loop_of_its_test(
    tmp_path: Path, ini: str, fixture: str, mark: str
) -> None:
    source = BY_ASYNCIO.format(fixture=fixture, mark=mark)
    assert passed(run(tmp_path, source, *PLUGIN, *ASYNCIO, ini=ini)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugins", "source"),
    [
        (ASYNCIO, BY_ASYNCIO.format(fixture="fixture", mark='@pytest.mark.asyncio(loop_scope="module")')),
        (
            (*ASYNCIO, *ANYIO, "--asyncio-mode=auto", "-k", "not trio"),
            OWN_FIXTURE.format(fixture="fixture", mark="@pytest.mark.anyio"),
        ),
    ],
    ids=["scopes-differ", "anyio-mark-in-auto-mode"],
)
def test_a_fixture_in_another_loop_than_its_test_is_told_so(
    tmp_path: Path, plugins: tuple[str, ...], source: str
) -> None:
    outcome = run(tmp_path, source, *PLUGIN, *plugins, ini=FUNCTION)
    assert "ClientStateError: the client belongs to another event loop" in outcome.stdout


def test_a_plain_test_needs_no_other_plugin_and_the_client_says_what_it_needs(tmp_path: Path) -> None:
    source = f"{BLOCKING_TEST}\n\ndef test_it(images_api): ...\n"
    outcome = run(tmp_path, source, *PLUGIN, "--strict-markers")
    said = "images_api needs a plugin that runs async tests: pytest-asyncio 0.17 or later, or anyio's"
    assert said in outcome.stdout
    assert "1 passed, 1 error" in outcome.stdout


@pytest.mark.slow
def test_under_anyio_the_client_asks_for_the_mark_where_nothing_says_that_a_test_is_async(
    tmp_path: Path,
) -> None:
    outcome = run(tmp_path, "def test_it(images_api): ...\n", *PLUGIN, *ANYIO)
    assert "images_api needs an async test that has the mark anyio" in outcome.stdout


OF_ANY_PROJECT = """
import pytest

class Proxy:  # such as Flask's `request`
    def __getattr__(self, name):
        raise RuntimeError("working outside of request context")

proxy = Proxy()

def test_plain(): ...

async def test_client(images_api):
    await images_api.get("debian-12-x64")

@pytest.mark.asyncio(loop_scope="module")
async def test_in_a_wider_loop(images_api): ...
"""
# What older pytest-asyncios have, as changes of the one that is installed.
BEFORE_0_24 = """
import pytest_asyncio.plugin

newer = pytest_asyncio.plugin.fixture

def fixture(fixture_function=None, **kwargs):
    if kwargs.pop("loop_scope", None):
        raise TypeError("fixture() got an unexpected keyword argument 'loop_scope'")
    return newer(fixture_function, **kwargs)

pytest_asyncio.plugin.fixture = fixture
"""
BEFORE_0_17 = "import pytest_asyncio.plugin\ndel pytest_asyncio.plugin.fixture\n"


@pytest.mark.parametrize(
    ("older", "result", "said"),
    fewer(
        [
            (
                BEFORE_0_24,
                "2 passed, 1 error",
                "images_api in the loop of a module needs pytest-asyncio 0.24",
            ),
            (BEFORE_0_17, "1 passed, 2 errors", "images_api needs a plugin that runs async tests: "),
        ]
    ),
    ids=fewer(["before-0.24", "before-0.17"]),
)
def test_an_old_pytest_asyncio_ends_no_session(tmp_path: Path, older: str, result: str, said: str) -> None:
    """`tests/project/test_installed.py` does it with real ones."""
    (tmp_path / "older.py").write_text(older, encoding="utf-8")
    (tmp_path / "test_it.py").write_text(OF_ANY_PROJECT, encoding="utf-8")
    outcome = pytest_in(tmp_path, *ASYNCIO, "-p", "older", *PLUGIN)
    assert result in outcome.stdout
    assert said in outcome.stdout


OF_TYPES = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from do_images_async import ImagesAPI

async def test_client(images_api: ImagesAPI):
    await images_api.get("debian-12-x64")

async def test_that_does_not_use_it(): ...
"""


def test_an_annotation_may_be_there_for_type_checkers_only(tmp_path: Path) -> None:
    late = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
    (tmp_path / "test_it.py").write_text(late + OF_TYPES, encoding="utf-8")
    assert passed(pytest_in(tmp_path, *ASYNCIO, *PLUGIN, "--asyncio-mode=auto")) == 2


OF_A_CLASS = """
import pytest

class TestIt:
    @staticmethod
    async def test_static(images_api):
        await images_api.get("debian-12-x64")

    @classmethod
    async def test_of_the_class(cls, images_api):
        await images_api.get("debian-12-x64")

    @pytest.mark.usefixtures("images_emulator")
    async def test_by_mark(self): ...

@pytest.mark.usefixtures("images_api")
class TestByMarkOfTheClass:
    async def test_it(self): ...
"""


@pytest.mark.parametrize("plugins", fewer([(*ANYIO, "-k", "not trio"), ASYNCIO, (*ASYNCIO, *ANYIO)]))
def test_a_static_method_a_class_method_and_usefixtures_need_no_mark(
    tmp_path: Path, plugins: tuple[str, ...]
) -> None:
    (tmp_path / "test_it.py").write_text(OF_A_CLASS, encoding="utf-8")
    assert passed(pytest_in(tmp_path, *PLUGIN, *plugins)) == 4


@pytest.mark.slow
def test_pytest_finds_it_by_itself_and_it_costs_nothing_until_used(tmp_path: Path) -> None:
    """Load every plugin of the environment; this one has imported nothing."""
    source = """
    import sys

    def test_nothing_is_imported(request):
        assert request.config.pluginmanager.has_plugin("do_images_async")
        assert "do_images_async_pytest" in sys.modules
        assert [name for name in sys.modules if name.split(".")[0] in ("do_images_async", "aiohttp")] == []
    """
    without_aiohttp = ("-p", "no:aiohttp", "-p", "no:schemathesis", "-p", "no:looptime_plugin")
    outcome = run(
        tmp_path,
        re.sub("^    ", "", source, flags=re.MULTILINE),
        *without_aiohttp,
        autoload=True,
        ini="asyncio_default_fixture_loop_scope = function",
    )
    assert passed(outcome) == 1


EXAMPLE = re.search(r"^```python\n(# test_[^\n]+\n.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "plugins",
    fewer([ASYNCIO, ANYIO, (*ASYNCIO, "-p", "pytest_aiohttp.plugin"), (*ASYNCIO, *ANYIO)]),
)
def test_the_example_of_the_readme_needs_no_mark_and_no_setting(
    tmp_path: Path, plugins: tuple[str, ...]
) -> None:
    """Run it in an empty directory, with only these plugins active."""
    assert EXAMPLE, "the README shows a test"
    (tmp_path / "test_cleanup.py").write_text(EXAMPLE[1], encoding="utf-8")
    outcome = pytest_in(tmp_path, *PLUGIN, *plugins)
    assert passed(outcome) == 1
    assert "failed" not in outcome.stdout


OF_HYPOTHESIS = """
from hypothesis import HealthCheck, given, settings, strategies

@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=strategies.integers(1, 5))
async def test_pages(images_api, number):
    assert len((await images_api.list_page(per_page=number)).images) == number
"""


@pytest.mark.parametrize(
    "plugins",
    fewer([ASYNCIO, (*ANYIO, "-k", "not trio"), (*ASYNCIO, "-p", "pytest_aiohttp.plugin")]),
)
def test_a_test_of_hypothesis_needs_no_mark(tmp_path: Path, plugins: tuple[str, ...]) -> None:
    (tmp_path / "test_it.py").write_text(OF_HYPOTHESIS, encoding="utf-8")
    assert passed(pytest_in(tmp_path, *PLUGIN, *plugins)) == 1


@pytest.mark.slow
def test_an_async_test_that_does_not_use_the_fixtures_is_not_marked(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("async def test_plain(tmp_path): ...\n", encoding="utf-8")
    outcome = pytest_in(tmp_path, *PLUGIN, *ASYNCIO)
    assert "async def functions are not natively supported" in outcome.stdout


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["loop_scope", "scope"])  # the second is its name in old projects
def test_a_class_or_module_with_a_mark_keeps_it(tmp_path: Path, argument: str) -> None:
    source = """
import asyncio, pytest

@pytest.mark.asyncio(loop_scope="class")
class TestLoop:
    loops = set()

    async def test_first(self, images_api):
        self.loops.add(id(asyncio.get_running_loop()))
        await images_api.list_page()

    async def test_second(self, images_api):
        self.loops.add(id(asyncio.get_running_loop()))
        await images_api.list_page()
        assert len(self.loops) == 1
"""
    (tmp_path / "test_it.py").write_text(source.replace("loop_scope", argument), encoding="utf-8")
    assert passed(pytest_in(tmp_path, *PLUGIN, *ASYNCIO)) == 2


FAILING_HOOK = """
import urllib.error
import urllib.request
import pytest

def test_nothing_is_asked(images_emulator):
    def refuse(request):
        assert False, "nothing was to be asked"

    images_emulator.on_request.append(refuse)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(images_emulator.url)
    caught.value.close()
"""


@pytest.mark.slow
def test_an_assertion_of_a_hook_fails_the_test(tmp_path: Path) -> None:
    outcome = run(tmp_path, FAILING_HOOK, *PLUGIN)
    assert outcome.returncode == 1
    assert "nothing was to be asked" in outcome.stdout
    assert "1 error" in outcome.stdout
