"""Signals that arrive around a question, or when a command has done its work: the status says it."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import sys
from asyncio.subprocess import PIPE

import pytest

from do_images_async.testing import Fault, ImagesEmulator
from tests.support.cli_processes import account, environment, pruning_into_a_pipe
from tests.support.slow import fewer

STOPPING = fewer([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
DEMO = ("audit", "--demo", "--images", "10", "-q", "-o", "json")


async def python(program: str, *arguments: str) -> tuple[int | None, bytes, bytes]:
    """Run a program that calls the command's `main`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments), env=environment(), stdout=PIPE, stderr=PIPE
    )
    stdout, stderr = await process.communicate()
    return process.returncode, stdout, stderr


@pytest.mark.parametrize("number", STOPPING)
async def test_a_signal_after_the_result_changes_nothing(number: signal.Signals) -> None:
    program = (
        "import atexit, os, sys\n"
        "from do_images_async.cli import main\n"
        f"atexit.register(os.kill, os.getpid(), {number:d})\n"
        "status = main()\n"
        f"os.kill(os.getpid(), {number:d})\n"
        "sys.exit(status)"
    )
    status, stdout, stderr = await python(program, *DEMO)
    assert (status, stderr) == (0, b"")
    assert stdout.endswith(b"}\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("command", fewer([["update", "--image-name", "new"], ["delete", "--yes"], ["get"]]))
async def test_ctrl_c_ends_the_loop_of_a_shell(command: list[str]) -> None:
    """Bash goes on with the next image unless the command has died of the signal."""
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        images = [str(emulator.images.add(name="old")) for _ in range(3)]
        emulator.faults.add(Fault(delay=0.5, times=None))
        program = f'for image in {" ".join(images)}; do "$@" "$image"; echo "ended with $?"; done'
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", program, "bash", sys.executable, "-m", "do_images_async", *command),
            env=environment(**account(emulator, emulator.token)),
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        emulator.on_request.append(lambda _: os.killpg(process.pid, signal.SIGINT))
        stdout, stderr = await process.communicate()
        assert (process.returncode, b"ended with" in stdout) == (-signal.SIGINT, False), stderr
        assert not any(entry.path.endswith(images[1]) for entry in emulator.requests)


@pytest.mark.parametrize("number", STOPPING)
async def test_a_signal_while_the_event_loop_ends_is_an_interruption(number: signal.Signals) -> None:
    """At the end of the loop the signal's handler is the system's for a moment, which kills."""
    program = (
        "import os, signal, sys\n"
        "change, ends = signal.signal, []\n"
        "def changed(number, handler):\n"
        "    before = change(number, handler)\n"
        f"    if ends and number == {number:d} and handler != signal.SIG_IGN:\n"
        f"        os.kill(os.getpid(), {number:d})\n"
        "    return before\n"
        "signal.signal = changed  # before an event loop is imported\n"
        "from do_images_async.cli import main, running\n"
        "start = running.on_stopping\n"
        "running.on_stopping = lambda *given: (start(*given), ends.append(True))[0]\n"
        "sys.exit(main())"
    )
    status, stdout, stderr = await python(program, *DEMO)
    assert (status, stdout) == (-number, b""), stderr
    assert stderr.strip() == b"do-images: interrupted before it was complete"


@pytest.mark.parametrize("number", STOPPING)
async def test_a_report_that_is_interrupted_still_tells_what_was_deleted(number: signal.Signals) -> None:
    async with pruning_into_a_pipe() as (emulator, process, reader):
        assert await asyncio.to_thread(os.read, reader, 1) == b"{"
        process.send_signal(number)
        _, stderr = await process.communicate()
        os.close(reader)
        assert process.returncode == -number
        assert stderr.startswith(b"do-images: interrupted; 4 of 4 images deleted")
        assert emulator.requests.count("DELETE") == 4


AROUND_THE_QUESTION = {
    "when the images are read": (
        "from do_images_async.cli.deletion import Deletion\n"
        "look_up = Deletion.look_up\n"
        "async def looked_up(*given):\n"
        "    await look_up(*given)\n"
        "    kill()\n"
        "Deletion.look_up = looked_up\n"
    ),
    # Another thread takes it, so that a read of the main thread goes on, as if it came just before the read.
    "while it waits for the answer": (
        "import threading\n"
        "def answered():\n"
        "    os.read(asked, 1)\n"
        "    signal.pthread_kill(threading.get_ident(), number)\n"
        "threading.Thread(target=answered, daemon=True).start()\n"
    ),
    "when the answer is there": (
        "from do_images_async.cli import images, running\n"
        "start = running.on_stopping\n"
        "def killed(*given):\n"
        "    kill()\n"
        "    return start(*given)\n"
        "def confirm(*given):\n"
        "    running.on_stopping = killed\n"
        "images.confirm = confirm\n"
    ),
}


@pytest.mark.parametrize("number", fewer([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
@pytest.mark.parametrize("moment", AROUND_THE_QUESTION)
async def test_a_signal_around_the_question_deletes_nothing(moment: str, number: signal.Signals) -> None:
    keys, keys_side = pty.openpty()
    reader, writer = os.pipe()
    program = (
        "import os, signal, sys\n"
        f"number, asked = {number:d}, {reader}\n"
        "kill = lambda: os.kill(os.getpid(), number)\n"
        "from do_images_async.cli import main\n"
        f"{AROUND_THE_QUESTION[moment]}"
        "sys.exit(main())"
    )
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        image = emulator.images.add(name="old")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, "delete", str(image), "-q"),
            env=environment(**account(emulator, emulator.token)),
            stdin=keys_side,
            stdout=PIPE,
            stderr=PIPE,
            pass_fds=[reader],
        )
        os.close(keys_side)
        os.close(reader)
        assert process.stdout is not None
        assert process.stderr is not None
        told = b""
        while b"[y/N]" not in told and (part := await process.stderr.read(100)):
            told += part
        os.close(writer)
        told += await process.stderr.read()
        await process.wait()
        assert (process.returncode, await process.stdout.read()) == (-number, b""), told
        assert emulator.requests.count("DELETE") == 0
    os.close(keys)
    assert b"Traceback" not in told
    assert b"Warning" not in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("module", fewer(["aiohttp", "click", "cattrs", "rich"], 2))
async def test_a_signal_during_the_imports_is_an_interruption_without_a_traceback(
    module: str, number: signal.Signals
) -> None:
    """Where an import catches all exceptions, as some do, that of Ctrl-C would be lost."""
    program = (
        "import os, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            try:\n"
        f"                os.kill(os.getpid(), {number:d})\n"
        "            except BaseException:\n"
        "                pass\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from do_images_async.cli import main\n"
        "sys.exit(main())"
    )
    status, stdout, stderr = await python(program, "list")
    assert (status, stdout, stderr) == (-number, b"", b"do-images: interrupted before it was complete\n")
