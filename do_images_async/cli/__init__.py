"""The command line: `do-images`, or `python -m do_images_async`. It needs the extra `cli`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run the command that `sys.argv` names and return the exit status.

    0 is success, 2 wrong usage, 3 an error of the API, 4 a listing that is not whole, 130 an interruption;
    1 is kept for findings.
    """
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"do-images needs {' and '.join(missing)}: pip install 'do-images-async[cli]'\n",
        )
        return 2
    try:
        from do_images_async.cli.app import run  # what it imports may not be installed

        return run()
    except KeyboardInterrupt:  # while it was imported
        return 130
