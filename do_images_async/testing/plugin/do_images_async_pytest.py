"""The pytest plugin: the fixtures `images_emulator` and `images_api`.

A module of its own, outside of the package: pytest imports its plugins whenever it runs, and importing one
from a package imports the package. Here nothing but pytest is imported until a test asks for a fixture.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import pytest

if TYPE_CHECKING:
    from do_images_async import ImagesAPI
    from do_images_async.testing import ImagesEmulator

_MARKERS = (
    "images_emulator(**arguments): what `ImagesEmulator` is made with for this test's `images_emulator`",
    "images_api(**arguments): what `ImagesAPI` is made with, beside token and base_url, for `images_api`",
)
_LOOP_SCOPES: tuple[Literal["function", "class", "module", "package", "session"], ...] = (
    *("function", "class", "module", "package", "session"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, and the client's fixtures for the plugins that are installed."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if _has_pytest_asyncio(config):
        config.pluginmanager.register(_fixtures_for_pytest_asyncio())


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, Any, Any]:
    """Mark an async test that asks for one of the fixtures, unless the project has marked it.

    pytest-asyncio (in its default mode, strict) and anyio run only tests that have their mark.
    """
    if _is_async(obj) and collector.istestfunction(obj, name) and _uses_fixtures(obj):
        _mark(collector, obj)
    return (yield)


def _is_async(obj: object) -> TypeGuard[Callable[..., Any]]:
    # Hypothesis's `@given` makes a plain function; the plugins for async tests replace what it calls.
    inner = getattr(getattr(obj, "hypothesis", None), "inner_test", None)
    return inspect.iscoroutinefunction(obj if inner is None else inner)


def _uses_fixtures(function: Callable[..., Any]) -> bool:
    return not {"images_emulator", "images_api"}.isdisjoint(inspect.signature(function).parameters)


def _mark(collector: pytest.Module | pytest.Class, function: Callable[..., Any]) -> None:
    own = {mark.name for mark in getattr(function, "pytestmark", ())}
    inherited = {name for name in ("asyncio", "anyio") if collector.get_closest_marker(name)}
    if not own.isdisjoint(("asyncio", "anyio")) or inherited:
        return
    if _has_pytest_asyncio(collector.config):
        pytest.mark.asyncio(function)
    elif _has_plugin(collector.config, "anyio", "anyio.pytest_plugin"):
        pytest.mark.anyio(function)


@pytest.fixture
def images_emulator(request: pytest.FixtureRequest) -> Iterator[ImagesEmulator]:
    """Yield the Images API on a local socket, new for each test; it serves on a thread of its own.

    `@pytest.mark.images_emulator(images=300, quotas=None)` passes arguments to `ImagesEmulator`.
    """
    from do_images_async.testing import ImagesEmulator

    with ImagesEmulator(**_arguments(request, "images_emulator", ImagesEmulator)) as emulator:
        yield emulator


def _arguments(
    request: pytest.FixtureRequest, marker: str, made: type[object], *reserved: str
) -> dict[str, Any]:
    """Return the arguments of a test's marks of one name; those of the nearest mark win.

    Args:
        request: the test's.
        marker: the name of the marks.
        made: the class that the arguments are for.
        reserved: its parameters that the fixture sets.
    """
    arguments: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers(marker))):
        if mark.args:
            raise TypeError(f"the mark {marker} takes keyword arguments only, not {mark.args[0]!r}")
        arguments |= mark.kwargs
    if taken := arguments.keys() & set(reserved):
        raise TypeError(f"the mark {marker} can't set {min(taken)}: it is the emulator's")
    allowed = [name for name in inspect.signature(made).parameters if name not in reserved]
    if unknown := sorted(arguments.keys() - set(allowed)):
        raise TypeError(f"the mark {marker} has no {', '.join(unknown)}; it has {', '.join(allowed)}")
    return arguments


@pytest.fixture
def images_api(request: pytest.FixtureRequest) -> ImagesAPI:
    """Return an `ImagesAPI` that talks to `images_emulator`, in the event loop of the test.

    For async tests under pytest-asyncio (and so pytest-aiohttp) or anyio; they need no mark and no mode.
    `@pytest.mark.images_api(retry=RetryPolicy(base=0))` passes arguments to `ImagesAPI`.
    """
    client: ImagesAPI
    if "anyio_backend" in request.fixturenames:
        _require_asyncio(request.getfixturevalue("anyio_backend"))
        client = request.getfixturevalue("_images_api_of_anyio")
        return client
    if _has_pytest_asyncio(request.config):
        client = request.getfixturevalue(f"_images_api_of_{_loop_scope(request)}_loop")
        return client
    pytest.fail("images_api needs a plugin that runs async tests: pytest-asyncio, or anyio's", pytrace=False)


async def _client(
    request: pytest.FixtureRequest, images_emulator: ImagesEmulator
) -> AsyncIterator[ImagesAPI]:
    from do_images_async import ImagesAPI

    given = _arguments(request, "images_api", ImagesAPI, "token", "base_url")
    async with ImagesAPI(images_emulator.token, base_url=images_emulator.url, **given) as client:
        yield client


@pytest.fixture(name="_images_api_of_anyio")
async def _client_of_anyio(
    request: pytest.FixtureRequest, images_emulator: ImagesEmulator
) -> AsyncIterator[ImagesAPI]:
    async for client in _client(request, images_emulator):
        yield client


def _require_asyncio(backend: Any) -> None:
    name = backend if isinstance(backend, str) else backend[0]
    if name != "asyncio":
        pytest.skip(f"images_api speaks asyncio, not {name}")


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    return _has_plugin(config, "asyncio", "pytest_asyncio", "pytest_asyncio.plugin")


def _has_plugin(config: pytest.Config, *names: str) -> bool:
    """Return whether a plugin is active, under the name of its entry point or of its module."""
    return any(config.pluginmanager.has_plugin(name) for name in names)


def _fixtures_for_pytest_asyncio() -> ModuleType:
    """Return a plugin with a fixture for each loop scope of pytest-asyncio."""
    from pytest_asyncio import fixture

    plugin = ModuleType("do_images_async_pytest_asyncio")
    for scope in _LOOP_SCOPES:

        async def client(
            request: pytest.FixtureRequest, images_emulator: ImagesEmulator
        ) -> AsyncIterator[ImagesAPI]:
            async for each in _client(request, images_emulator):
                yield each

        name = f"_images_api_of_{scope}_loop"
        setattr(plugin, name, fixture(client, loop_scope=scope, name=name))
    return plugin


def _loop_scope(request: pytest.FixtureRequest) -> str:
    """Return the scope of the loop that pytest-asyncio runs this test in."""
    mark = request.node.get_closest_marker("asyncio")
    given = None if mark is None else mark.kwargs.get("loop_scope")
    return str(given or request.config.getini("asyncio_default_test_loop_scope"))
