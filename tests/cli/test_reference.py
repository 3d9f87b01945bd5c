"""The reference page and the man page, which are made from the commands themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from do_images_async.cli.app import main
from do_images_async.cli.reference import man_page, reference_page
from tests.support.cli_processes import do_images_here

PAGE = Path(__file__).parents[1] / "docs" / "pages" / "reference" / "command.md"
COMMANDS = sorted(main.list_commands(click.Context(main)))


def test_the_page_is_up_to_date() -> None:
    assert reference_page(main).strip() in PAGE.read_text(encoding="utf-8"), "run: python -m tests.docs.fill"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_is_there(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    page, manual = reference_page(main), man_page(main).replace("\\-", "-")
    assert f"## `do-images {name}`" in page
    assert f".SS do-images {name}" in manual
    section = page.partition(f"## `do-images {name}`\n")[2].partition("\n## ")[0]
    for option in command.params:
        if isinstance(option, click.Option):
            assert f"- `{', '.join(option.opts)}" in section
            assert f".B {', '.join(option.opts)}" in manual


async def test_the_man_page_is_one_that_man_shows() -> None:
    ended = await do_images_here("man")
    assert (ended.status, ended.stderr) == (0, "")
    assert ended.stdout == man_page(main)
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("needs groff")
    shown = subprocess.run(  # noqa: S603, ASYNC221
        [groff, "-man", "-Tascii", "-ww", "-P-cbou"],
        input=ended.stdout,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stderr == ""
    example = 'jq \'.findings[] | select(.rule == "old")'
    for text in ("NAME", "do-images audit [OPTIONS]", example, "ENVIRONMENT"):
        assert text in shown.stdout
