"""`ImagesEmulator`: the account, the quota, the faults, the journal, and the server that uses them."""

from __future__ import annotations

import errno
import os
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from do_images_async.testing.action_routes import ActionRoutes, TransferRoutes
from do_images_async.testing.actions import ActionStore, TransferStore
from do_images_async.testing.admin import Admin
from do_images_async.testing.admin_access import AdminAccess
from do_images_async.testing.answers import Style
from do_images_async.testing.catalogue import private_images, public_images
from do_images_async.testing.damage import remove_headers
from do_images_async.testing.failures import Failures
from do_images_async.testing.faults import Faults
from do_images_async.testing.journal import Journal
from do_images_async.testing.old_images import old_action, old_images
from do_images_async.testing.quota import DOCUMENTED, Meter, Quota
from do_images_async.testing.request_handler import Hook, RequestHandler
from do_images_async.testing.routes import Links, Route, Routes, with_refusals
from do_images_async.testing.server import accepted, make_runner
from do_images_async.testing.settings import Settings
from do_images_async.testing.state import ImageStore
from do_images_async.testing.state_document import parse_state
from do_images_async.testing.threads import ServingThread
from do_images_async.testing.tokens import Tokens

__all__ = ["ImagesEmulator"]

_SERVED: Final = frozenset(
    {"tokens", "images", "actions", "transfers", "requests", "served", "faults", "on_request"}
)
"""The attributes whose objects the server has: it would never see another one."""


class ImagesEmulator:
    """The Images API on a local socket, with a catalogue, quotas, faults and a journal.

    `async with` runs it in the current event loop; `with` runs it on a thread of its own, for clients
    that block. A test may read and change its state from any thread.

    Args:
        images: how many private images the account has, beside the provider's public ones.
        seed: the seed of the account and of the faults' probabilities.
        quotas: the limits for each token, by default 250 a minute and 5,000 an hour; None for no limit.
        import_seconds: how long an import takes.
        action_seconds: how long an image action takes.
        latency: seconds before each request is handled.
        jitter: the most seconds that are drawn at random and added to `latency`.
        token: the token that is accepted, by default a new one; `tokens` issues more.
        host, port: the address to listen on; port 0 takes a free one, host "::" is all of IPv6 and IPv4.
        tls: the server's TLS context; without one it speaks plain HTTP.
        clock: returns Unix time in seconds, for quotas, imports and tokens.
        journal_limit: how many requests the journal keeps; None keeps all.
        style: "documented" answers as the documentation says. "observed" answers as recordings of the service
            do: 401 and 403 have ids such as `Unauthorized`, `links` may be empty or vary, half of the resets
            lie in the past, and the account also has old images, whose fields are missing or odd.
        burst_remaining_zero: whether the 429 for a spent minute says `ratelimit-remaining: 0`, as documented;
            False reports the hour's remaining requests.
        names: host names by which clients reach it, besides this machine's; `/_emulator` refuses other names.
        remote_admin: whether `/_emulator` answers to other machines as well.

    Attributes:
        token: the token that is accepted, with all scopes.
        tokens: every accepted token; issues and revokes them.
        images: the account's images and the public ones; `images.import_seconds` can be changed at any time.
        actions: the account's image actions. `actions.fails` is a function that is called with each, as a
            dict, when its time is over, and returns whether it fails; `actions.seconds` is `action_seconds`.
        transfers: its transfers to other accounts; `transfers.own_teams` is the set of the UUIDs of teams
            that accept at once.
        requests: the journal.
        served: the number of responses by status, None for no response; it also counts requests that the
            journal no longer holds.
        faults: the active faults.
        latency, jitter: as given; they can be changed at any time, to what is allowed there.
        on_request: functions that are called with each request before it is answered, and awaited if they are
            coroutine functions; a test changes the state there. If one raises an exception, such as that of a
            failed `assert`, the answer is 500, and the end of the `with` or `async with` raises it.
    """

    def __init__(
        self,
        *,
        images: int = 20,
        seed: int = 7,
        quotas: Sequence[Quota] | None = DOCUMENTED,
        import_seconds: float = 0.2,
        action_seconds: float = 0.2,
        latency: float = 0.0,
        jitter: float = 0.0,
        token: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        journal_limit: int | None = None,
        style: Style = "documented",
        burst_remaining_zero: bool = True,
        names: Collection[str] = (),
        remote_admin: bool = False,
    ) -> None:
        settings = Settings(
            images=images,
            seed=seed,
            quotas=quotas,
            import_seconds=import_seconds,
            action_seconds=action_seconds,
            latency=latency,
            jitter=jitter,
            host=host,
            port=port,
            tls=tls,
            clock=clock,
            journal_limit=journal_limit,
            style=style,
            burst_remaining_zero=burst_remaining_zero,
            names=names,
            remote_admin=remote_admin,
        )
        now = settings.now()
        old = tuple(old_images()) if style == "observed" else ()
        self.tokens: Final[Tokens] = Tokens(clock)
        self.token: str = self.tokens.issue(token=token)
        self.images: Final[ImageStore] = ImageStore(
            [*public_images(now), *private_images(images, seed, now), *old],
            clock=clock,
            import_seconds=import_seconds,
        )
        self.actions: Final[ActionStore] = ActionStore(self.images, clock=clock, seconds=action_seconds)
        if old:
            self.actions.add(old_action(old[-1]["id"]))
        self.transfers: Final[TransferStore] = TransferStore(self.images)
        self.requests: Final[Journal] = Journal(journal_limit)
        self.served: Counter[int | None] = Counter[int | None]()
        self.faults: Final[Faults] = Faults(seed)
        self.on_request: list[Hook] = []
        self._settings = settings
        self._admin = Admin(
            access=AdminAccess(names=settings.names, remote=remote_admin),
            journal=self.requests,
            faults=self.faults,
            tokens=self.tokens,
            dump=self.dump,
            load=self.load,
        )
        self._dice = random.Random(seed)
        self._failures = Failures()
        self._handler = RequestHandler(
            tokens=self.tokens,
            meter=Meter(
                settings.quotas,
                clock,
                burst_remaining_zero=burst_remaining_zero,
                stale_resets=random.Random(seed) if style == "observed" else None,
            ),
            faults=self.faults,
            journal=self.requests,
            served=self.served,
            hooks=self.on_request,
            failures=self._failures,
            pause=self._pause,
            clock=clock,
            style=style,
        )
        self._links = Links(lambda: self.url, style)
        self._address = (settings.host, port)
        self._tls = tls
        self._runner: web.BaseRunner | None = None
        self._thread: ServingThread | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name in _SERVED and vars(self).get(name, value) is not value:
            raise AttributeError(f"{name} of an ImagesEmulator can't be set: change what it holds")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        where = self.url if self._runner else "not running"
        return f"<ImagesEmulator {where}, {len(self.images)} images>"

    @property
    def latency(self) -> float:
        return self._settings.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._settings.latency = seconds

    @property
    def jitter(self) -> float:
        return self._settings.jitter

    @jitter.setter
    def jitter(self, seconds: float) -> None:
        self._settings.jitter = seconds

    @property
    def url(self) -> str:
        """Return the server's URL as this machine reaches it, without a trailing slash."""
        if self._runner is None:
            raise RuntimeError("the emulator is not running: use it as a context manager")
        host, port = self._runner.addresses[0][:2]
        host = _local_address(host)
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{port}"

    @property
    def admin_url(self) -> str:
        """Return the URL under which other programs read and change the emulator, without a token."""
        return f"{self.url}{Admin.PREFIX}"

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        self._failures.raise_first(error)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        await self._start()
        try:
            yield
        finally:
            await self._stop()

    async def _start(self) -> None:
        if self._runner is not None:
            raise RuntimeError("the emulator is running already: enter it once, or make another one")
        app = web.Application(client_max_size=2**20)
        app.on_response_prepare.append(remove_headers)
        self._admin.install(app)
        for route in with_refusals(self._routes()):
            endpoint = self._handler.endpoint(route)
            app.router.add_route(route.method, route.path, endpoint)
            if route.authenticated:  # the others match any path
                app.router.add_route(route.method, f"{route.path}/", endpoint)  # old clients send the slash
        runner = await make_runner(app, self._failures)
        try:
            await self._listen(runner)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def _stop(self) -> None:
        if self._runner is not None:
            await accepted()
            await self._runner.cleanup()
            self._runner = None

    async def _listen(self, runner: web.BaseRunner) -> None:
        try:
            await self._site(runner).start()
        except OSError as error:
            if error.errno is not None:
                raise
        if not runner.addresses:
            raise _why_no_socket(self._address[0])

    def _site(self, runner: web.BaseRunner) -> web.BaseSite:
        host, port = self._address
        if host == "::" and socket.has_dualstack_ipv6():  # asyncio's own sockets would leave IPv4 out
            both = socket.create_server(self._address, family=socket.AF_INET6, dualstack_ipv6=True)
            return web.SockSite(runner, both, ssl_context=self._tls)
        return web.TCPSite(runner, host, port, ssl_context=self._tls)

    def _routes(self) -> tuple[Route, ...]:
        return (
            *Routes(self.images, self._links).all,
            *ActionRoutes(self.images, self.actions, self._links).all,
            *TransferRoutes(self.images, self.transfers).all,
        )

    def __enter__(self) -> Self:
        thread = ServingThread(self._running())
        thread.start()
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread = None
        self._failures.raise_first(error)

    def dump(self) -> dict[str, Any]:
        """Return the account as JSON data: images, imports, actions and transfers."""
        return {**self.images.dump(), "actions": self.actions.dump(), "transfers": self.transfers.dump()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Replace the account by a state that `dump` returned, of this emulator or another.

        Args:
            state: a whole state, or a part such as `{"images": [{"name": "golden"}]}`; missing fields of an
                image are filled in.

        Raises:
            ValueError: a field is wrong, or the parts contradict each other; the account is unchanged.
        """
        checked = parse_state(state)
        self.images.load(checked)
        self.actions.load(checked.actions)
        self.transfers.load(checked.transfers)

    def _pause(self) -> float:
        return self.latency + (self.jitter * self._dice.random() if self.jitter else 0.0)


def _why_no_socket(host: str) -> OSError:
    """Return why a server listens nowhere.

    asyncio skips addresses that it can make no socket for. From 3.13 on it says that none is left, not why.
    """
    try:
        for family, kind, *_ in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            socket.socket(family, kind).close()
    except OSError as error:
        return error
    return OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))


def _local_address(host: str) -> str:
    """Return the address under which this machine reaches a server that listens on this one."""
    if host == "0.0.0.0":  # noqa: S104
        return "127.0.0.1"
    if host == "::":
        return "127.0.0.1" if socket.has_dualstack_ipv6() else "::1"
    return host
