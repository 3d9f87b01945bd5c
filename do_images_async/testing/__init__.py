"""The API as a local server, for tests of whatever talks to it."""

from do_images_async.testing.emulator import ImagesEmulator
from do_images_async.testing.faults import Fault
from do_images_async.testing.journal import Entry, Journal
from do_images_async.testing.quota import Quota

__all__ = ["Entry", "Fault", "ImagesEmulator", "Journal", "Quota"]
