"""Shell completion of commands, options and values, as `do-images completion` sets it up."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli_processes import do_images_here, environment
from tests.support.slow import fewer


async def completed(shell: str, *words: str) -> list[str]:
    """Return the command's completions of the last of these words."""
    *before, last = ("do-images", *words)
    typed = {"COMP_WORDS": " ".join([*before, last]), "COMP_CWORD": str(len(before))}
    if shell == "fish":
        typed = {"COMP_WORDS": " ".join(before), "COMP_CWORD": last}
    ended = await do_images_here(_DO_IMAGES_COMPLETE=f"{shell}_complete", **typed)
    assert (ended.status, ended.stderr) == (0, "")
    if shell == "zsh":
        return ended.stdout.splitlines()[1::3]
    separator = "," if shell == "bash" else "\t"
    lines = filter(None, ended.stdout.splitlines())  # click ends nothing with a line feed as well
    return [line.split(separator, maxsplit=1)[1].split("\t")[0] for line in lines]


@pytest.mark.parametrize(
    ("words", "expected"),
    fewer(
        [
            (["aud"], {"audit"}),
            (["list", "--so"], {"--sort"}),
            (["list", "--type", "s"], {"snapshot"}),
            (["list", "-o", "nd"], {"ndjson"}),
            (["audit", "-o", "h"], {"html"}),
            (["audit", "--ignore-rule", "orph"], {"orphaned-backup", "orphaned-snapshot"}),
            (["list", "--region", "nyc"], {"nyc1", "nyc2", "nyc3"}),
            (["transfer", "7", "--region", "ams3,ny"], {"ams3,nyc1", "ams3,nyc2", "ams3,nyc3"}),
            (["list", "--columns", "ID,Min"], {"ID,MinDisk"}),
            (["actions", "7", "--columns", "Res"], {"ResourceID", "ResourceType"}),
            (["list", "--sort", "cr"], {"Created"}),
            (["list", "--sort", "-cr"], {"-Created"}),
            (["list", "--sort", "=", "-cr"], {"-Created"}),
            (["list", "--output", "=", "j"], {"json"}),
            (["list", "--output", "="], {"table", "json", "ndjson", "csv"}),
            (["list", "--output=j"], {"--output=json"}),
            (["list", "--public=j"], set[str]()),
            (["prune", "--time-zone", "europe/berl"], {"Europe/Berlin"}),
            (["list", "--", "--sort", "cr"], set[str]()),
        ],
        5,
    ),
)
async def test_what_is_offered(words: list[str], expected: set[str]) -> None:
    assert set(await completed("bash", *words)) == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
async def test_other_shells_are_offered_the_same(shell: str) -> None:
    assert await completed(shell, "list", "--region", "nyc") == ["nyc1", "nyc2", "nyc3"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_shell_s_part_is_printed(shell: str) -> None:
    ended = await do_images_here("completion", shell)
    assert (ended.status, ended.stderr) == (0, "")
    assert f"_DO_IMAGES_COMPLETE={shell}_complete" in ended.stdout
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n"], input=ended.stdout, check=True, text=True)  # noqa: S603, ASYNC221


async def test_bash_completes_after_reading_it(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    script = tmp_path / "completion.bash"
    script.write_text((await do_images_here("completion", "bash")).stdout, encoding="utf-8")
    typed = f"""
        source {shlex.quote(str(script))}
        COMP_WORDS=(do-images list --type sn); COMP_CWORD=3
        _do_images_completion do-images
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(  # noqa: S603, ASYNC221
        [bash, "--norc", "-c", typed], env=environment(PATH=path), capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["snapshot"]
