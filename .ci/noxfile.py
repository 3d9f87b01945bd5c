"""What `.ci/run` does, by parts: `nox -f .ci/noxfile.py [-s SESSION] [-- ARGUMENTS]`."""

from __future__ import annotations

import re
from pathlib import Path

import nox

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
SITE = ("mkdocs", "build", "--strict", "--quiet", "-f", "tests/docs/mkdocs.yml")

nox.options.sessions = ["lint", "docs", "package", "tests"]
nox.options.reuse_existing_virtualenvs = True


def prepare(session: nox.Session) -> None:
    session.chdir(ROOT)
    session.install("-q", "-e", ".[dev]")


@nox.session(python=VERSIONS)
def tests(session: nox.Session) -> None:
    """Run the tests; arguments are pytest's. On the first version all, then those that depend on it."""
    prepare(session)
    selected = ["--run-slow"] if session.python == VERSIONS[0] else ["-m", "not once"]
    session.run("pytest", *(session.posargs or ["-q", *selected]))


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint and types."""
    prepare(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run("pyright", "--pythonpath", f"{session.bin}/python")
    session.run("pyright", "--verifytypes", "do_images_async", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into build/site."""
    prepare(session)
    session.run(*SITE, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def package(session: nox.Session) -> None:
    """Sdist and wheel, and the README from the wheel."""
    prepare(session)
    session.run("bash", ".ci/package", f"{session.bin}/python", external=True)


@nox.session
def release(session: nox.Session) -> None:
    """Check that a release may be made of this commit, build it, and tag it."""
    prepare(session)
    version = re.findall(r'"(.+)"', (ROOT / "do_images_async" / "_version.py").read_text())[-1]
    if session.run("git", "status", "--porcelain", external=True, silent=True):
        session.error("the tree is not clean: commit first")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog(), re.MULTILINE):
        session.error(f"CHANGELOG.md has no section for {version} with its date")
    session.run("bash", ".ci/package", f"{session.bin}/python", external=True)
    session.run("git", "tag", "-a", f"v{version}", "-m", f"Release {version}", external=True)
    session.log(f"now: git push origin v{version}; twine upload dist/*")


def changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text()
