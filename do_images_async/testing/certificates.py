"""A TLS certificate for a test server, and the authority that clients must trust (extra `testing`)."""

from __future__ import annotations

import ssl

import attrs

__all__ = ["Certificate"]


@attrs.frozen(kw_only=True)
class Certificate:
    """A server certificate for this run, issued by an authority made for it.

    Attributes:
        server: the server's context, for `ImagesEmulator(tls=...)`.
        client: a context that trusts it, for example for aiohttp's `TCPConnector(ssl=...)`.
        authority: the authority's certificate as PEM, for clients that want a file.
    """

    server: ssl.SSLContext = attrs.field(repr=False)
    client: ssl.SSLContext = attrs.field(repr=False)
    authority: bytes = attrs.field(repr=False)

    @classmethod
    def issue(cls, *hosts: str) -> Certificate:
        """Make a certificate for these host names and addresses, by default those of this machine.

        Raises:
            ModuleNotFoundError: trustme is not installed.
        """
        try:
            import trustme  # only TLS needs it
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "TLS needs the extra testing: pip install trustme", name="trustme"
            ) from error
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*(hosts or ("localhost", "127.0.0.1", "::1"))).configure_cert(server)  # pyright: ignore[reportUnknownMemberType]  (pyOpenSSL's type is optional)
        client = ssl.create_default_context()
        authority.configure_trust(client)  # pyright: ignore[reportUnknownMemberType]
        return cls(server=server, client=client, authority=authority.cert_pem.bytes())
