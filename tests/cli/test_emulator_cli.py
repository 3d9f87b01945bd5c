"""`do-images emulator` as a process: its answers, its output, and the files that it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import aiohttp
import attrs
import pytest
import yaml
from aiohttp.test_utils import make_mocked_request

from do_images_async import ImagesAPI, errors
from do_images_async.cli.app import run
from do_images_async.cli.emulator import duration
from do_images_async.cli.status import Exit
from do_images_async.testing import ImagesEmulator
from do_images_async.testing.failures import Failures
from tests.support.coverage import unmeasured
from tests.support.servers import need_ipv6, unused_port
from tests.support.slow import fewer


@attrs.define
class Served:
    """A running emulator, and its first lines of output."""

    process: asyncio.subprocess.Process
    said: str

    def value(self, name: str) -> str:
        found = re.search(rf"\b{name} +(\S.*)$", self.said, re.MULTILINE)
        assert found, self.said
        return found[1]

    async def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        said, complaints = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, said.decode(), complaints.decode()


@contextlib.asynccontextmanager
async def serving(*options: str, limit: int | None = None) -> AsyncGenerator[Served]:
    """Run the command; `limit` is the largest file that it may write, in bytes."""
    command = (sys.executable, "-W", "error", "-m", "do_images_async", "emulator", "--port", "0", *options)
    if limit is not None:
        command = ("bash", "-c", f'ulimit -f {limit // 1024} && exec "$@"', "bash", *command)
    process = await asyncio.create_subprocess_exec(
        *command,
        env=None if limit is None else unmeasured(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    said = ""
    try:
        while "  admin" not in said or ("--tls" in options and "  trust" not in said):
            line = (await process.stdout.readline()).decode()
            if not line:
                pytest.fail(f"it ended: {said}{(await process.communicate())[1].decode()}")
            said += line
        yield Served(process, said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize("number", fewer([signal.SIGHUP, signal.SIGTERM, signal.SIGINT]))
async def test_it_serves_until_it_is_told_to_stop_and_says_what(number: signal.Signals) -> None:
    async with serving("--images", "30", "--seed", "7") as served:
        assert served.said.startswith("Serving 53 images at http://127.0.0.1:")
        async with ImagesAPI(served.value("token"), base_url=served.value("at")) as api:
            listed = [image async for image in api.list(private=True)]
            with pytest.raises(errors.NotFoundError):
                await api.get(1)
        code, said, complaints = await served.stop(number)
    assert (code, complaints) == (0, "")
    assert re.fullmatch(r"Served 2 requests in [0-9.]+ s: 1 with 200, 1 with 404\.\n", said)
    assert [image.id for image in listed] == [
        image["id"] for image in ImagesEmulator(images=30, seed=7).images if not image["public"]
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="a process's limits can't be set")
async def test_that_it_has_no_file_descriptor_left_is_said_once() -> None:
    async with serving("--images", "0") as served:
        before = resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        _, client = await asyncio.open_connection("127.0.0.1", int(served.value("at").rpartition(":")[2]))
        assert served.process.stderr
        line = (await served.process.stderr.readline()).decode()
        # At its end it may write a file again, as a measurement of coverage does.
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, before)
        code, _, more = await served.stop()
        client.close()
    assert "a client waits for a connection: Too many open files; `ulimit -n`" in line
    assert (code, more) == (0, "")


async def test_it_stops_at_once_though_a_client_waits() -> None:
    async with serving("--images", "0") as served, aiohttp.ClientSession() as session:
        fault = {"broken": "stall", "times": None}
        async with session.post(f"{served.value('admin')}/faults", json=fault) as response:
            assert response.status == 201
        waiting = asyncio.create_task(session.post(f"{served.value('at')}/v2/images"))
        count = 0
        while count == 0:
            async with session.get(f"{served.value('admin')}/requests") as response:
                count = (await response.json())["count"]
        code, said, complaints = await served.stop()
        with pytest.raises(aiohttp.ClientError):
            await waiting
    assert (code, complaints) == (0, "")
    assert "Served 1 request in" in said
    assert "1 unanswered." in said


async def test_tls_and_a_token_of_ones_own(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    options = (
        "--tls",
        "--ca",
        str(authority),
        "--token",
        "dop_v1_secret",
        "--scope",
        "image:read",
        "--images",
        "30",
    )
    async with serving(*options) as served:
        assert "dop_v1_secret" not in served.said
        assert served.value("trust") == str(authority)
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=authority))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            ImagesAPI("dop_v1_secret", base_url=served.value("at"), session=session) as api,
        ):
            page = await api.list_page(private=True)
            assert page.total == 30
            with pytest.raises(errors.PermissionDeniedError, match="image:delete"):
                await api.delete(page.images[0].id)
        code, _, complaints = await served.stop()
    assert (code, complaints) == (0, "")


@pytest.mark.slow
async def test_a_temporary_certificate_goes_with_the_server() -> None:
    async with serving("--tls", "--images", "0") as served:
        authority = Path(served.value("trust"))
        assert authority.exists()  # noqa: ASYNC240
        await served.stop()
    assert not authority.parent.exists()


async def test_one_port_for_ipv6_and_ipv4_under_names_with_brackets() -> None:
    need_ipv6()
    async with (
        serving("--images", "0", "--host", "::", "--http-name", "fd00:0::7") as served,
        aiohttp.ClientSession() as session,
    ):
        port = served.value("at").rpartition(":")[2]
        assert served.said.startswith("Serving 23 images on all addresses, here at http://127.0.0.1:")
        assert served.value("name") == f"http://[fd00::7]:{port}"
        for host in ("[::1]", "127.0.0.1", "localhost"):
            async with session.get(f"http://{host}:{port}/_emulator") as response:
                assert response.status == 200
        named = {"Host": f"[fd00::7]:{port}"}
        async with session.get(f"http://127.0.0.1:{port}/_emulator", headers=named) as response:
            assert response.status == 200


async def test_quota_latency_imports_a_loaded_state_and_the_observed_style(tmp_path: Path) -> None:
    dump = tmp_path / "state.json"
    options = ("--quota-minute", "3", "--quota-hour", "0", "--latency", "50ms", "--import-seconds", "600")
    async with serving(*options, "--images", "2", "--dump", str(dump)) as served:
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {served.value('token')}"}
        ) as session:
            statuses: list[int] = []
            limits: list[str] = []
            started = loop.time()
            body = {"name": "new", "url": "https://a.example/b.img", "region": "nyc3"}
            for _ in range(4):
                async with session.post(f"{served.value('at')}/v2/images", json=body) as response:
                    statuses.append(response.status)
                    limits.append(response.headers["ratelimit-limit"])
            assert statuses == [202, 202, 202, 429]
            assert limits == ["3"] * 4
            assert loop.time() - started >= 0.2
        code, _, complaints = await served.stop()
        assert (code, complaints) == (0, "")
    state = json.loads(dump.read_text(encoding="utf-8"))
    assert [image["status"] for image in state["images"][-3:]] == ["NEW"] * 3

    async with serving("--load", str(dump), "--style", "observed") as served:
        assert served.said.startswith("Serving 28 images")
        async with ImagesAPI(served.value("token"), base_url=served.value("at")) as api:
            assert [each.name async for each in api.list(private=True)].count("new") == 3
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{served.value('at')}/v2/images") as answer,
        ):
            assert (answer.status, (await answer.json())["id"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency", "fast"], "'--latency': 'fast' is no duration with a unit; write it like 50ms, 1.5s"),
        (["--latency", "-5ms"], "no duration"),
        (
            ["--latency", "50"],
            "'--latency': '50' is no duration with a unit; write it like 50ms, 1.5s or 2m.",
        ),
        (
            ["--jitter", "0.5"],
            "'--jitter': '0.5' is no duration with a unit; write it like 50ms, 1.5s or 2m.",
        ),
        (["--ca", "x.pem"], "--ca belongs to --tls"),
        (["--tls-name", "emulator"], "--tls-name belongs to --tls"),
        (["--tls", "--http-name", "emulator"], "--http-name is for plain HTTP; with --tls, use --tls-name"),
        (["--tls", "--tls-name", "a..b"], "'--tls-name': 'a..b' is no host name or address"),
        (["--http-name", "a b"], "'--http-name': 'a b' is no host name or address; write it like emulator"),
        (["--http-name", "emulator:8080"], "'--http-name': 'emulator:8080' is no host name or address"),
        (["--tls", "--host", "a b"], "'--host': 'a b' is no host name or address"),
        (["--host", ""], "'--host': '' is no host name or address"),
        (["--style", "real"], "--style"),
        (["--port", "70000"], "--port"),
        (["--images", "0", "--scope", "everything"], "scopes must be like image:read"),
        (["--load", "/no/such/file"], "--load"),
        (["--load", __file__, "--images", "0"], "--images is for an account without --load"),
        (["--latency", "2000m"], "'--latency': '2000m' is longer than a day"),
        (["--import-seconds", "1e10"], "import_seconds must be a number from 0 to 1,000,000,000"),
        (["--token", "a b"], "token must be printable ASCII without spaces"),
        (["--host", "192.0.2.1", "--images", "0"], "can't listen on 192.0.2.1 port 8080"),
    ],
)
def test_what_can_not_be_served(capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert run(["emulator", *options]) == 2
    assert message in capsys.readouterr().err


def test_zero_is_a_duration_without_a_unit() -> None:
    assert [duration(each) for each in ("0", "0ms", "50ms", "1.5s", "2m")] == [0, 0, 0.05, 1.5, 120]


def test_a_port_that_is_taken_is_said_with_its_address_once(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["emulator", "--images", "0", "--port", port]) == 2
    assert (
        capsys.readouterr().err == f"Error: can't listen on 127.0.0.1 port {port}: Address already in use\n"
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [{"nome": "x"}]}', "\xff"])
def test_a_file_that_holds_no_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    monkeypatch.chdir(tmp_path)  # its own name may look like a token, which is masked
    Path("state.json").write_text(content, encoding="latin-1")
    assert run(["emulator", "--load", "state.json"]) == 2
    assert capsys.readouterr().err.startswith("Error: --load state.json: ")


def test_without_trustme_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert run(["emulator", "--tls", "--port", str(unused_port())]) == 2
    assert "TLS needs the extra testing: pip install trustme" in capsys.readouterr().err


def test_files_that_can_not_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "none" / "ca.pem"
    assert run(["emulator", "--tls", "--ca", str(missing)]) == Exit.IO_ERROR
    assert f"{missing} could not be written" in capsys.readouterr().err
    assert run(["emulator", "--images", "0", "--dump", str(tmp_path / "none" / "state.json")]) == 2
    assert "--dump: there is no directory" in capsys.readouterr().err


def test_an_error_of_the_emulator_itself_loses_neither_its_state_nor_its_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_at_once(_: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
        stop()

    failures, dump = Failures(), tmp_path / "state.json"
    failures.note(ZeroDivisionError(), make_mocked_request("GET", "/v2/images"))
    monkeypatch.setattr("do_images_async.testing.emulator.Failures", lambda: failures)
    monkeypatch.setattr("do_images_async.cli.emulator.on_stopping", stop_at_once)
    options = ("--images", "0", "--port", str(unused_port()), "--dump", str(dump))
    assert run(["emulator", *options]) == Exit.INTERNAL_ERROR
    assert len(json.loads(dump.read_bytes())["images"]) == 23
    said = capsys.readouterr()
    assert "Served 0 requests" in said.out
    assert "ZeroDivisionError" in said.err


@pytest.mark.slow
async def test_a_dump_on_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """Limit files to 100 KiB, as on a full disk; the state of 5,000 images is larger."""
    dump = tmp_path / "state.json"
    dump.write_text("the old state", encoding="utf-8")
    async with serving("--dump", str(dump), limit=100 * 1024) as served:
        code, _, complaints = await served.stop()
    assert code == Exit.IO_ERROR
    assert complaints.count("\n") == 1
    assert "state.json could not be written: File too large" in complaints
    assert dump.read_text(encoding="utf-8") == "the old state"
    assert os.listdir(tmp_path) == [dump.name]  # noqa: PTH208


# --- from another container: the emulator has an address and a name of its own ---

PAGE = (Path(__file__).parents[1] / "docs" / "pages" / "howto" / "emulator.md").read_text(encoding="utf-8")
COMPOSE_FILES = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
RECIPES = {
    name: yaml.safe_load(text)["services"] for name, text in zip(("tls", "http"), COMPOSE_FILES, strict=True)
}
(PROGRAM,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
OTHER_ADDRESS = "127.0.0.2"
RESOLVES = f"""
import socket
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: resolve(
    {OTHER_ADDRESS!r} if host == "emulator" else host, *rest, **more
)
"""
"""The name resolution of a container network, as a program."""


@pytest.fixture
def other_address() -> str:
    with socket.socket() as probe:
        try:
            probe.bind((OTHER_ADDRESS, 0))
        except OSError:
            pytest.skip(f"the loopback has no address {OTHER_ADDRESS} here")
    return OTHER_ADDRESS


def in_place(value: str, served: Served, tmp_path: Path) -> str:
    """Return a value of the recipe's environment with this test's port and directory."""
    port = served.value("at").rpartition(":")[2]
    return re.sub(r":\d+$", f":{port}", value).replace("/certs", str(tmp_path))


def is_healthy(check: list[str], where: str) -> bool:
    """Run a recipe's health check for an address and port."""
    assert check[:3] == ["CMD", "python", "-c"]
    host, _, port = where.partition(":")
    try:
        exec(re.sub(r"'localhost', \d+", f"{host!r}, {port}", check[3]), {})  # noqa: S102  (ours)
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("name", fewer(list(RECIPES)))
async def test_the_recipe_for_containers(name: str, tmp_path: Path, other_address: str) -> None:
    services = RECIPES[name]
    (tmp_path / "ca.pem").write_text("of the last run", encoding="utf-8")
    command = [each.replace("/certs", str(tmp_path)) for each in services["emulator"]["command"]]
    assert command[:5] == ["do-images", "emulator", "--host", "0.0.0.0", "--port"]  # noqa: S104
    async with serving("--host", other_address, *command[6:]) as served:  # and a free port
        assert re.search(r"^  name   https?://emulator:\d+$", served.said, re.MULTILINE)
        assert services["tests"]["depends_on"] == {"emulator": {"condition": "service_healthy"}}
        check = services["emulator"]["healthcheck"]["test"]
        assert not is_healthy(check, f"{other_address}:{unused_port()}")
        assert is_healthy(check, served.value("at").rpartition("/")[2])
        environment = {
            key: in_place(value, served, tmp_path) for key, value in services["tests"]["environment"].items()
        }
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RESOLVES + PROGRAM),
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, complaints = await program.communicate()
        assert program.returncode == 0, complaints.decode()
        assert printed.decode() == "300 private images\n"
        _, _, complaint = await served.stop()
        assert complaint == ""


async def test_a_client_without_the_certificate_does_not_trust_the_emulator(
    tmp_path: Path, other_address: str
) -> None:
    options = ("--tls", "--tls-name", "emulator", "--ca", str(tmp_path / "ca.pem"), "--images", "0")
    async with serving(*options, "--host", other_address) as served:
        port = int(served.value("at").rpartition(":")[2])
        trusted = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        for name, good in (("emulator", True), ("localhost", True), ("other", False)):
            opening = asyncio.open_connection(other_address, port, ssl=trusted, server_hostname=name)
            if good:
                _, writer = await opening
                writer.close()
                await writer.wait_closed()
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await opening
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(
                other_address, port, ssl=ssl.create_default_context(), server_hostname="emulator"
            )


def own_address() -> str | None:
    """Return an address of this machine that is not the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


@pytest.mark.parametrize("remote_admin", fewer([False, True]))
async def test_other_machines_administer_it_only_on_request(remote_admin: bool) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address beside the loopback's")
    options = ("--images", "0", "--host", "0.0.0.0", *["--remote-admin"] * remote_admin)  # noqa: S104
    async with serving(*options) as served, aiohttp.ClientSession() as session:
        assert served.said.startswith("Serving 23 images on all IPv4 addresses, here at http://127.0.0.1:")
        assert "  admin  http://127.0.0.1:" in served.said
        port = served.value("at").rpartition(":")[2]
        async with session.get(f"http://{address}:{port}/_emulator") as response:
            assert response.status == (200 if remote_admin else 403)
        async with session.get(f"http://{address}:{port}/v2/images") as response:
            assert response.status == 401
