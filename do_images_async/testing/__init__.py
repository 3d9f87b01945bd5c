"""A local server that behaves as the API does, for tests of any client."""

from do_images_async.testing.emulator import ImagesEmulator
from do_images_async.testing.faults import Fault, Faults
from do_images_async.testing.journal import Entry, Journal
from do_images_async.testing.quota import Quota
from do_images_async.testing.tokens import Tokens

__all__ = ["Entry", "Fault", "Faults", "ImagesEmulator", "Journal", "Quota", "Tokens"]
