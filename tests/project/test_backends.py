"""The documentation's two web backends, started as processes, called over HTTP, and stopped."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web

from do_images_async.testing import ImagesEmulator
from tests.conftest import TOKEN
from tests.docs.programs import backend_aiohttp, backend_fastapi
from tests.support.programs import Program, running
from tests.support.servers import HANG, Server, eventually, image_reply, refusal, unused_port
from tests.support.slow import fewer

BACKENDS = ("backend_aiohttp.py", "backend_fastapi.py")
MINUTE = 250


@attrs.frozen
class Backend:
    """A running backend, and a session of a client that calls it."""

    program: Program
    session: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, dict[str, Any], str | None]:
        async with self.session.get(path) as answer:
            return answer.status, await answer.json(), answer.headers.get("Retry-After")

    async def health(self) -> dict[str, Any]:
        return (await self.get("/health"))[1]

    async def until_in_flight(self, calls: int) -> None:
        async with asyncio.timeout(10):
            while (await self.health())["in_flight"] != calls:  # noqa: ASYNC110  (another process)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(name: str, *, url: str, token: str) -> AsyncGenerator[Backend]:
    port = unused_port()
    async with (
        running(name, url=url, token=token, PORT=str(port)) as program,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        backend = Backend(program, session)
        async with asyncio.timeout(30):
            while True:
                try:
                    await backend.health()
                except aiohttp.ClientConnectionError:
                    assert program.process.returncode is None, (await program.errors).decode()
                    await asyncio.sleep(0.02)
                else:
                    break
        yield backend
        code, errors = await program.stop()
        assert [line for line in errors.splitlines() if "was answered 500" not in line] == []
        assert code in (0, -signal.SIGTERM)  # uvicorn raises the signal again when it has shut down


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKENDS)
async def test_requests_share_one_client_until_its_quota_is_spent(name: str) -> None:
    connections: Counter[object] = Counter()

    def note_connection(request: web.Request) -> None:
        assert request.transport is not None
        connections[request.transport.get_extra_info("peername")] += 1

    async with ImagesEmulator(images=3) as emulator:
        emulator.on_request.append(note_connection)
        private = [image["id"] for image in emulator.images if not image["public"]]
        async with serving(name, url=emulator.url, token=emulator.token) as backend:
            for _ in range(2):
                answers = await asyncio.gather(*(backend.get(f"/images/{private[n % 3]}") for n in range(20)))
                assert [(status, body["id"]) for status, body, _ in answers] == [
                    (200, private[n % 3]) for n in range(20)
                ]
            assert len(connections) <= 20, "the second wave must find the first one's connections"
            assert (await backend.get("/images/ubuntu-24-04-x64"))[1]["slug"] == "ubuntu-24-04-x64"
            assert (await backend.get("/images/1"))[:2] == (404, {"error": "no such image"})
            assert (await backend.get("/images/no%20slug"))[0] == 400
            assert await backend.health() == {"in_flight": 0, "tokens_left": MINUTE - 42}

            answers = await asyncio.gather(*(backend.get(f"/images/{private[0]}") for _ in range(240)))
            counts = Counter(status for status, _, _ in answers)
            # On a busy machine some wait longer for the first answers than the backend allows.
            assert counts[200] + counts[503] == 240
            assert counts[200] == MINUTE - 42
            waits = [int(wait or 0) for status, _, wait in answers if status == 503]
            assert min(waits) >= 1
            assert max(waits) <= 62, "the first tokens come back a minute after they went"
        assert len(emulator.requests) == 42 + counts[200]
        assert emulator.requests.count(status=429) == 0


@pytest.mark.parametrize("name", fewer(BACKENDS))
async def test_clients_that_leave_and_requests_that_are_refused(name: str, server: Server) -> None:
    answers = {
        "1": refusal(500),
        "2": image_reply(2),
        "3": refusal(429, headers={"retry-after": "300"}),
    }
    server.answer_with(lambda request: answers.get(request.path.rpartition("/")[2], HANG))
    async with serving(name, url=server.url, token=TOKEN) as backend:
        for _ in range(5):  # each successful answer allows one more request in flight
            await backend.get("/images/2")
        assert (await backend.get(f"/images/{'9' * 5000}"))[0] == 400, "more digits than int() takes"
        server.received.clear()
        visits = [asyncio.create_task(backend.get("/images/ubuntu-24-04-x64")) for _ in range(5)]
        await backend.until_in_flight(5)
        await eventually(lambda: len(server.received) == 5, within=20)
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        await backend.until_in_flight(0)
        await eventually(lambda: server.open_connections == 0, within=20)
        assert len(server.received) == 5, "a call that was cancelled is not sent again"
        assert (await backend.get("/images/1"))[:2] == (502, {"error": "the image service failed"})
        for image in ("3", "2"):  # refused by the API, then by the limiter that knows of it
            status, body, wait = await backend.get(f"/images/{image}")
            assert (status, body) == (503, {"error": "busy"})
            assert 240 < int(wait or 0) <= 310


async def test_a_mistake_of_the_backend_is_no_mistake_of_its_client(caplog: pytest.LogCaptureFixture) -> None:
    async def wrong(_: object) -> web.Response:
        raise ValueError("internals")

    app = web.Application(middlewares=[backend_aiohttp.errors_become_answers])
    app.router.add_get("/", wrong)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port := unused_port()).start()
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}") as answer:
        assert answer.status == 500
        assert "internals" not in await answer.text()
    await runner.cleanup()
    assert "internals" in caplog.text
    assert not {ValueError, Exception} & backend_fastapi.app.exception_handlers.keys()


async def test_under_gunicorn_a_client_that_leaves_stops_its_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    monkeypatch.setenv("DIGITALOCEAN_API_URL", server.url)
    server.script(HANG)
    runner = await backend_aiohttp.under_gunicorn()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port := unused_port()).start()
    async with aiohttp.ClientSession() as session:
        visit = asyncio.create_task(session.get(f"http://127.0.0.1:{port}/images/7"))
        await eventually(lambda: len(server.received) == 1)
        visit.cancel()
        await eventually(lambda: server.open_connections == 0)
    await runner.cleanup()
