"""The sources of the command's token, and the message if there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from do_images_async.cli.tokens import TokenSource, doctl_config_path, find_token
from do_images_async.testing import ImagesEmulator
from tests.support.cli_processes import do_images_here

CONFIG = """\
access-token: default-token
auth-contexts:
  Staging: staging-token
  empty: ""
context: {context}
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # pyright: ignore[reportUnusedFunction]
    for name in ("TOKEN", "ACCESS_TOKEN", "CONFIG", "CONTEXT"):
        monkeypatch.delenv(f"DIGITALOCEAN_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def write_config(directory: Path, text: str) -> None:
    path = directory / "doctl" / "config.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")


def test_a_token_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xef\xbb\xbfsome-token\r\n")
    assert find_token(TokenSource(file=str(file))).token == "some-token"


def test_the_variables_come_before_doctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG.format(context="default"))
    assert find_token(TokenSource()).token == "default-token"
    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", "second")
    assert find_token(TokenSource()).token == "second"
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", "first\n")
    assert find_token(TokenSource()).token == "first"
    assert find_token(TokenSource(context="staging")).token == "staging-token"


def test_contexts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG.format(context="staging"))
    assert find_token(TokenSource()).token == "staging-token"
    assert find_token(TokenSource(context="default")).token == "default-token"
    assert find_token(TokenSource(context="STAGING")).token == "staging-token"
    monkeypatch.setenv("DIGITALOCEAN_CONTEXT", "default")
    assert find_token(TokenSource()).token == "default-token"
    for name in ("nowhere", "empty"):
        with pytest.raises(click.ClickException, match="default, empty, staging") as caught:
            find_token(TokenSource(context=name))
        assert "-token" not in str(caught.value.message)


@pytest.mark.parametrize("text", ["", "- a\n", "auth-contexts: 7\n", "access-token: [1]\n"])
def test_a_configuration_without_a_token(text: str, tmp_path: Path) -> None:
    write_config(tmp_path, text)
    with pytest.raises(click.ClickException, match="no token"):
        find_token(TokenSource())


def test_a_broken_configuration_shows_none_of_its_lines(tmp_path: Path) -> None:
    write_config(tmp_path, "access-token: 'secret\n  x: [")
    with pytest.raises(click.ClickException, match="is not YAML") as caught:
        find_token(TokenSource())
    assert "secret" not in caught.value.message


def test_a_configuration_that_is_too_large_to_be_one_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITALOCEAN_CONFIG", "/dev/zero")
    with pytest.raises(click.ClickException, match="/dev/zero can't be read: File too large"):
        find_token(TokenSource())


def test_without_doctl_a_context_can_not_be(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="doctl has not been set up"):
        find_token(TokenSource(context="staging"))


@pytest.mark.parametrize(
    ("platform", "place"),
    [
        ("linux", ".config/doctl/config.yaml"),
        ("darwin", "Library/Application Support/doctl/config.yaml"),
        ("win32", "AppData/doctl/config.yaml"),
    ],
)
def test_where_doctl_keeps_it(
    platform: str, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path / "AppData"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(sys, "platform", platform)
    assert doctl_config_path() == tmp_path / place
    monkeypatch.setenv("DIGITALOCEAN_CONFIG", "/some/where.yaml")
    assert doctl_config_path() == Path("/some/where.yaml")
    monkeypatch.setenv("DIGITALOCEAN_CONFIG", "~/where.yaml")
    assert doctl_config_path() == tmp_path / "where.yaml"


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("from-file\n", encoding="utf-8")
    assert find_token(TokenSource(file=str(path), context="ignored")).token == "from-file"
    path.write_text(" \n", encoding="utf-8")
    with pytest.raises(click.ClickException, match="it is empty"):
        find_token(TokenSource(file=str(path)))
    path.write_bytes(b"\xff")
    with pytest.raises(click.ClickException, match="it is not text"):
        find_token(TokenSource(file=str(path)))
    with pytest.raises(click.ClickException, match="No such file"):
        find_token(TokenSource(file=str(tmp_path / "nothing")))


async def test_a_token_as_an_argument_is_warned_of_and_stdin_is_not(tmp_path: Path) -> None:
    async with ImagesEmulator(images=1, quotas=None) as emulator:
        wanted = ("get", "ubuntu-24-04-x64", "--columns", "Slug", "--no-header")
        where = {"DIGITALOCEAN_API_URL": emulator.url}
        risky = await do_images_here(*wanted, "-t", emulator.token, **where)
        assert (risky.status, risky.stdout) == (0, "ubuntu-24-04-x64\n")
        assert "can be read by every process" in risky.stderr
        assert emulator.token not in risky.stderr
        piped = await do_images_here(*wanted, "--token-file", "-", stdin=f"{emulator.token}\n", **where)
        assert (piped.status, piped.stdout, piped.stderr) == (0, "ubuntu-24-04-x64\n", "")
        write_config(tmp_path, f"auth-contexts: {{lab: {emulator.token}}}")
        named = await do_images_here(*wanted, "--context", "lab", XDG_CONFIG_HOME=str(tmp_path), **where)
        assert (named.status, named.stdout, named.stderr) == (0, "ubuntu-24-04-x64\n", "")


def test_the_token_is_not_in_a_repr() -> None:
    assert "secret" not in repr(TokenSource(argument="secret"))
