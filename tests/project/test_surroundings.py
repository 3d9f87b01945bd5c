"""The tests' environment: nothing of the person who runs them."""

from __future__ import annotations

import os

import pytest

from tests.support.surroundings import clean_environment


def test_nothing_that_a_person_sets_reaches_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        "DIGITALOCEAN_TOKEN",
        "DO_IMAGES_LOG",
        "https_proxy",
        "No_Proxy",
        "COLUMNS",
        "PYTHONWARNINGS",
        "LC_CTYPE",
    ]
    for name in names:
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setenv("TERM", "dumb")
    clean_environment()
    assert not set(names) & set(os.environ)
    assert "theirs" not in os.environ.values()
    assert os.environ["TERM"] == "xterm-256color"
