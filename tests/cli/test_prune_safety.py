"""The safety of `prune`: it never deletes an image that its plan keeps, and never loses track of deletions.

Faults, images that others change, and SIGKILL at each request; afterwards the emulator's own record is held
against the plan and against the journal, and a second run must finish what the first has begun.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import attrs
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from do_images_async.testing import Fault, ImagesEmulator
from tests.support.cli_processes import Ended, account, do_images_here, start
from tests.support.slow import RUN_SLOW, examples, fewer

IMAGES = 8
KEPT = 4
POLICY = ("--name", "web-*", "--keep-last", str(KEPT))
REQUESTS = 2 * (IMAGES - KEPT)
"""The number of requests that carry the plan out: each image is read, and deleted."""


@attrs.define
class Account:
    """An emulated account with a plan for it, and its changes since."""

    emulator: ImagesEmulator
    folder: Path
    plan: dict[str, Any] = attrs.field(factory=dict[str, Any])
    before: dict[int, dict[str, Any]] = attrs.field(factory=dict[int, dict[str, Any]])
    gone: set[int] = attrs.field(factory=set[int])  # deleted by others

    @property
    def plan_file(self) -> Path:
        return self.folder / "plan.json"

    @property
    def journal_file(self) -> Path:
        return self.folder / "prune.jsonl"

    @property
    def apply(self) -> tuple[str, ...]:
        return (
            *("prune", "--apply-plan", str(self.plan_file), "--yes", "--quiet"),
            *("--journal", str(self.journal_file)),
        )

    @property
    def to_remove(self) -> set[int]:
        return {image["id"] for each in self.plan["accounts"] for image in each["remove"]}

    @property
    def there(self) -> set[int]:
        return {image["id"] for image in self.emulator.images if image["id"] in self.before}

    @property
    def deleted(self) -> set[int]:
        """Return the images that a request deleted, by the emulator's record."""
        return {
            int(entry.path.rpartition("/")[2])
            for entry in self.emulator.requests.where("DELETE")
            if entry.carried_out
        } & self.before.keys() - self.there

    async def make_plan(self) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        for age in range(IMAGES):
            created_at = (now - timedelta(days=age)).isoformat().replace("+00:00", "Z")
            self.emulator.images.add(name=f"web-{age}", created_at=created_at)
        ended = await self.run("prune", *POLICY, "--plan", str(self.plan_file))
        assert ended.status == 0, ended.stderr
        self.plan = json.loads(self.plan_file.read_text(encoding="utf-8"))
        self.before = {image["id"]: dict(image) for image in self.emulator.images if not image["public"]}
        assert len(self.to_remove) == IMAGES - KEPT
        self.emulator.requests.clear()

    async def run(self, *arguments: str, **variables: str) -> Ended:
        return await do_images_here(*arguments, **account(self.emulator, self.emulator.token), **variables)

    def events(self) -> dict[int, list[str]]:
        """Return the journal's events of each image, without the partial line of a run that was killed."""
        found: dict[int, list[str]] = {}
        text = self.journal_file.read_text(encoding="utf-8") if self.journal_file.exists() else ""
        for line in text.splitlines():
            if line.endswith("}"):
                record = json.loads(line)
                found.setdefault(record["id"], []).append(record["event"])
        return found

    def check(self) -> None:
        """Compare the emulator's record with the plan, and the journal with the emulator's record."""
        assert self.deleted <= self.to_remove, "what the plan keeps was deleted"
        events = self.events()
        assert events.keys() <= self.to_remove
        for image in self.deleted:
            assert "deleting" in events[image], "it was deleted and the journal does not say so"
        for image, happened in events.items():
            if happened[-1] == "deleted":
                assert image not in self.there
            if happened[-1] in ("failed", "changed"):
                assert image in self.there | self.gone


async def killed_at(emulator: ImagesEmulator, arguments: tuple[str, ...], number: int) -> None:
    """Run the command and kill it when the request of this number arrives, from 1."""
    process = await start(arguments, account(emulator, emulator.token))
    arrived = 0

    def kill(_: web.Request) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == number:
            process.kill()

    emulator.on_request.append(kill)
    await process.communicate()
    emulator.on_request.remove(kill)
    assert process.returncode == -9


@pytest.mark.parametrize("carried_out", fewer([True, False]))
@pytest.mark.parametrize("number", range(1, REQUESTS + 1) if RUN_SLOW else (REQUESTS,))
async def test_a_run_that_is_killed_at_any_request_is_finished_by_the_next(
    tmp_path: Path, number: int, *, carried_out: bool
) -> None:
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        prepared = Account(emulator, tmp_path)
        await prepared.make_plan()
        # The request in which it is killed is carried out all the same, or lost on its way.
        method: Literal["GET", "DELETE"] = "DELETE" if number > IMAGES - KEPT else "GET"
        if not carried_out:
            emulator.faults.add(Fault(method=method, broken="reset", times=None))
        await killed_at(emulator, prepared.apply, number)
        prepared.check()
        emulator.faults.clear()
        ended = await prepared.run(*prepared.apply)
        assert ended.status == 0, ended.stderr
        prepared.check()
        assert prepared.there == prepared.before.keys() - prepared.to_remove
        assert {events[-1] for events in prepared.events().values()} == {"deleted"}


@pytest.mark.parametrize("number", range(1, 12) if RUN_SLOW else (6,))
async def test_a_run_of_a_policy_that_is_killed_is_finished_by_the_next(tmp_path: Path, number: int) -> None:
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        prepared = Account(emulator, tmp_path)
        await prepared.make_plan()
        arguments = ("prune", *POLICY, "--apply", "--yes", "--journal", str(prepared.journal_file))
        await killed_at(emulator, arguments, min(number, 2 + REQUESTS))
        prepared.check()
        ended = await prepared.run(*arguments)
        assert ended.status == 0, ended.stderr
        prepared.check()
        assert prepared.there == prepared.before.keys() - prepared.to_remove


@attrs.frozen
class Change:
    """Something that happens at a request."""

    at: int
    what: str
    image: int


def sensible(fault: Fault) -> Fault:
    """Break the connection if there is no status; answer 429 once, and not to an executed request."""
    if fault.status is None:
        return attrs.evolve(fault, broken="reset")
    if fault.status == 429:  # each one makes the limiter go slowly for the rest of the run
        return attrs.evolve(fault, after=False, times=1, headers={"retry-after": "0"})
    return fault


CHANGES = st.lists(
    st.builds(
        Change,
        at=st.integers(1, REQUESTS),
        what=st.sampled_from(["rename", "publish", "date", "status", "delete", "add"]),
        image=st.integers(0, IMAGES - 1),
    ),
    max_size=4,
)
FAULTS = st.lists(
    st.builds(
        Fault,
        method=st.sampled_from(["GET", "DELETE"]),
        times=st.integers(1, 4),
        probability=st.sampled_from([0.3, 0.7, 1.0]),
        after=st.booleans(),
        status=st.sampled_from([None, 429, 500, 502, 503]),
    ).map(sensible),
    max_size=4,
)


def apply_change(prepared: Account, change: Change) -> set[int]:
    """Change the account as another client would; return the image that the run must not delete any more."""
    image = sorted(prepared.before)[change.image]
    images = prepared.emulator.images
    if change.what == "add":
        images.add(name="web-new")
        return set()
    if image not in prepared.there:
        return set()
    if change.what == "delete":
        images.remove(image)
        prepared.gone.add(image)
        return set()
    changes: dict[str, dict[str, Any]] = {
        "rename": {"name": "precious"},
        "publish": {"public": True},
        "status": {"status": "retired"},
        "date": {"created_at": "2020-02-02T02:02:02Z"},
    }
    images.update(image, **changes[change.what])
    return {image}


async def scenario(folder: Path, faults: list[Fault], changes: list[Change], retries: int) -> None:
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        prepared = Account(emulator, folder)
        await prepared.make_plan()
        untouchable = set[int]()
        arrived = 0

        def meanwhile(request: web.Request) -> None:
            nonlocal arrived
            arrived += 1
            for change in changes:
                # The API has no conditional deletion: a change between the reading of an image and its
                # deletion can't be seen. So an image changes here before it is read, or not at all.
                if change.at <= arrived and change not in happened:
                    happened.append(change)
                    if sorted(prepared.before)[change.image] not in read:
                        untouchable.update(apply_change(prepared, change))
            read.add(int(request.path.rpartition("/")[2]))

        happened: list[Change] = []
        read = set[int]()
        emulator.on_request.append(meanwhile)
        for fault in faults:
            emulator.faults.add(attrs.evolve(fault))
        await prepared.run(*prepared.apply, "--retries", str(retries))
        assert not untouchable & prepared.deleted
        prepared.check()

        emulator.on_request.clear()
        emulator.faults.clear()
        ended = await prepared.run(*prepared.apply)
        prepared.check()
        assert not untouchable & prepared.deleted
        rest = prepared.to_remove & prepared.there
        assert rest <= untouchable, "the second run did not finish the first"
        none_was_there = prepared.to_remove <= prepared.gone
        assert ended.status == (5 if rest or none_was_there else 0), ended.stderr
        kept = prepared.before.keys() - prepared.to_remove - prepared.gone
        assert kept <= prepared.there


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("retries", [0, 1])
@settings(deadline=None, database=None, derandomize=True, max_examples=examples(20))
@given(faults=FAULTS, changes=CHANGES)
def test_faults_and_others_at_random_never_delete_what_is_kept(
    retries: int, faults: list[Fault], changes: list[Change]
) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder), faults, changes, retries))


@pytest.mark.timeout(300)
async def test_a_journal_cut_off_anywhere_is_continued(tmp_path: Path) -> None:
    async with ImagesEmulator(images=0, quotas=None) as emulator:
        prepared = Account(emulator, tmp_path)
        await prepared.make_plan()
        assert (await prepared.run(*prepared.apply)).status == 0
        whole = prepared.journal_file.read_bytes()
        ends = {place + more for place, byte in enumerate(whole) if byte == ord("\n") for more in (0, 1)}
        places = sorted({*range(0, len(whole) + 1, 11 if RUN_SLOW else 97), *ends})
        for place in places:
            prepared.journal_file.write_bytes(whole[:place])
            ended = await prepared.run(*prepared.apply, DO_IMAGES_QUOTA_FILE="off")
            begun = b"}" in whole[:place]  # otherwise no line says that the images that are gone were ours
            assert ended.status == (0 if begun else 5), ended.stderr
            last = prepared.journal_file.read_bytes()
            assert last.startswith(whole[: whole.rfind(b"}", 0, place) + 1]), "a whole line was lost"
            assert last.endswith(b"\n")
            assert all(json.loads(line)["id"] for line in last.splitlines()), "a line is not JSON"
