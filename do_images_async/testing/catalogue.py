"""A realistic set of images: the provider's public ones with slugs, and private ones drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

__all__ = [
    "DISTRIBUTIONS",
    "REGIONS",
    "REGION_NAMES",
    "Record",
    "private_images",
    "public_images",
    "timestamp",
]

Record = dict[str, Any]

_CITIES = {
    "ams": "Amsterdam",
    "blr": "Bangalore",
    "fra": "Frankfurt",
    "lon": "London",
    "nyc": "New York",
    "sfo": "San Francisco",
    "sgp": "Singapore",
    "syd": "Sydney",
    "tor": "Toronto",
}
REGIONS = (
    *("ams1", "ams2", "ams3", "blr1", "fra1", "lon1", "nyc1", "nyc2", "nyc3"),
    *("sfo1", "sfo2", "sfo3", "sgp1", "tor1", "syd1"),
)
REGION_NAMES = {slug: f"{_CITIES[slug[:3]]} {slug[3:]}" for slug in REGIONS}
DISTRIBUTIONS = (
    *("Arch Linux", "CentOS", "CoreOS", "Debian", "Fedora", "Fedora Atomic", "FreeBSD"),
    *("Gentoo", "openSUSE", "RancherOS", "Rocky Linux", "Ubuntu", "Unknown"),
)

_IN_USE = ("nyc1", "nyc2", "nyc3", "ams3", "sfo2", "sfo3", "sgp1", "lon1", "fra1", "tor1", "blr1", "syd1")

# Slug, name, distribution, GB, status.
_BASE = (
    ("ubuntu-24-04-x64", "24.04 (LTS) x64", "Ubuntu", 0.61, "available"),
    ("ubuntu-24-10-x64", "24.10 x64", "Ubuntu", 0.63, "available"),
    ("ubuntu-22-04-x64", "22.04 (LTS) x64", "Ubuntu", 0.66, "available"),
    ("ubuntu-20-04-x64", "20.04 (LTS) x64", "Ubuntu", 0.58, "retired"),
    ("debian-12-x64", "12 x64", "Debian", 0.49, "available"),
    ("debian-11-x64", "11 x64", "Debian", 0.58, "available"),
    ("fedora-42-x64", "42 x64", "Fedora", 0.61, "available"),
    ("fedora-41-x64", "41 x64", "Fedora", 0.58, "retired"),
    ("centos-stream-9-x64", "9 Stream x64", "CentOS", 1.04, "available"),
    ("rockylinux-9-x64", "9 x64", "Rocky Linux", 1.12, "available"),
    ("rockylinux-8-x64", "8 x64", "Rocky Linux", 1.93, "available"),
    ("freebsd-12-x64-zfs", "12.2 x64 ZFS", "FreeBSD", 1.21, "available"),
    ("freebsd-12-x64-ufs", "12.2 x64 UFS", "FreeBSD", 1.89, "available"),
)
_APPLICATIONS = (
    ("docker-20-04", "Docker on Ubuntu 22.04", 2.11),
    ("wordpress-20-04", "WordPress on Ubuntu 22.04", 2.53),
    ("lemp-20-04", "LEMP on Ubuntu 22.04", 2.04),
    ("lamp-20-04", "LAMP on Ubuntu 22.04", 2.31),
    ("mysql-20-04", "MySQL on Ubuntu 22.04", 2.62),
    ("openvpn-18-04", "OpenVPN Access Server on Ubuntu 22.04", 2.20),
    ("nodejs-20-04", "NodeJS on Ubuntu 22.04", 2.27),
    ("gitlabenterprise-20-04", "GitLab Enterprise Edition", 5.91),
    ("discourse-20-04", "Discourse on Ubuntu 22.04", 4.02),
    ("mongodb-20-04", "MongoDB on Ubuntu 22.04", 2.44),
)

_ROLES = ("web", "api", "worker", "db", "cache", "queue", "build", "mail", "proxy", "metrics", "staging")
_TAGS = ("prod", "staging", "base-image", "web", "db", "keep", "team-infra", "team-data", "ci", "golden")
_DAY = 86_400.0


def timestamp(seconds: float) -> str:
    """Return Unix time as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def public_images(now: float) -> Iterator[Record]:
    """Return the provider's distributions, then its 1-Click applications."""
    for position, (slug, name, distribution, size, status) in enumerate(_BASE):
        yield _public(100_000_000 + position, slug, name, distribution, size, status, now, "base")
    for position, (slug, name, size) in enumerate(_APPLICATIONS):
        yield _public(110_000_000 + position, slug, name, "Ubuntu", size, "available", now, "snapshot")


def _public(
    number: int, slug: str, name: str, distribution: str, size: float, status: str, now: float, kind: str
) -> Record:
    return {
        "id": number,
        "name": name,
        "type": kind,
        "distribution": distribution,
        "slug": slug,
        "public": True,
        "regions": list(_IN_USE),
        "created_at": timestamp(now - (number % 97 + 20) * _DAY),
        "min_disk_size": 7 if size < 1.5 else 25,
        "size_gigabytes": size,
        "description": f"{distribution} {name}",
        "tags": [],
        "status": status,
        "error_message": "",
    }


def private_images(count: int, seed: int, now: float) -> Iterator[Record]:
    """Return an account's snapshots, backups and custom images; the same for the same arguments."""
    rng = random.Random(seed)
    for position in range(count):
        yield _private(130_000_000 + position * 7 + rng.randrange(7), rng, now)


def _private(number: int, rng: random.Random, now: float) -> Record:
    kind = rng.choices(("snapshot", "backup", "custom"), (55, 30, 15))[0]
    role = rng.choice(_ROLES)
    age = rng.betavariate(1, 4) * 4 * 365 * _DAY
    size = 180.0 + rng.random() * 120 if rng.random() < 0.01 else min(80.0, 1.0 + rng.expovariate(1 / 9))
    image: Record = {
        "id": number,
        "name": _name(kind, role, now - age, rng),
        "type": kind,
        "distribution": rng.choices(
            ("Ubuntu", "Debian", "Rocky Linux", "Fedora", "Unknown"), (60, 20, 8, 7, 5)
        )[0],
        "slug": None,
        "public": False,
        "regions": rng.sample(_IN_USE, k=rng.choices((1, 2, 3), (80, 15, 5))[0]),
        "created_at": timestamp(now - age),
        "min_disk_size": rng.choice((25, 50, 80, 160)),
        "size_gigabytes": round(size, 2),
        "description": "" if kind != "custom" else f"{role} base",
        "tags": _tags(rng),
        "status": "available",
        "error_message": "",
    }
    return _with_trouble(image, rng) if kind == "custom" else image


def _name(kind: str, role: str, made: float, rng: random.Random) -> str:
    host = f"{role}-{rng.randrange(1, 40):02}"
    day = timestamp(made)[:10]
    if kind == "backup":
        return f"{host}.example.com {day} (backup)"
    return f"{host}-{day}" if kind == "snapshot" else f"{role}-golden-{rng.randrange(1, 12)}"


def _tags(rng: random.Random) -> list[str] | None:
    chance = rng.random()
    if chance < 0.05:
        return None
    return [] if chance < 0.45 else rng.sample(_TAGS, k=rng.randrange(1, 4))


def _with_trouble(image: Record, rng: random.Random) -> Record:
    """Return the image, sometimes with a failed import, an unfinished one, or as retired."""
    chance = rng.random()
    if chance < 0.04:
        return image | {
            "status": "deleted",
            "error_message": "The image could not be imported: unsupported format",
            "size_gigabytes": None,
            "min_disk_size": None,
            "regions": [],
        }
    if chance < 0.07:
        return image | {
            "status": rng.choice(("NEW", "pending")),
            "size_gigabytes": None,
            "min_disk_size": None,
        }
    return image | {"status": "retired"} if chance < 0.10 else image
