"""The command `emulator`, which serves the API on a local socket until SIGTERM, SIGHUP or Ctrl-C."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from do_images_async.cli.checked import CheckedCommand
from do_images_async.cli.files import INPUT_FILE, OUTPUT_FILE
from do_images_async.cli.options import AMOUNT
from do_images_async.cli.output import write, write_file
from do_images_async.cli.running import check_files
from do_images_async.cli.signals import on_stopping
from do_images_async.cli.status import complain
from do_images_async.cli.text import counted

if TYPE_CHECKING:
    from do_images_async.testing import ImagesEmulator
    from do_images_async.testing.answers import Style
    from do_images_async.testing.certificates import Certificate

__all__ = ["cannot_listen", "emulator_command"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)|0", re.ASCII)
_DAY = 86_400.0
_IMAGES = 5000
_JOURNAL_LIMIT = 100_000  # a server that runs for days must not fill the memory
_EVERYWHERE = {"0.0.0.0": "all IPv4 addresses", "::": "all addresses"}  # noqa: S104
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def duration(value: str) -> float:
    """Return seconds from a number with a unit, such as 50ms, 1.5s or 2m; 0 needs none."""
    found = _DURATION.fullmatch(value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration with a unit; write it like 50ms, 1.5s or 2m.")
    seconds = float(found[1]) * _UNITS[found[2]] if found[1] else 0.0
    if seconds > _DAY:
        raise click.BadParameter(f"{value!r} is longer than a day, 1440m.")
    return seconds


def _name(value: str) -> str:
    """Return a host name or address as clients' requests have it."""
    return _checked_host(value, listening=False)


def _listening(value: str) -> str:
    """Return a host name or address to listen on; an IPv6 address may have a zone."""
    return _checked_host(value, listening=True)


def _checked_host(value: str, *, listening: bool) -> str:
    from do_images_async.testing.admin_access import host_name, listening_name  # a server, only needed here

    try:
        return listening_name(value) if listening else host_name(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


@attrs.frozen(kw_only=True)
class Serving:
    """The options of the command."""

    host: str
    port: int
    images: int | None
    seed: int
    tls: bool
    tls_names: tuple[str, ...]
    authority: Path | None
    http_names: tuple[str, ...]
    remote_admin: bool
    style: Style
    quota_minute: int
    quota_hour: int
    import_seconds: float
    latency: float
    jitter: float
    token: str | None
    scopes: tuple[str, ...]
    load: Path | None
    dump: Path | None

    def check(self) -> None:
        """Raise UsageError for options that exclude or need each other."""
        if self.authority is not None and not self.tls:
            raise click.UsageError("--ca belongs to --tls")
        if self.tls_names and not self.tls:
            raise click.UsageError("--tls-name belongs to --tls")
        if self.http_names and self.tls:
            raise click.UsageError("--http-name is for plain HTTP; with --tls, use --tls-name")
        if self.images is not None and self.load is not None:
            raise click.UsageError("--images is for an account without --load, which replaces all images")
        if self.dump is not None and not self.dump.parent.is_dir():
            raise click.UsageError(f"--dump: there is no directory {self.dump.parent}")


@click.command("emulator", cls=CheckedCommand)
@click.option(
    "--host",
    default="127.0.0.1",
    type=_listening,
    metavar="NAME",
    help="Address to listen on; 0.0.0.0 for all of IPv4, :: for all of IPv6 and IPv4.",
)
@click.option("--port", default=8080, type=click.IntRange(0, 65535), help="0 takes a free port.")
@click.option(
    "--images",
    type=click.IntRange(0, 1_000_000),
    help="Private images of the account; not with --load.",
    show_default=str(_IMAGES),
)
@click.option("--seed", default=7, help="What the images are drawn from, and which requests faults strike.")
@click.option("--tls", is_flag=True, help="Speak HTTPS, with a certificate made for this run.")
@click.option(
    "--tls-name",
    "tls_names",
    multiple=True,
    type=_name,
    metavar="NAME",
    help="With --tls: a host name or address by which clients reach it; repeatable.",
)
@click.option(
    "--ca",
    "authority",
    type=OUTPUT_FILE,
    help="With --tls: where to write the certificate that clients must trust.",
    show_default="a temporary file",
)
@click.option(
    "--http-name",
    "http_names",
    multiple=True,
    type=_name,
    metavar="NAME",
    help="Without --tls: a host name by which clients reach it, unencrypted; repeatable.",
)
@click.option("--remote-admin", is_flag=True, help="Let other machines use /_emulator, which needs no token.")
@click.option(
    "--style",
    default="documented",
    type=click.Choice(["documented", "observed"]),
    help="Answer as the documentation says, or as recordings of the service vary from it.",
)
@click.option(
    "--quota-minute", default=250, type=click.IntRange(0), help="Requests in any minute; 0 for no limit."
)
@click.option(
    "--quota-hour", default=5000, type=click.IntRange(0), help="Requests in any hour; 0 for no limit."
)
@click.option("--import-seconds", default=5.0, type=AMOUNT, help="How long an import takes.")
@click.option(
    "--latency",
    default="0ms",
    type=duration,
    metavar="TIME",
    help="Time before each request is handled: 50ms, 2s.",
)
@click.option(
    "--jitter",
    default="0ms",
    type=duration,
    metavar="TIME",
    help="Random time added to it, at most: 50ms, 2s.",
)
@click.option(
    "--token",
    envvar="DO_IMAGES_EMULATOR_TOKEN",
    show_envvar=True,
    help="The token to accept.",
    show_default="a new one, which is printed",
)
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="Limit the token, as to image:read; repeatable."
)
@click.option(
    "--load",
    type=INPUT_FILE,
    help="Start with the state in this JSON file.",
)
@click.option(
    "--dump",
    type=OUTPUT_FILE,
    help="Write the state here at the end, as JSON.",
)
def emulator_command(**options: Any) -> None:
    """Serve the Images API from this machine, for tests.

    Any client in any language can use it.

    It stops on SIGTERM, SIGHUP and Ctrl-C, and prints the number of responses. Other programs on this machine
    set faults, read the journal and dump or load the state under /_emulator, without a token.

    From another machine or container: name it with --tls-name or --http-name, and listen with --host 0.0.0.0.
    Clients trust the certificate through the environment variable SSL_CERT_FILE. With --http-name, Python
    clients need ImagesAPI(..., allow_insecure_http=True).

    \b
    Examples:
      do-images emulator --images 300 --latency 50ms
      do-images emulator --tls --ca ca.pem --quota-minute 0
      do-images emulator --host 0.0.0.0 --tls --tls-name emulator --ca ca.pem
      curl --json '{"status": 503, "path": "/v2/images/*", "times": 3}' localhost:8080/_emulator/faults
    """
    serving = Serving(**options)
    serving.check()
    check_files()
    with _certificate(serving) as (certificate, authority):
        asyncio.run(_serve(serving, certificate, authority))


async def _serve(serving: Serving, certificate: Certificate | None, authority: Path | None) -> None:
    emulator = _emulator(serving, certificate)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_stopping(loop, stopped.set)
    loop.set_exception_handler(_LoopErrors().handle)
    started = time.monotonic()
    async with AsyncExitStack() as running:
        try:
            await running.enter_async_context(emulator)
        except OSError as error:
            raise cannot_listen(f"{serving.host} port {serving.port}", error) from None
        _say(_welcome(serving, emulator, authority))
        await stopped.wait()
        try:
            await running.aclose()  # raises an error of the emulator's own, if there was one
        finally:
            _say([_farewell(emulator.served, time.monotonic() - started)])
            if serving.dump is not None:
                write_file(serving.dump, json.dumps(emulator.dump()) + "\n")


class _LoopErrors:
    """The errors of the event loop: one line for a lack of descriptors, which asyncio finds without end."""

    def __init__(self) -> None:
        self._said = False

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif not self._said:
            self._said = True
            complain(f"a client waits for a connection: {error.strerror}; `ulimit -n` sets how many")


def cannot_listen(where: str, error: OSError) -> click.ClickException:
    """Return the error of a server that can't listen, without the address that asyncio adds."""
    if error.errno is None or isinstance(error, socket.gaierror):
        reason = error.strerror or str(error)
    else:
        reason = os.strerror(error.errno)
    return click.ClickException(f"can't listen on {where}: {reason}")


def _emulator(serving: Serving, certificate: Certificate | None) -> ImagesEmulator:
    from do_images_async.testing import ImagesEmulator, Quota  # a server, which no other command needs

    limits = ((serving.quota_minute, 60.0), (serving.quota_hour, 3600.0))
    images = _IMAGES if serving.images is None else serving.images
    try:
        emulator = ImagesEmulator(
            images=0 if serving.load else images,
            seed=serving.seed,
            quotas=[Quota(limit, seconds) for limit, seconds in limits if limit] or None,
            import_seconds=serving.import_seconds,
            latency=serving.latency,
            jitter=serving.jitter,
            token=serving.token,
            host=serving.host,
            port=serving.port,
            tls=certificate.server if certificate else None,
            journal_limit=_JOURNAL_LIMIT,
            style=serving.style,
            names=serving.tls_names or serving.http_names,
            remote_admin=serving.remote_admin,
        )
        if serving.scopes:
            emulator.tokens.issue(token=emulator.token, scopes=serving.scopes)
    except (TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    try:
        if serving.load is not None:
            emulator.load(json.loads(serving.load.read_bytes()))
    except RecursionError:
        raise click.ClickException(f"--load {serving.load}: it is nested too deeply") from None
    except (TypeError, ValueError, OSError) as error:
        raise click.ClickException(f"--load {serving.load}: {error}") from None
    return emulator


@contextmanager
def _certificate(serving: Serving) -> Generator[tuple[Certificate | None, Path | None]]:
    """Make the server's certificate and the file that its clients must trust, until the block ends."""
    if not serving.tls:
        yield None, None
        return
    from do_images_async.testing.certificates import Certificate

    own = {"localhost", "127.0.0.1", "::1", *({serving.host} - set(_EVERYWHERE))}
    names = own.union(serving.tls_names)
    try:
        certificate = Certificate.issue(*sorted(names))
    except ModuleNotFoundError as error:
        raise click.ClickException(str(error)) from None
    except ValueError as error:
        raise click.UsageError(f"--tls-name: {error}") from None
    with tempfile.TemporaryDirectory(prefix="do-images-emulator-") as directory:
        path = serving.authority or Path(directory) / "ca.pem"
        write_file(path, certificate.authority.decode())
        yield certificate, path


def _welcome(serving: Serving, emulator: ImagesEmulator, authority: Path | None) -> Iterator[str]:
    where = _EVERYWHERE.get(serving.host)
    on = "" if where is None else f" on {where}, here"
    yield f"Serving {counted(len(emulator.images), 'image')}{on} at {emulator.url}"
    port = emulator.url.rpartition(":")[2]
    for name in serving.tls_names or serving.http_names:
        shown = f"[{name}]" if ":" in name else name
        yield f"  name   {'https' if serving.tls else 'http'}://{shown}:{port}"
    # A token given by the user may be a real one by mistake.
    yield f"  token  {emulator.token if serving.token is None else '(yours)'}"
    yield f"  admin  {emulator.admin_url}"
    if authority is not None:
        yield f"  trust  {authority}"


def _farewell(statuses: Counter[int | None], seconds: float) -> str:
    total = statuses.total()
    answers = [
        f"{number:,} unanswered" if status is None else f"{number:,} with {status}"
        for status, number in sorted(statuses.items(), key=lambda item: item[0] or 0)
    ]
    detail = f": {', '.join(answers)}" if answers else ""
    return f"Served {counted(total, 'request')} in {seconds:,.1f} s{detail}."


def _say(lines: Iterable[str]) -> None:
    write("".join(f"{line}\n" for line in lines))
