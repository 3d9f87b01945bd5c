"""The command's connection to an account: proxy, timeout, retries, log, and messages about tokens."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from do_images_async.testing import Fault, ImagesEmulator
from tests.conftest import TOKEN
from tests.support.cli_processes import account, do_images, do_images_here, environment
from tests.support.logs import without_quota_wait
from tests.support.servers import HANG, Server, listing, unused_port
from tests.support.slow import fewer

GET = ("get", "ubuntu-24-04-x64", "--columns", "Slug", "--no-header")


class Proxy:
    """A proxy that records each request and refuses it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers = ""
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readline()).decode().strip())
        self.headers = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    made = Proxy()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield made


API = {"DIGITALOCEAN_TOKEN": TOKEN, "DIGITALOCEAN_API_URL": "https://api.example.com"}


async def test_https_proxy_is_honoured(proxy: Proxy) -> None:
    ended = await do_images_here(*GET, "--retries", "0", HTTPS_PROXY=proxy.url, **API)
    assert ended.status == 3
    assert proxy.asked == ["CONNECT api.example.com:443 HTTP/1.1"]


async def test_an_option_comes_before_the_variable_and_no_proxy_is_heeded(proxy: Proxy) -> None:
    nobody = f"http://127.0.0.1:{unused_port()}"
    await do_images_here(*GET, "--retries", "0", "--proxy", proxy.url, HTTPS_PROXY=nobody, **API)
    assert len(proxy.asked) == 1
    async with ImagesEmulator(images=1, quotas=None) as emulator:
        where = account(emulator, emulator.token)
        direct = await do_images_here(*GET, HTTPS_PROXY=nobody, **where)  # this machine's http
        assert (direct.status, direct.stderr) == (0, "")
        there = await do_images_here(*GET, "--proxy", "", **where)
        assert there.status == 0
    excepted = {"NO_PROXY": "api.example.com", "HTTPS_PROXY": proxy.url}
    await do_images_here(*GET, "--retries", "0", "--timeout", "0.2", **excepted, **API)
    assert len(proxy.asked) == 1


async def test_netrc_is_never_read(proxy: Proxy, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password netrc-secret\n", encoding="utf-8")
    ended = await do_images_here(*GET, "--retries", "0", NETRC=str(netrc), HTTPS_PROXY=proxy.url, **API)
    assert ended.status == 3
    assert len(proxy.asked) == 1
    assert "authorization" not in proxy.headers.lower()


async def test_a_wrong_proxy_is_wrong_usage_without_its_password() -> None:
    ended = await do_images_here(*GET, "--proxy", "ftp://me:pass-word@proxy", **API)
    assert (ended.status, ended.stdout) == (2, "")
    assert "--proxy must be the address of an HTTP proxy" in ended.stderr
    assert "pass-word" not in ended.stderr


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
async def test_a_proxy_of_another_kind_is_refused_by_the_name_of_its_variable(name: str) -> None:
    ended = await do_images_here(*GET, **{name: "socks5://me:pass-word@proxy:1080"}, **API)
    assert (ended.status, ended.stdout) == (2, "")
    assert f"Error: {name} must be the address of an HTTP proxy" in ended.stderr
    assert "SOCKS" in ended.stderr
    assert "pass-word" not in ended.stderr


async def test_timeout_and_retries(server: Server) -> None:
    server.answer_with(lambda _: HANG)
    ended = await do_images_here("get", "7", "--timeout", "0.1", "--retries", "1", **account(server))
    assert ended.status == 3
    assert "0.1 s" in ended.stderr
    assert len(server.received) == 2


@pytest.mark.parametrize("how", fewer(["option", "variable"]))
async def test_a_log_shows_attempts_and_no_token(how: str) -> None:
    async with ImagesEmulator(images=1, quotas=None) as emulator:
        emulator.faults.add(Fault(status=503, times=1))
        where = account(emulator, emulator.token)
        more = ("-v",) if how == "option" else ()
        ended = await do_images(*GET, *more, **where, **({} if more else {"DO_IMAGES_LOG": "debug"}))
    assert (ended.status, ended.stdout) == (0, "ubuntu-24-04-x64\n")
    first, second = ended.stderr.splitlines()
    assert "attempt 1 failed, " in without_quota_wait(first)
    assert "503" in first
    assert "attempt 2 was answered 200" in second
    assert emulator.token not in ended.stderr


async def test_an_unknown_level_is_wrong_usage() -> None:
    ended = await do_images_here(*GET, DO_IMAGES_LOG="loud", **API)
    assert ended.status == 2
    assert "DO_IMAGES_LOG must be one of debug, info, warning, error" in ended.stderr


# --- tokens ---


@pytest.mark.parametrize("command", [("list",), ("get", "7"), ("delete", "7", "-y"), ("audit",)])
async def test_a_refused_token_is_named_by_its_origin(command: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="utf-8")
    async with ImagesEmulator(images=1, quotas=None) as emulator:
        ended = await do_images_here(*command, **account(emulator))
        assert ended.status == 3
        assert ended.stderr.endswith("; the token came from DIGITALOCEAN_TOKEN\n")
        ended = await do_images_here(*command, "--token-file", str(file), **account(emulator))
        assert ended.stderr.endswith(f"; the token came from --token-file {file}\n")
    assert TOKEN not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "--account", f"prod={TOKEN}"],
        ["list", "--token-file", TOKEN],
        ["list", "--context", TOKEN],
        ["list", TOKEN],
        [TOKEN],
        ["list", f"--{TOKEN}"],
        ["get", "-o", TOKEN],
        ["delete", TOKEN],
        ["list", "--timeout", TOKEN],
        ["audit", "--baseline", TOKEN],
        ["list", "a1" * 30],
    ],
)
async def test_a_token_in_the_wrong_place_is_masked(arguments: list[str]) -> None:
    for variables in ({}, {"DIGITALOCEAN_TOKEN": TOKEN}):
        ended = await do_images_here(*arguments, **variables)
        assert (ended.status, ended.stdout) == (2, "")
        for secret in (TOKEN, TOKEN[10:40], "a1" * 10):
            assert secret not in ended.stderr


@pytest.mark.parametrize(
    "config",
    [
        "a: &a [x, x, x]\nb: &b [*a, *a, *a]\n" + "c: &c [*b, *b, *b]\n" * 1 + "context: *c\n",
        "a0: &a0 {x: y}\n"
        + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40)),
        "access-token: " + "[" * 800,
        "expires: 2026-99-99\n",
        "auth-contexts: {? [a] : b}\n",
    ],
    ids=["aliases", "merges", "nested", "date", "key"],
)
async def test_a_strange_configuration_of_doctl_is_one_line_that_names_it(
    config: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(config, encoding="utf-8")
    ended = await do_images_here("list", DIGITALOCEAN_CONFIG=str(path))
    assert (ended.status, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert str(path) in ended.stderr


# --- delete ---


async def test_delete_takes_ids_from_stdin_and_reports_in_json() -> None:
    async with ImagesEmulator(images=30, quotas=None) as emulator:
        where = account(emulator, emulator.token)
        ids = [each["id"] for each in emulator.images if not each["public"]][:3]
        words = f"{ids[0]}\n{ids[1]}, {ids[0]}\n"
        arguments = ("delete", "-", str(ids[2]), "-o", "json")
        planned = await do_images_here(*arguments, "--dry-run", stdin=words, **where)
        assert [(each["id"], each["deleted"]) for each in json.loads(planned.stdout)] == [
            (number, False) for number in ids
        ]
        ended = await do_images_here(*arguments, "--yes", stdin=words, **where)
        assert (ended.status, ended.stderr) == (0, "")
        assert [(each["id"], each["deleted"]) for each in json.loads(ended.stdout)] == [
            (number, True) for number in ids
        ]
        assert not set(ids) & {each["id"] for each in emulator.images}
        wrong = await do_images_here("delete", "-", "-y", stdin="7 x", **where)
        assert (wrong.status, wrong.stdout) == (2, "")
        assert "'x' is no id of an image" in wrong.stderr


async def test_delete_takes_a_public_image_only_if_it_is_told_to(server: Server) -> None:
    server.answer_with(listing(1))
    async with ImagesEmulator(images=3, quotas=None) as emulator:
        public = str(next(each["id"] for each in emulator.images if each["public"]))
        where = account(emulator, emulator.token)
        refused = await do_images_here("delete", public, "-y", **where)
        assert (refused.status, emulator.requests.count("DELETE")) == (3, 0)
        await do_images_here("delete", public, "-y", "--allow-public", **where)
        assert emulator.requests.count("DELETE") == 1


@pytest.mark.parametrize(
    ("files", "arguments"),
    fewer(
        [
            (6, ("emulator", "--images", "5", "--port", "0")),
            *((files, ("audit", "--demo", "--images", "5")) for files in (12, 8, 6)),
        ],
        2,
    ),
)
async def test_a_process_that_may_open_too_few_files_says_so_in_one_line(
    files: int, arguments: tuple[str, ...]
) -> None:
    ended = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"),
        *(sys.executable, "-m", "do_images_async", *arguments),
        env=environment(),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await ended.communicate()
    assert ended.returncode == 3
    assert stderr.decode() == (
        "do-images: Too many open files: the command needs 12 more at once; see `ulimit -n`\n"
    )
