"""The access rule of `/_emulator`: programs may use it, web pages of other sites may not."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

import attrs
from aiohttp import web
from yarl import URL

from do_images_async.testing.answers import Problem, usual_problem

__all__ = ["AdminAccess", "host_name", "listening_name"]

_LONGEST_NAME = 253
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)


def host_name(text: str) -> str:
    """Return a host name or address as `Host` headers have it: in lower case, IPv6 without brackets.

    Raises:
        ValueError: it is neither, such as one with a port.
    """
    name = text.lower()
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        pass
    try:
        encoded = name.encode("idna").decode()
    except UnicodeError:
        encoded = ""
    if len(encoded) > _LONGEST_NAME or not _HOST_NAME.fullmatch(encoded):
        raise ValueError(f"{text!r} is no host name or address; write it like emulator or 192.0.2.7")
    return name


def listening_name(text: str) -> str:
    """Return a host name or address to listen on; an IPv6 address may have a zone.

    Raises:
        ValueError: it is neither.
    """
    address, percent, zone = text.removeprefix("[").removesuffix("]").partition("%")
    return host_name(address) + percent + zone


@attrs.frozen(kw_only=True)
class AdminAccess:
    """The rule for which requests are accepted.

    A browser on this machine sends requests here for any page that it shows. So a request is refused if it
    says that it comes from another origin, if its `Host` is not known here (a page's own name can be made to
    lead to this machine), or if its body is not declared as JSON (that needs a preflight, which fails).

    Attributes:
        names: host names and addresses by which clients reach the emulator, beside this machine's own.
        remote: whether other machines are let in.
    """

    names: Collection[str] = ()
    remote: bool = False

    def check(self, request: web.BaseRequest) -> None:
        """Raise Problem unless the request may administer the emulator."""
        if not self.remote and not _is_loopback(request.remote):
            raise _forbidden(
                "Only this machine may administer the emulator, unless it runs with --remote-admin."
            )
        host = _host(request.headers.get("Host", ""))
        if not self._knows(host, request):
            raise _forbidden("Host is not a name of this emulator; allow it with --http-name or --tls-name.")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.scheme}://{request.headers['Host']}":
            raise _forbidden("The emulator is not administered from web pages of another origin.")
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _forbidden("The emulator is not administered from web pages of another site.")
        if request.method in ("POST", "PUT") and request.content_type != "application/json":
            raise usual_problem(415)

    def _knows(self, host: str | None, request: web.BaseRequest) -> bool:
        if host is None:
            return False
        if host == "localhost" or _is_loopback(host) or host in self.names:
            return True
        own = None if request.transport is None else request.transport.get_extra_info("sockname")
        return own is not None and _address(host) == _address(own[0])


def _forbidden(message: str) -> Problem:
    return Problem(403, "forbidden", message)


def _host(header: str) -> str | None:
    """Return the host of a `Host` header in lower case, or None if it has none."""
    try:
        host = URL(f"//{header}").host
    except ValueError:
        return None
    return host.lower() if host else None


def _is_loopback(address: str | None) -> bool:
    found = _address(address)
    return found is not None and not isinstance(found, str) and found.is_loopback


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | str | None:
    """Return an address without its zone, and IPv4 as such: a socket for both has it as part of IPv6."""
    try:
        address = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return text
    return getattr(address, "ipv4_mapped", None) or address
