"""The commands as one program, and what becomes of what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence

import click

from do_images_async import __version__, errors
from do_images_async.cli import actions, images
from do_images_async.cli.audit import audit_command
from do_images_async.cli.emulator import emulator_command
from do_images_async.cli.output import stdout
from do_images_async.cli.schema import schema_command
from do_images_async.cli.status import Exit, Stopped, complain

__all__ = ["run"]


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status; what goes wrong becomes one line on stderr.

    Args:
        arguments: what stands behind the command's name; None takes them from `sys.argv`.
    """
    try:
        with stdout():
            status = main.main(arguments, prog_name="do-images", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except Stopped as stopped:
        return _fail(stopped.status, str(stopped)) if str(stopped) else stopped.status
    except errors.IncompleteListingError as error:
        return _fail(Exit.INCOMPLETE, f"incomplete: {error}")
    except errors.DOImagesError as error:
        return _fail(Exit.API_ERROR, str(error))
    except ValueError as error:
        return _fail(Exit.USAGE, str(error))
    except click.Abort:
        return _fail(Exit.INTERRUPTED, "nothing was done")
    except KeyboardInterrupt:
        return _fail(Exit.INTERRUPTED, "interrupted before it was complete")
    return status if isinstance(status, int) else Exit.OK


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
)
@click.version_option(__version__, prog_name="do-images")
def main() -> None:
    """Look after the images of a DigitalOcean account.

    The token is read from DIGITALOCEAN_TOKEN, else from DIGITALOCEAN_ACCESS_TOKEN, else from doctl's
    configuration; --context and --token-file name another.

    \b
    Exit status:
      0 done, 1 findings (audit --fail-on), 2 wrong usage, 3 an error of the API,
      4 incomplete, 74 the output can't be written, 130 interrupted, 141 its reader has left

    \b
    Example, without an account:
      do-images audit --demo
    """


for _command in (*images.COMMANDS, *actions.COMMANDS, audit_command, emulator_command, schema_command):
    main.add_command(_command)


def _fail(status: Exit, message: str) -> Exit:
    complain(message)
    return status
