"""The tests' environment: nothing of the person who runs them."""

from __future__ import annotations

import os
from unittest.mock import patch

from tests.support.surroundings import clean_environment

THEIRS = (
    "COLUMNS",
    "DIGITALOCEAN_TOKEN",
    "DO_IMAGES_LOG",
    "LC_CTYPE",
    "No_Proxy",
    "PYTHONWARNINGS",
    "https_proxy",
)


def test_nothing_that_a_person_sets_reaches_the_tests_but_what_pip_needs() -> None:
    with patch.dict(os.environ, dict.fromkeys(THEIRS, "theirs") | {"TERM": "dumb"}, clear=True):
        clean_environment()
        assert os.environ == {"LC_ALL": "C.UTF-8", "PIP_PROXY": "theirs", "TERM": "xterm-256color"}
