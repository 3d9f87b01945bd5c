"""The end of support of the distributions of the provider's public images."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Final

__all__ = ["END_OF_SUPPORT"]

END_OF_SUPPORT: Final[Mapping[str, date]] = MappingProxyType(
    {
        "ubuntu-20-04": date(2025, 5, 31),
        "ubuntu-22-04": date(2027, 4, 30),
        "ubuntu-24-04": date(2029, 5, 31),
        "ubuntu-24-10": date(2025, 7, 10),
        "ubuntu-25-04": date(2026, 1, 15),
        "ubuntu-25-10": date(2026, 7, 31),
        "ubuntu-26-04": date(2031, 4, 30),
        "debian-11": date(2026, 8, 31),
        "debian-12": date(2028, 6, 30),
        "debian-13": date(2030, 6, 30),
        "fedora-41": date(2025, 12, 15),
        "fedora-42": date(2026, 5, 27),
        "fedora-43": date(2026, 12, 9),
        "centos-stream-9": date(2027, 5, 31),
        "centos-stream-10": date(2030, 1, 1),
        "rockylinux-8": date(2029, 5, 31),
        "rockylinux-9": date(2032, 5, 31),
        "rockylinux-10": date(2035, 5, 31),
        "almalinux-8": date(2029, 3, 1),
        "almalinux-9": date(2032, 5, 31),
        "almalinux-10": date(2035, 5, 31),
        "freebsd-12": date(2023, 12, 31),
        "freebsd-13": date(2026, 4, 30),
        "freebsd-14": date(2028, 11, 30),
        "freebsd-15": date(2029, 12, 31),
    }
)
"""The end of free support by the beginning of the slug, as far as known when this was released.

Projects move such dates. The provider retires its image about then; it does not publish when.
"""
