"""The command line: `do-images`, or `python -m do_images_async`. It needs the extra `cli`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from do_images_async.cli.signals import die_of_signal, exit_on_stopping, ignore_stopping
from do_images_async.cli.streams import flush_streams, open_streams

__all__ = ["main"]

_PACKAGES = {"click": "click", "rich": "rich", "yaml": "pyyaml"}  # of the extra `cli`, by their module
_INTERRUPTED = 130  # `Exit.INTERRUPTED`, whose module needs click


def main() -> int:
    """Run the command that `sys.argv` names and return the exit status, as `do-images --help` lists them.

    If a signal interrupted it, the process ends by that signal, and a shell makes the status of it.
    """
    status = _status()
    if status == _INTERRUPTED:
        die_of_signal()
    return status


def _status() -> int:
    exit_on_stopping()
    open_streams()
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        sys.stderr.write(f"do-images needs its extra cli: pip install {' '.join(missing)}\n")
        return 2
    try:
        from do_images_async.cli.app import run  # the extra's packages may not be installed

        return run()
    except KeyboardInterrupt:  # during the import
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001  (1, the interpreter's status for it, means findings)
        why = f" ({error})" if isinstance(error, ImportError) else ""  # it names modules and paths only
        sys.stderr.write(f"do-images: internal error: {type(error).__name__}{why} while it was imported\n")
        return 70
    finally:
        ignore_stopping()
        flush_streams()
