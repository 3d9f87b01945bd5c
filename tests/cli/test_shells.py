"""Shell completion as typed into real shells on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.cli_processes import do_images_here, environment
from tests.support.slow import fewer

SETUP = {
    "bash": """
PS1='READY> '
source {script}
show() {{ printf '%s' "$READLINE_LINE" > {line}; }}
bind -x '"\\C-b": show'
bind 'set enable-bracketed-paste off'
""",
    "zsh": """
PS1='READY> '
autoload -Uz compinit; compinit -u -D
source {script}
show() {{ printf '%s' "$BUFFER" > {line}; }}
zle -N show
bindkey '^B' show
unsetopt beep zle_bracketed_paste
""",
    "fish": """
function fish_prompt; echo -n 'READY> '; end
function fish_greeting; end
function fish_right_prompt; end
source {script}
bind \\cb 'printf %s (commandline) > {line}'
set -g fish_autosuggestion_enabled 0
""",
}
COMMANDS = {
    "bash": ["bash", "--rcfile", "{setup}", "-i"],
    "zsh": ["zsh", "-d", "-i"],
    "fish": ["fish", "-N", "-i", "-C", "source {setup}"],
}
CONTROL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A program that makes stdin its controlling terminal, which fish needs, and becomes the shell."""

COMPLETED = [
    ("list --output=j", "list --output=json"),
    ("list --sort=-cr", "list --sort=-Created"),
    ("list --sort -cr", "list --sort -Created"),
    ("list --columns ID,Na", "list --columns ID,Name"),
    ("list --file=my-r", "list --file=my-rows.json"),
    ("prune --time-zone Europe/Berl", "prune --time-zone Europe/Berlin"),
    ("list -o j", "list -o json"),
    ("list --sort=cr", "list --sort=Created"),
    ("list --columns=ID,Na", "list --columns=ID,Name"),
    ("list --region nyc1,am", "list --region nyc1,ams"),
    ("list --file my-r", "list --file my-rows.json"),
    ("list --sor", "list --sort"),
    ("compl", "completion"),
]
UNTOUCHED = ["list --output=q", 'list --name "a b', "list --public=x", "list --nosuch=x", "list --name=w"]


class Terminal:
    """A shell in a pseudo-terminal that has read the completion script."""

    def __init__(self, shell: str, script: str, home: Path) -> None:
        (home / "my-rows.json").touch()
        self._line = home / "line"
        os.mkfifo(self._line)
        file = home / "completion"
        file.write_text(script, encoding="utf-8")
        setup = home / ".zshrc"
        setup.write_text(SETUP[shell].format(script="./completion", line="./line"), encoding="utf-8")
        self._terminal, side = pty.openpty()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", CONTROL, *(part.format(setup="./.zshrc") for part in COMMANDS[shell])],
            env=environment(PATH=path, HOME=str(home), ZDOTDIR=str(home), XDG_CONFIG_HOME=str(home)),
            cwd=home,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        shown = b""
        try:
            while b"READY> " not in shown:
                shown += os.read(self._terminal, 65536)
        except OSError:
            self.close()
            raise RuntimeError(f"{shell} has ended: {shown.decode()}") from None

    def complete(self, typed: str) -> str:
        """Return the line after Tab was pressed behind this text."""
        os.write(self._terminal, b"\x15" + f"do-images {typed}\t\x02".encode())
        return self._line.read_text(encoding="utf-8").removeprefix("do-images ")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(params=["bash", "zsh", "fish"])
async def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Terminal]:
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = (await do_images_here("completion", shell)).stdout
    running = Terminal(shell, script, tmp_path)
    yield running
    running.close()


@pytest.mark.slow
@pytest.mark.timeout(240)  # each line starts a process or two
async def test_a_shell_completes_values_and_erases_nothing(terminal: Terminal) -> None:
    for typed, line in fewer(COMPLETED, 6):
        assert (typed, (await asyncio.to_thread(terminal.complete, typed)).rstrip()) == (typed, line)
    for typed in fewer(UNTOUCHED, 2):
        assert await asyncio.to_thread(terminal.complete, typed) == typed
