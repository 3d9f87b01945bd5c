"""The commands as one program, and the exit status of each error."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple

import click

from do_images_async._version import __version__
from do_images_async.cli.checked import typed_name
from do_images_async.cli.output import stdout
from do_images_async.cli.signals import INTERRUPTED, note_ctrl_c, terminate_as_ctrl_c
from do_images_async.cli.status import Exit, Stopped, complain, message_with_notes
from do_images_async.cli.text import masked
from do_images_async.errors import DOImagesError, IncompleteListingError

__all__ = ["main", "run"]


class _Command(NamedTuple):
    """A command's module, imported when it is needed, and its line in the list of commands."""

    module: str
    attribute: str
    help: str


_COMMANDS: Mapping[str, _Command] = {
    "actions": _Command("actions", "actions_command", "List what was done to an image, or is being done."),
    "audit": _Command("audit", "audit_command", "Report totals, cost and what is wrong, the worst first."),
    "completion": _Command("completion", "completion_command", "Print the completion script of a shell."),
    "convert": _Command("actions", "convert_command", "Turn an image, such as a backup, into a snapshot."),
    "create": _Command("images", "create_command", "Import a custom image from a URL."),
    "delete": _Command("images", "delete_command", "Delete images, after showing them and asking."),
    "emulator": _Command(
        "emulator", "emulator_command", "Serve the Images API from this machine, for tests."
    ),
    "get": _Command("images", "get_command", "Show images by their ids, or public ones by their slugs."),
    "latest": _Command("listing", "latest_command", "Show the newest image of a name, tag or distribution."),
    "list": _Command("listing", "list_command", "List images: yours, or the provider's as well."),
    "man": _Command("reference", "man_command", "Print the man page of all commands."),
    "prune": _Command("prune", "prune_command", "Keep what a policy says, and delete the rest."),
    "replicate": _Command("replicate", "replicate_command", "Copy images to the regions that lack them."),
    "schema": _Command("schema", "schema_command", "Print the JSON Schema of a format."),
    "transfer": _Command(
        "actions", "transfer_command", "Copy an image to other regions; it stays where it is, too."
    ),
    "update": _Command("images", "update_command", "Change an image's name, description or distribution."),
    "wait": _Command("images", "wait_command", "Wait until an import is done."),
}


_OPTIONS = {"tag_name": ("tag",), "glob": ("name", "names")}
"""Arguments of the library that the parameters of commands have by other names."""


class _Commands(click.Group):
    """The commands, each imported when it is run or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = _COMMANDS.get(cmd_name)
        if command is None:
            return None
        found = getattr(import_module(f"do_images_async.cli.{command.module}"), command.attribute)
        assert isinstance(found, click.Command)  # noqa: S101
        terminate_as_ctrl_c()  # before, there is nothing to report, and `main` lets signals end it
        return found

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            raise ValueError(_as_typed(str(error), command) + _why_unreadable(error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name].help) for name in sorted(_COMMANDS)])


def _as_typed(message: str, command: click.Command | None) -> str:
    """Return what is wrong with an argument of the library, by the option that it was given with."""
    word, _, rest = message.partition(" ")
    names = {word, *_OPTIONS.get(word, ())}
    for parameter in command.params if command else ():
        if parameter.name in names:
            return f"{typed_name(parameter)} {rest}"
    return message


def _why_unreadable(error: ValueError) -> str:
    """Return why an argument has bytes that are no characters: the locale, mostly."""
    if "lone surrogate" not in str(error):
        return ""
    encoding = sys.getfilesystemencoding()
    remedy = "" if encoding == "utf-8" else "; LC_ALL=C.UTF-8 makes it utf-8"
    return f"; the command line is read as {encoding}{remedy}"


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, prog_name="do-images")
def main() -> None:
    """Look after the images of a DigitalOcean account.

    The token is read from DIGITALOCEAN_TOKEN, else from DIGITALOCEAN_ACCESS_TOKEN, else from doctl's
    configuration; --context and --token-file name another.

    \b
    Exit status:
      0   done
      1   findings (audit --fail-on)
      2   wrong usage
      3   an error of the API, or of the connection to it
      4   incomplete: what was read can't be shown to be everything
      5   refused: prune would delete too much, an image has changed since the plan, not one image of
          a plan was there, or another run is writing the journal
      70  an internal error
      74  the output can't be written
      130 interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP), or answered no
      141 the reader of the output has left, as `head` does

    \b
    Example, without an account:
      do-images audit --demo
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status; an error becomes one line on stderr.

    Args:
        arguments: the arguments after the command's name; None takes them from `sys.argv`.
    """
    with stdout():
        try:
            if "_DO_IMAGES_COMPLETE" in os.environ:
                import_module("do_images_async.cli.shells").register()
            return _status_of(lambda: main.main(arguments, prog_name="do-images", standalone_mode=False))
        except KeyboardInterrupt:
            note_ctrl_c()
            return _fail(Exit.INTERRUPTED, INTERRUPTED)
        except Exception as error:  # noqa: BLE001  (1, the interpreter's status for it, means findings)
            return _fail(Exit.INTERNAL_ERROR, _internal(error))


def _status_of(command: Callable[[], object]) -> int:
    try:
        status = command()
    except click.Abort as aborted:
        return _aborted(aborted)
    except click.ClickException as error:
        return _show(error)
    except Stopped as stopped:
        return _fail(stopped.status, str(stopped)) if str(stopped) else stopped.status
    except IncompleteListingError as error:
        return _fail(Exit.INCOMPLETE, f"incomplete: {error}")
    except DOImagesError as error:
        return _fail(Exit.API_ERROR, message_with_notes(error))
    except ValueError as error:
        return _fail(Exit.USAGE, str(error))
    except SystemExit as ended:  # click raises it after a shell completion, and if help hits a closed pipe
        return Exit.OK if ended.code == 0 else Exit.BROKEN_PIPE
    except OSError as error:
        if not _is_of_click(error):
            raise
        return _fail(Exit.IO_ERROR, f"the output could not be written: {error.strerror or error}")
    return status if isinstance(status, int) else Exit.OK


def _aborted(aborted: click.Abort) -> int:
    """Return the status of a question that was answered no, or of an interruption that click made it of."""
    if not isinstance(aborted.__cause__, KeyboardInterrupt):
        return _fail(Exit.INTERRUPTED, "nothing was done")
    note_ctrl_c()
    return _fail(Exit.INTERRUPTED, INTERRUPTED)


def _is_of_click(error: OSError) -> bool:
    """Return whether click could not write, such as a help; what commands write raises `Stopped`."""
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _show(error: click.ClickException) -> int:
    """Show a usage error, with tokens masked in case one was given in the wrong place."""
    text = io.StringIO()
    error.show(text)
    with suppress(OSError):
        sys.stderr.write(masked(text.getvalue(), guess=True))
        sys.stderr.flush()
    return Exit.USAGE


def _internal(error: Exception) -> str:
    """Describe an internal error by its class and place: most messages and values might hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    if os.environ.get("DO_IMAGES_LOG", "").strip().lower() == "debug":
        for frame in frames:
            complain(f"  {frame.filename}:{frame.lineno} in {frame.name}")
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    what = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        what += f" ({error.strerror})"  # the system's own words
    elif isinstance(error, ImportError):  # its message names modules and paths only
        what += f" ({error}; `pip check` names packages that are missing or too old)"
    return f"internal error: {what}{place}; DO_IMAGES_LOG=debug shows the way there"


def _fail(status: Exit, message: str) -> Exit:
    complain(message)
    return status
