"""`python -m do_images_async` is `do-images`."""

import sys

from do_images_async.cli import main

if __name__ == "__main__":
    sys.exit(main())
