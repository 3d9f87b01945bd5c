"""The environment of the tests: without what a person's shell sets, and with enough open files."""

from __future__ import annotations

import os
import resource
from typing import Final

__all__ = ["allow_open_files", "clean_environment"]

_PREFIXES: Final = (
    "CLICOLOR",
    "DIGITALOCEAN_",  # with a person's own token
    "DO_IMAGES_",
    "LC_",
    "OTEL_",
    "TTY_",  # read by rich
    "_DO_IMAGES_",
)
_NAMES: Final = {
    *("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS"),
    *("ALL_PROXY", "FTP_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("CURL_CA_BUNDLE", "NETRC", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"),  # which git sets for its hooks
    *("PROMETHEUS_MULTIPROC_DIR", "REDIS_URL"),
    *("LANG", "LANGUAGE", "PYTHONCOERCECLOCALE", "PYTHONIOENCODING", "PYTHONUTF8"),
    *("PYTHONASYNCIODEBUG", "PYTHONUNBUFFERED", "PYTHONWARNINGS"),
}
_FIXED: Final = {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}
_FOR_PIP: Final = {
    "PIP_CERT": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    "PIP_PROXY": ("https_proxy", "HTTPS_PROXY"),
}
"""By these, pip still finds its index when tests install something."""
_OPEN_FILES: Final = 1024
"""The usual limit of Linux; macOS has 256."""


def clean_environment() -> None:
    """Remove or fix the variables that change what the package, the tests or their processes do.

    A test that needs one sets it.
    """
    for for_pip, names in _FOR_PIP.items():
        values = [os.environ[name] for name in (for_pip, *names) if name in os.environ]
        if values:
            os.environ[for_pip] = values[0]
    for name in list(os.environ):
        if name.startswith(_PREFIXES) or name.upper() in _NAMES:  # proxies are also set in lower case
            del os.environ[name]
    os.environ.update(_FIXED)


def allow_open_files() -> None:
    """Let this process and its children open as many files as is usual, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
