"""The pytest plugin: the fixtures `images_emulator` and `images_api`.

A module of its own, outside of the package: pytest imports its plugins whenever it runs, and importing one
from a package imports the package. Here nothing but pytest is imported until a test asks for a fixture.

It is also there in projects that use none of this, with whatever pytest and plugins they have: until a test
asks for a fixture, it uses only what pytest has had since 6.2 and pluggy since 0.13, and takes from
pytest-asyncio only what is there.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard

import pytest

if TYPE_CHECKING:
    from do_images_async import ImagesAPI
    from do_images_async.testing import ImagesEmulator

_MARKERS = (
    "images_emulator(**arguments): what `ImagesEmulator` is made with for this test's `images_emulator`",
    "images_api(**arguments): what `ImagesAPI` is made with, beside token and base_url, for `images_api`",
)
_LOOP_SCOPES = ("function", "class", "module", "package", "session")
_OF_ASYNCIO = "do_images_async_pytest_asyncio"  # names of the plugins with the client's fixtures
_OF_ANYIO = "do_images_async_pytest_anyio"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, and the client's fixtures for the plugins that are installed."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if (fixture := _fixture_of_pytest_asyncio(config)) is not None:
        config.pluginmanager.register(_fixtures_for_pytest_asyncio(fixture), _OF_ASYNCIO)


# `wrapper=True` would need pluggy 1.2.
@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> Generator[None, Any, None]:
    """Mark an async test that asks for one of the fixtures, unless the project has marked it.

    pytest-asyncio (in its default mode, strict) and anyio run only tests that have their mark.
    """
    # First the name: every object of a module comes here, and those of Flask may raise when looked at.
    if collector.istestfunction(obj, name):
        function = getattr(obj, "__func__", obj)  # of a static or class method
        if _is_async(function) and _uses_fixtures(collector, function):
            _mark(collector, function)
    yield


def _is_async(function: object) -> TypeGuard[Callable[..., Any]]:
    # Hypothesis's `@given` makes a plain function; the plugins for async tests replace what it calls.
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", None)
    return inspect.iscoroutinefunction(function if inner is None else inner)


def _uses_fixtures(collector: pytest.Module | pytest.Class, function: Callable[..., Any]) -> bool:
    marks = [*getattr(function, "pytestmark", ()), *collector.iter_markers()]
    named = [name for mark in marks if mark.name == "usefixtures" for name in mark.args]
    return not {"images_emulator", "images_api"}.isdisjoint([*named, *_parameters(function)])


def _parameters(function: Callable[..., Any]) -> Collection[str]:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # As values, annotations that are imported for type checkers only would raise a NameError.
        return inspect.signature(function, annotation_format=Format.STRING).parameters
    return inspect.signature(function).parameters


def _mark(collector: pytest.Module | pytest.Class, function: Callable[..., Any]) -> None:
    marks = {mark.name for mark in (*getattr(function, "pytestmark", ()), *collector.iter_markers())}
    if marks.isdisjoint(("asyncio", "anyio")) and _has_pytest_asyncio(collector.config):
        pytest.mark.asyncio(function)
    elif "asyncio" not in marks and _has_anyio(collector.config):
        pytest.mark.anyio(function)
        # anyio does this itself, but not for static and class methods.
        pytest.mark.usefixtures("anyio_backend")(function)


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
        # Only now: a pytest-asyncio of 2022 warns of every async fixture that is not its own.
        if not _has_plugin(request.config, _OF_ANYIO):
            request.config.pluginmanager.register(_fixture_for_anyio(), _OF_ANYIO)
        client = request.getfixturevalue("_images_api_of_anyio")
        return client
    if _has_pytest_asyncio(request.config):
        client = request.getfixturevalue(_fixture_of_loop(request))
        return client
    if _has_anyio(request.config):
        pytest.fail("images_api needs an async test that has the mark anyio", pytrace=False)
    pytest.fail(
        "images_api needs a plugin that runs async tests: pytest-asyncio 0.17 or later, or anyio's",
        pytrace=False,
    )


def _new_client_fixture() -> Callable[..., AsyncIterator[ImagesAPI]]:
    """Return a new function for each fixture: pytest-asyncio notes on it what its loop is."""

    async def client(
        request: pytest.FixtureRequest, images_emulator: ImagesEmulator
    ) -> AsyncIterator[ImagesAPI]:
        from do_images_async import ImagesAPI

        given = _arguments(request, "images_api", ImagesAPI, "token", "base_url")
        async with ImagesAPI(images_emulator.token, base_url=images_emulator.url, **given) as client:
            yield client

    return client


def _require_asyncio(backend: Any) -> None:
    name = backend if isinstance(backend, str) else backend[0]
    if name != "asyncio":
        pytest.skip(f"images_api speaks asyncio, not {name}")


def _has_pytest_asyncio(config: pytest.Config) -> bool:
    return _has_plugin(config, _OF_ASYNCIO)


def _has_anyio(config: pytest.Config) -> bool:
    return _has_plugin(config, "anyio", "anyio.pytest_plugin")


def _has_plugin(config: pytest.Config, *names: str) -> bool:
    """Return whether a plugin is active, under the name of its entry point or of its module."""
    return any(config.pluginmanager.has_plugin(name) for name in names)


def _fixture_for_anyio() -> ModuleType:
    plugin = ModuleType(_OF_ANYIO)
    name = "_images_api_of_anyio"
    setattr(plugin, name, pytest.fixture(name=name)(_new_client_fixture()))
    return plugin


def _fixture_of_pytest_asyncio(config: pytest.Config) -> Callable[..., Any] | None:
    """Return the decorator `fixture` of pytest-asyncio; versions before 0.17 have none."""
    names = ("asyncio", "pytest_asyncio", "pytest_asyncio.plugin")
    decorators = (getattr(config.pluginmanager.get_plugin(name), "fixture", None) for name in names)
    return next(filter(callable, decorators), None)


def _fixtures_for_pytest_asyncio(fixture: Callable[..., Any]) -> ModuleType:
    """Return a plugin with a fixture for each loop scope of pytest-asyncio; before 0.24 it has only one."""
    plugin = ModuleType(_OF_ASYNCIO)
    scoped = "loop_scope" in _parameters(fixture)
    for scope in _LOOP_SCOPES if scoped else ("function",):
        name = f"_images_api_of_{scope}_loop"
        given = {"loop_scope": scope} if scoped else {}
        setattr(plugin, name, fixture(name=name, **given)(_new_client_fixture()))
    return plugin


def _fixture_of_loop(request: pytest.FixtureRequest) -> str:
    """Return the name of the fixture in the loop that pytest-asyncio runs this test in."""
    scope = _loop_scope(request)
    name = f"_images_api_of_{scope}_loop"
    if not hasattr(request.config.pluginmanager.get_plugin(_OF_ASYNCIO), name):
        pytest.fail(f"images_api in the loop of a {scope} needs pytest-asyncio 0.24 or later", pytrace=False)
    return name


def _loop_scope(request: pytest.FixtureRequest) -> str:
    mark = request.node.get_closest_marker("asyncio")
    given: Mapping[str, Any] = {} if mark is None else mark.kwargs
    # `scope` is the older name of the argument.
    return str(given.get("loop_scope") or given.get("scope") or _default_loop_scope(request.config))


def _default_loop_scope(config: pytest.Config) -> str:
    try:
        return str(config.getini("asyncio_default_test_loop_scope"))
    except ValueError:  # pytest-asyncio has the option since 0.26
        return "function"
