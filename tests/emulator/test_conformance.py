"""The emulator's conformance: every kind of answer, against descriptions of the real API."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import attrs
import pytest
from jsonschema import ValidationError

from do_images_async import ImagesAPI
from do_images_async.testing import Fault, ImagesEmulator, Quota
from tests.support.descriptions import DESCRIPTIONS, OWN, PROVIDERS, Description, load

UNLIMITED = (Quota(10**6, 3600.0),)
SURROGATES = (b'{"name": "\\ud800"}', b'{"a\\udfff": 1}', b'{"a": [{"b": "\xed\xa0\x80"}]}')
"""JSON to Python's own reader alone: half of a surrogate pair is no character."""
GOLDEN = {"name": "golden", "url": "https://example.com/golden.qcow2", "region": "nyc3"}
TEAM = "5a4981aa-9653-4bd1-bef5-d6bff52042e4"


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: Any


@attrs.define
class Caller:
    """A client that sends requests unchanged, and checks every answer against the descriptions."""

    emulator: ImagesEmulator
    session: aiohttp.ClientSession
    seen: Counter[tuple[str, str, int]] = attrs.field(factory=Counter[tuple[str, str, int]])

    async def __call__(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        data: bytes | io.BytesIO | None = None,
        token: str | None = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.emulator.token}"
        url = self.emulator.url + path
        async with self.session.request(method, url, json=document, data=data, headers=sent) as response:
            content = await response.read()
            received = {name.lower(): value for name, value in response.headers.items()}
            body = json.loads(content) if content else None
        answer = Answer(response.status, received, body)
        bare = path.partition("?")[0]
        for description in DESCRIPTIONS:
            description.check(method, bare, answer.status, received, body)
        self.seen[method, re.sub(r"/\d+", "/0", bare), answer.status] += 1
        return answer

    async def refused(self, status: int, method: str, path: str, document: Any = None, **rest: Any) -> str:
        """Send a request that must be refused with this status; return the error's id."""
        answer = await self(method, path, document, **rest)
        assert answer.status == status, answer.body
        identifier: str = answer.body["id"]
        assert answer.headers["x-request-id"] == answer.body["request_id"]
        return identifier


@pytest.fixture
async def emulator() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(quotas=UNLIMITED, import_seconds=0, action_seconds=0) as running:
        yield running


@pytest.fixture
async def call(emulator: ImagesEmulator) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(emulator, session)


@pytest.fixture
def mine(emulator: ImagesEmulator) -> str:
    return f"/v2/images/{emulator.images.add(name='mine', tags=['prod'])}"


def public(emulator: ImagesEmulator) -> str:
    return f"/v2/images/{next(image['id'] for image in emulator.images if image['public'])}"


# --- every answer is documented ---


async def test_answers_of_success(emulator: ImagesEmulator, call: Caller) -> None:
    for query in (
        "",
        "?per_page=200",
        "?type=distribution",
        "?private=true&page=2&per_page=3",
        "?tag_name=x",
    ):
        assert (await call("GET", f"/v2/images{query}")).status == 200
    assert (await call("GET", "/v2/images/ubuntu-24-04-x64")).body["image"]["slug"] == "ubuntu-24-04-x64"

    created = await call("POST", "/v2/images", {**GOLDEN, "tags": ["prod"], "distribution": "Plan 9"})
    assert (created.status, created.body["image"]["status"]) == (202, "NEW")
    path = f"/v2/images/{created.body['image']['id']}"
    assert (await call("GET", path)).body["image"]["status"] == "available"
    changed = await call("PUT", path, {"name": "b", "description": "c", "distribution": "Plan 10"})
    assert changed.body["image"]["distribution"] == "Unknown"

    action = (await call("POST", f"{path}/actions", {"type": "transfer", "region": "ams3"})).body["action"]
    assert action["status"] == "in-progress"
    action = (await call("GET", f"{path}/actions/{action['id']}")).body["action"]
    assert action["status"] == "completed"
    assert (await call("POST", f"{path}/actions", {"type": "convert"})).status == 201
    assert len((await call("GET", f"{path}/actions?per_page=1")).body["actions"]) == 1

    snapshot = f"/v2/images/{emulator.images.add()}/account_transfer"
    team = {"recipient_uuid": TEAM}
    for ending, extra in (("cancel", {}), ("decline", {}), ("accept", team)):
        offer = await call("POST", snapshot, team)
        body = {"transfer_id": offer.body["transfer_id"], **extra}
        assert (await call("POST", f"{snapshot}/{ending}", body)).body is None

    assert (await call("DELETE", path)).status == 204
    # Every operation with a success in the description was called, so that no answer is unchecked.
    documented = {
        (method.upper(), re.sub(r"\{\w+\}", "0", path), int(status))
        for path, operations in load(OWN)["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
        if status.startswith("2")
    }
    assert documented <= set(call.seen)


@pytest.mark.parametrize(
    "query",
    [
        *("per_page=0", "per_page=201", "per_page=-1", "per_page=1.5", "per_page=", "per_page=%D9%A3"),
        *("page=0", "page=-1", "page=x", "page=1e3", "page=+1", "type=base", "type=", "type=Distribution"),
        *("private=1", "private=yes", "private=", "private=True"),
    ],
)
async def test_a_query_that_is_refused(call: Caller, query: str) -> None:
    assert await call.refused(422, "GET", f"/v2/images?{query}") == "unprocessable_entity"


@pytest.mark.parametrize("query", ["page=99999999999999999999999", "tag_name=%F0%9F%90%8D%26", "unknown=1"])
async def test_a_query_that_is_not(call: Caller, query: str) -> None:
    assert (await call("GET", f"/v2/images?{query}")).status == 200


@pytest.mark.parametrize("page", [10**20 - 1, 10**23, 10**3999])
async def test_the_links_of_a_page_far_behind_the_last_name_its_neighbours(call: Caller, page: int) -> None:
    links = (await call("GET", f"/v2/images?page={page}")).body["links"]["pages"]
    assert links.keys() == {"first", "prev"}
    assert links["prev"].endswith(f"?page={page - 1}")


async def test_a_page_with_more_digits_than_can_be_read_is_refused(call: Caller) -> None:
    answer = await call("GET", f"/v2/images?page={'9' * 5000}")
    assert (answer.status, answer.body["message"]) == (
        422,
        "page must be an integer from 1, of at most 4,000 digits",
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", None, "name must be a string"),
        ("name", 5, "name must be a string"),
        ("name", "", "name is required"),
        ("url", ["https://a.example/b.img"], "url must be a string"),
        ("url", "golden.qcow2", "url must be"),
        ("region", "mars1", "region is invalid"),
        ("region", 3, "region must be a string"),
        ("distribution", True, "distribution must be a string"),
        ("description", None, "description must be a string"),
        ("tags", "prod", "tags must be an array of strings"),
        ("tags", ["prod", 3], "tags must be an array of strings"),
        ("tags", {"prod": "x"}, "tags must be an array of strings"),
        ("tags", ["prod", "two words"], "tags[1] must be 1 to 255 letters, numbers, colons, dashes and"),
        ("tags", [""], "tags[0] must be"),
        ("tags", ["a=b"], "tags[0] must be"),
        ("tags", ["x" * 256], "tags[0] must be"),
    ],
)
async def test_a_field_that_is_refused(call: Caller, field: str, value: object, message: str) -> None:
    answer = await call("POST", "/v2/images", {**GOLDEN, field: value})
    assert (answer.status, answer.body["id"]) == (422, "unprocessable_entity")
    assert message in answer.body["message"]


async def test_tags_may_have_all_that_the_provider_names(call: Caller) -> None:
    tags = ["env:prod", "a-b_c", "9", "Größe", "x" * 255]
    assert (await call("POST", "/v2/images", {**GOLDEN, "tags": tags})).body["image"]["tags"] == tags


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((f"/golden.{each}", "available") for each in ("img", "raw", "qcow2", "vhdx", "vdi", "vmdk")),
        *((f"/golden.{each}", "available") for each in ("QCOW2", "img.gz", "Raw.BZ2", "gz", "qcow2?key=1#a")),
        *((path, "available") for path in ("", "/", "/images/42", "/download?file=a.iso", "/ubuntu-24.04")),
        *((f"/golden.{each}", "deleted") for each in ("iso", "ISO", "7z", "img.xz", "tar.gz", "iso?a=b.img")),
    ],
)
async def test_an_import_fails_if_the_url_is_that_of_another_file(
    call: Caller, path: str, status: str
) -> None:
    url = f"https://example.com{path}"
    number = (await call("POST", "/v2/images", {**GOLDEN, "url": url})).body["image"]["id"]
    image = (await call("GET", f"/v2/images/{number}")).body["image"]
    assert (image["status"], bool(image["error_message"])) == (status, status == "deleted")


@pytest.mark.parametrize("url", ["https://", "https://[", "http://[::1/golden.img", "ftp://[x]/a"])
async def test_a_url_that_is_none_is_refused(call: Caller, url: str) -> None:
    body = {**GOLDEN, "url": url}
    assert await call.refused(422, "POST", "/v2/images", body) == "unprocessable_entity"


async def test_a_tag_is_kept_once_as_it_was_written_first(call: Caller) -> None:
    tags = ["Prod", "web", "prod", "web", "GRÖSSE", "größe"]
    image = (await call("POST", "/v2/images", {**GOLDEN, "tags": tags})).body["image"]
    assert image["tags"] == ["Prod", "web", "GRÖSSE"]
    assert (await call("GET", f"/v2/images/{image['id']}")).body["image"]["tags"] == image["tags"]


async def test_a_team_that_is_no_uuid_accepts_nothing(call: Caller, emulator: ImagesEmulator) -> None:
    offers = f"/v2/images/{emulator.images.add()}/account_transfer"
    number = (await call("POST", offers, {"recipient_email": "a@example.com"})).body["transfer_id"]
    body = {"transfer_id": number, "recipient_uuid": "not-a-uuid"}
    assert await call.refused(422, "POST", f"{offers}/accept", body) == "unprocessable_entity"
    upper = {**body, "recipient_uuid": TEAM.upper()}
    assert (await call("POST", f"{offers}/accept", upper)).status == 201


@pytest.mark.parametrize("field", GOLDEN)
async def test_a_field_that_is_missing(call: Caller, field: str) -> None:
    answer = await call(
        "POST", "/v2/images", {name: value for name, value in GOLDEN.items() if name != field}
    )
    assert (answer.status, answer.body["message"]) == (422, f"{field} is required")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b"\xff\xfe",
        b"[" * 10_000,
        *SURROGATES,
    ],
)
@pytest.mark.parametrize(
    ("method", "suffix"),
    [("PUT", ""), ("POST", "/actions"), *(("POST", f"/account_transfer{end}") for end in ("", "/accept"))],
)
async def test_bodies_that_are_no_json_objects(
    call: Caller, mine: str, data: bytes, method: str, suffix: str
) -> None:
    headers = {"Content-Type": "application/json"}
    assert await call.refused(400, method, mine + suffix, data=data, headers=headers) == "bad_request"


@pytest.mark.parametrize("field", ["name", "description", "tags"])
async def test_an_image_is_not_created_with_a_string_that_is_no_text(
    emulator: ImagesEmulator, call: Caller, field: str
) -> None:
    before = len(emulator.images)
    body = {**GOLDEN, field: ["\ud800"] if field == "tags" else "\ud800"}
    assert await call.refused(400, "POST", "/v2/images", body) == "bad_request"
    assert len(emulator.images) == before
    assert emulator.requests[-1].body is None  # so that the journal can be read as JSON


async def test_bodies_that_are_something_else(call: Caller, mine: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    kind = await call.refused(415, "PUT", mine, data=b'{"name": "x"}', headers=form)
    assert kind == "unsupported_media_type"
    large = io.BytesIO(json.dumps({**GOLDEN, "description": "x" * 2**20}).encode())
    json_type = {"Content-Type": "application/json; charset=utf-8"}
    assert await call.refused(413, "POST", "/v2/images", data=large, headers=json_type) == "payload_too_large"


@pytest.mark.parametrize("ending", ["accept", "cancel", "decline"])
async def test_a_transfer_ends_when_its_image_is_deleted(
    call: Caller, emulator: ImagesEmulator, ending: str
) -> None:
    gone, kept = (f"/v2/images/{emulator.images.add()}" for _ in range(2))
    offers = [
        (await call("POST", f"{path}/account_transfer", {"recipient_uuid": TEAM})).body["transfer_id"]
        for path in (gone, kept)
    ]
    assert (await call("DELETE", gone)).status == 204
    body = {"transfer_id": offers[0], "recipient_uuid": TEAM}
    assert await call.refused(404, "POST", f"{gone}/account_transfer/{ending}", body) == "not_found"
    assert [transfer.state for transfer in emulator.transfers] == ["cancelled", "pending"]
    body = {"transfer_id": offers[1], "recipient_uuid": TEAM}
    assert (await call("POST", f"{kept}/account_transfer/{ending}", body)).body is None
    assert await call.refused(409, "POST", f"{kept}/account_transfer/{ending}", body) == "conflict"


@pytest.mark.parametrize(
    ("suffix", "body"),
    [
        *(("/actions", {}), ("/actions", {"type": 1})),
        *(("/actions", {"type": "transfer"}), ("/actions", {"type": "transfer", "region": "mars1"})),
        *(("/account_transfer", {}), ("/account_transfer", {"recipient_email": 5})),
        ("/account_transfer", {"recipient_email": "a@example.com", "recipient_uuid": TEAM}),
        *(
            ("/account_transfer", {"recipient_uuid": odd})
            for odd in ("b", "not-a-uuid", f"{TEAM}0", TEAM[:-1])
        ),
        *(
            ("/account_transfer", {"recipient_email": odd})
            for odd in ("nomail", "@", "a@", "@b.c", "a b@c.d")
        ),
        *(("/account_transfer/accept", {"recipient_uuid": TEAM}), ("/account_transfer/cancel", {})),
        *((f"/account_transfer/{end}", {"transfer_id": "3164444"}) for end in ("cancel", "decline")),
        ("/account_transfer/cancel", {"transfer_id": True}),
    ],
)
async def test_bodies_of_actions_that_are_refused(
    call: Caller, mine: str, suffix: str, body: dict[str, Any]
) -> None:
    assert await call.refused(422, "POST", mine + suffix, body) == "unprocessable_entity"


async def test_what_is_not_there(call: Caller, mine: str) -> None:
    for path in ("/v2/images/1", "/v2/images/no-such-slug", "/v2/images/" + "9" * 5000, f"{mine}/actions/1"):
        assert await call.refused(404, "GET", path) == "not_found"
    for path in ("/v2/droplets", "/", "/v2/images/1/2/3/4"):
        assert await call.refused(404, "GET", path) == "not_found"
    assert await call.refused(404, "PUT", "/v2/images/ubuntu-24-04-x64", {"name": "x"}) == "not_found"
    offer = f"{mine}/account_transfer"
    assert await call.refused(404, "POST", f"{offer}/cancel", {"transfer_id": 10**30}) == "not_found"


async def test_a_method_that_is_not_there(call: Caller, mine: str) -> None:
    assert await call.refused(405, "PATCH", mine, {"name": "x"}) == "method_not_allowed"
    answer = await call("PUT", "/v2/images", {})
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    answer = await call("OPTIONS", mine)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, PUT, DELETE")


async def test_the_providers_images_stay(emulator: ImagesEmulator, call: Caller) -> None:
    assert await call.refused(403, "DELETE", public(emulator)) == "forbidden"
    assert await call.refused(403, "PUT", public(emulator), {"name": "x"}) == "forbidden"


async def test_conflicts(emulator: ImagesEmulator, call: Caller, mine: str) -> None:
    emulator.actions.seconds = 60
    action = {"type": "transfer", "region": "ams3"}
    assert (await call("POST", f"{mine}/actions", action)).status == 201
    assert await call.refused(409, "POST", f"{mine}/actions", action) == "conflict"
    offer = {"recipient_email": "a@example.com"}
    assert (await call("POST", f"{mine}/account_transfer", offer)).status == 201
    assert await call.refused(409, "POST", f"{mine}/account_transfer", offer) == "conflict"


async def test_faults_with_a_status_alone_have_the_apis_shape(emulator: ImagesEmulator, call: Caller) -> None:
    """Check 500 as well, which the description lacks: the emulator never fails by itself."""
    for status in (400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504):
        emulator.faults.add(Fault(status=status))
        async with call.session.get(f"{emulator.url}/v2/images") as response:
            body = await response.json()
        assert response.status == status
        for description in DESCRIPTIONS:
            description.check("GET", "/no/such/path", 404, response.headers, body)


# --- tokens and quota ---


async def test_tokens_that_are_refused_are_told_the_same(emulator: ImagesEmulator, call: Caller) -> None:
    expired = emulator.tokens.issue(expires_in=0)
    revoked = emulator.tokens.issue()
    emulator.tokens.revoke(revoked)
    for token in (None, "dop_v1_unknown", expired, revoked):
        answer = await call("GET", "/v2/images", token=token)
        assert answer.status == 401
        assert (answer.body["id"], answer.body["message"]) == ("unauthorized", "Unable to authenticate you.")
    headers = {"Authorization": "Basic dXNlcjpwYXNz"}
    assert await call.refused(401, "GET", "/v2/images", token=None, headers=headers) == "unauthorized"


async def test_a_token_expires(call: Caller) -> None:
    now = 1000.0
    async with ImagesEmulator(clock=lambda: now) as emulator:
        other = attrs.evolve(call, emulator=emulator)
        token = emulator.tokens.issue(expires_in=60)
        now = 1059.0
        assert (await other("GET", "/v2/images", token=token)).status == 200
        now = 1060.0
        assert (await other("GET", "/v2/images", token=token)).status == 401


SCOPES = [
    ("GET", "", None, {"image:read"}),
    ("PUT", "", {"name": "x"}, {"image:update"}),
    ("DELETE", "", None, {"image:delete"}),
    ("GET", "/actions", None, {"image:read"}),
    ("POST", "/actions", {"type": "transfer", "region": "ams3"}, {"image:update"}),
    ("POST", "/account_transfer", {"recipient_email": "a@b.c"}, {"image:update", "image:delete"}),
]
ALL_SCOPES = {"image:read", "image:create", "image:update", "image:delete", "tag:create"}


@pytest.mark.parametrize(("method", "suffix", "body", "needed"), SCOPES)
async def test_a_token_can_do_what_its_scopes_say(
    emulator: ImagesEmulator, call: Caller, mine: str, method: str, suffix: str, body: Any, needed: set[str]
) -> None:
    for scope in needed:
        lacking = emulator.tokens.issue(scopes=ALL_SCOPES - {scope})
        answer = await call(method, mine + suffix, body, token=lacking)
        assert (answer.status, answer.body["id"]) == (403, "forbidden")
        assert scope in answer.body["message"]
    assert (await call(method, mine + suffix, body, token=emulator.tokens.issue(scopes=needed))).status < 300


async def test_tags_need_a_scope_of_their_own(emulator: ImagesEmulator, call: Caller) -> None:
    token = emulator.tokens.issue(scopes=["image:create"])
    assert (await call("POST", "/v2/images", {**GOLDEN, "tags": []}, token=token)).status == 202
    answer = await call("POST", "/v2/images", {**GOLDEN, "tags": ["prod"]}, token=token)
    assert (answer.status, answer.body["message"]) == (403, "The token lacks the scope tag:create.")
    token = emulator.tokens.issue(scopes=["image:create", "tag:create"])
    assert (await call("POST", "/v2/images", {**GOLDEN, "tags": ["prod"]}, token=token)).status == 202


async def test_a_spent_minute_says_when_to_come_back_and_a_spent_hour_does_not(call: Caller) -> None:
    now = 10_000.0
    async with ImagesEmulator(quotas=(Quota(2, 60.0), Quota(3, 3600.0)), clock=lambda: now) as emulator:
        other = attrs.evolve(call, emulator=emulator)
        statuses = [(await other("GET", "/v2/images")).status for _ in range(2)]
        assert statuses == [200, 200]
        minute = await other("GET", "/v2/images")
        assert (minute.status, minute.headers["retry-after"]) == (429, "60")
        assert minute.headers["ratelimit-remaining"] == "0"
        now = 10_070.0
        hour = await other("GET", "/v2/images")
        assert (hour.status, "retry-after" in hour.headers) == (429, False)
        assert hour.headers["ratelimit-reset"] == "13600"
        assert hour.body["id"] == "too_many_requests"


@pytest.mark.parametrize(
    ("quotas", "retry_after"),
    [
        ((Quota(1, 60.0),), "60"),
        ((Quota(1, 2.5), Quota(1, 1800.0)), "1800"),
        ((Quota(1, 3600.0),), None),
        ((Quota(1, 60.0), Quota(1, 7200.0)), None),
    ],
)
async def test_a_quota_of_less_than_an_hour_says_when_to_come_back(
    call: Caller, quotas: tuple[Quota, ...], retry_after: str | None
) -> None:
    async with ImagesEmulator(images=0, quotas=quotas, clock=lambda: 10_000.0) as emulator:
        other = attrs.evolve(call, emulator=emulator)
        assert (await other("GET", "/v2/images")).status == 200
        refused = await other("GET", "/v2/images")
    assert (refused.status, refused.headers.get("retry-after")) == (429, retry_after)


async def test_a_spent_minute_can_also_report_what_the_hour_has_left(call: Caller) -> None:
    quotas = (Quota(2, 60.0), Quota(10, 3600.0))
    async with ImagesEmulator(quotas=quotas, burst_remaining_zero=False) as emulator:
        other = attrs.evolve(call, emulator=emulator)
        answers = [await other("GET", "/v2/images") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].headers["ratelimit-remaining"] == "7"
    assert "retry-after" in answers[2].headers


# --- answers as others have recorded them ---


@pytest.fixture
async def observed() -> AsyncIterator[ImagesEmulator]:
    async with ImagesEmulator(
        quotas=UNLIMITED, import_seconds=0, action_seconds=0, style="observed"
    ) as running:
        yield running


def test_the_style_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="style must be one of documented, observed"):
        ImagesEmulator(style=cast("Any", "real"))


async def test_every_answer_has_a_request_id(call: Caller, mine: str) -> None:
    answers = [
        await call("GET", "/v2/images"),
        await call("GET", mine),
        await call("GET", "/v2/images/1"),
        await call("GET", "/v2/images", token="unknown"),
        await call("POST", "/v2/images", GOLDEN),
        await call("PUT", mine, {"name": "b"}),
        await call("DELETE", mine),
    ]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == len(answers)


async def test_success_and_error_say_how_they_may_be_cached(call: Caller, mine: str) -> None:
    found = await call("GET", mine)
    assert found.headers["content-type"] == "application/json; charset=utf-8"
    assert found.headers["cache-control"] == "max-age=0, private, must-revalidate"
    assert found.headers["etag"] == (await call("GET", mine)).headers["etag"]
    assert found.headers["etag"] != (await call("GET", "/v2/images")).headers["etag"]
    missing = await call("GET", "/v2/images/1")
    assert (missing.headers["cache-control"], "etag" in missing.headers) == ("no-cache", False)


@pytest.mark.parametrize(
    ("style", "unauthorized", "forbidden"),
    [
        (
            "documented",
            ("unauthorized", "Unable to authenticate you."),
            ("forbidden", "The token lacks the scope image:read."),
        ),
        (
            "observed",
            ("Unauthorized", "Unable to authenticate you"),
            ("Forbidden", "You are not authorized to perform this operation"),
        ),
    ],
)
async def test_both_spellings_of_the_errors(
    call: Caller, style: Any, unauthorized: tuple[str, str], forbidden: tuple[str, str]
) -> None:
    async with ImagesEmulator(style=style) as emulator:
        other = attrs.evolve(call, emulator=emulator)
        refused = await other("GET", "/v2/images", token=None)
        assert (refused.status, refused.body["id"], refused.body["message"]) == (401, *unauthorized)
        assert ("ratelimit-remaining" in refused.headers) == (style == "documented")
        assert ("request_id" in refused.body) == (style == "documented")
        token = emulator.tokens.issue(scopes=["image:create"])
        refused = await other("GET", "/v2/images", token=token)
        assert (refused.status, refused.body["id"], refused.body["message"]) == (403, *forbidden)


async def test_an_unknown_path_is_not_found_with_or_without_a_token(
    emulator: ImagesEmulator, call: Caller
) -> None:
    expired = emulator.tokens.issue(expires_in=0)
    for token in (None, "unknown", expired):
        answer = await call("GET", "/v2/no/such/path", token=token)
        assert (answer.status, answer.body["id"]) == (404, "not_found")
        assert answer.body["message"] == "The resource you were accessing could not be found."
        assert "ratelimit-remaining" not in answer.headers
    assert "ratelimit-remaining" in (await call("GET", "/v2/no/such/path")).headers


async def test_an_unknown_action_type_is_not_found(call: Caller, mine: str) -> None:
    answer = await call("POST", f"{mine}/actions", {"type": "explode"})
    assert (answer.status, answer.body["id"]) == (404, "not_found")
    assert answer.body["message"] == "The specified action type is not available."


async def test_a_slash_at_the_end_of_a_path_is_taken(emulator: ImagesEmulator, call: Caller) -> None:
    first, second = emulator.images.add(), emulator.images.add()
    async with aiohttp.ClientSession(
        emulator.url, headers={"Authorization": f"Bearer {emulator.token}"}
    ) as session:
        for method, path, body, status in (
            ("GET", "/v2/images/", None, 200),
            ("POST", "/v2/images/", GOLDEN, 202),
            ("GET", f"/v2/images/{first}/", None, 200),
            ("GET", "/v2/images/debian-12-x64/", None, 200),
            ("PUT", f"/v2/images/{first}/", {"name": "b"}, 200),
            ("POST", f"/v2/images/{first}/actions/", {"type": "transfer", "region": "ams3"}, 201),
            ("GET", f"/v2/images/{first}/actions/", None, 200),
            ("POST", f"/v2/images/{first}/account_transfer/", {"recipient_email": "a@b.c"}, 201),
            ("PATCH", f"/v2/images/{first}/", None, 405),
            ("DELETE", f"/v2/images/{second}/", None, 204),
            ("GET", f"/v2/images/{second}/", None, 404),
        ):
            async with session.request(method, path, json=body) as response:
                assert response.status == status, (method, path)
    assert emulator.requests.count("GET", f"/v2/images/{first}") == 1
    fault = emulator.faults.add(Fault(path="/v2/images", status=500))
    assert (await call("GET", "/v2/images/1")).status == 404
    async with call.session.get(f"{emulator.url}/v2/images/") as response:
        assert response.status == 500
    assert fault.struck == 1


async def test_resets_lie_in_the_past_by_choice_and_by_fault(observed: ImagesEmulator, call: Caller) -> None:
    other = attrs.evolve(call, emulator=observed)
    now = int(time.time())
    late = [
        int((await other("GET", "/v2/images?per_page=1")).headers["ratelimit-reset"]) - now for _ in range(40)
    ]
    assert {reset < 0 for reset in late} == {True, False}
    assert min(late) >= -3600
    async with ImagesEmulator(quotas=UNLIMITED, clock=lambda: 10_000.0) as emulator:
        emulator.faults.add(Fault(reset_in=-600))
        other = attrs.evolve(call, emulator=emulator)
        assert (await other("GET", "/v2/images")).headers["ratelimit-reset"] == "9400"
        assert (await other("GET", "/v2/images")).headers["ratelimit-reset"] == "13600"


async def test_old_images_lack_fields_and_both_descriptions_allow_them(
    observed: ImagesEmulator, call: Caller
) -> None:
    other = attrs.evolve(call, emulator=observed)
    images = (await other("GET", "/v2/images?per_page=200")).body["images"]
    optional = {"description", "tags", "status", "error_message", "size_gigabytes", "slug"}
    assert {name for name in optional if any(name not in image for image in images)} == optional
    old = [image for image in images if image["id"] < 10_000_000]
    assert any(image.get("slug") == "" for image in old)
    assert any(len(image["regions"]) > len(set(image["regions"])) for image in old)
    assert any(image["public"] and image["type"] == "snapshot" for image in old)
    for image in old:
        assert (await other("GET", f"/v2/images/{image['id']}")).body == {"image": image}
    assert (await other("GET", "/v2/images/ubuntu-14-04-x64")).body["image"]["id"] == old[0]["id"]
    (action,) = (await other("GET", f"/v2/images/{old[-1]['id']}/actions")).body["actions"]
    assert (action["status"], action["completed_at"]) == ("completed", None)
    for query in ("?type=application", "?type=distribution", "?private=true", "?tag_name=prod"):
        assert (await other("GET", f"/v2/images{query}")).status == 200
    for image in old[1:]:
        path = f"/v2/images/{image['id']}"
        assert (await other("PUT", path, {"name": "b"})).status == 200
        assert (await other("POST", f"{path}/actions", {"type": "transfer", "region": "ams3"})).status == 201
        assert (await other("DELETE", path)).status == 204


async def test_observed_links_may_be_empty_lack_per_page_or_have_a_slash(
    observed: ImagesEmulator, call: Caller
) -> None:
    other = attrs.evolve(call, emulator=observed)
    assert (await other("GET", "/v2/images?per_page=200")).body["links"] == {}
    pages = (await other("GET", "/v2/images?per_page=10&page=2")).body["links"]["pages"]
    assert pages["next"] == f"{observed.url}/v2/images?page=3"
    assert pages["first"] == f"{observed.url}/v2/images?page=1"
    pages = (await other("GET", "/v2/images?per_page=10")).body["links"]["pages"]
    assert pages["next"] == f"{observed.url}/v2/images/?per_page=10&page=2&sort=created_at"


async def test_the_client_reads_all_of_an_account_as_observed(observed: ImagesEmulator) -> None:
    async with ImagesAPI(observed.token, base_url=observed.url) as api:
        listed = [image async for image in api.list(per_page=10)]
        assert {image.id for image in listed} == {image["id"] for image in observed.images}
        for image in listed:
            assert await api.get(image.id) == image


@pytest.mark.parametrize("status", [*range(520, 528), 529, 530])
async def test_the_edge_answers_with_html(emulator: ImagesEmulator, call: Caller, status: int) -> None:
    emulator.faults.add(Fault(status=status))
    await _expect_edge_page(call, status)


async def test_any_status_can_be_the_edges(emulator: ImagesEmulator, call: Caller) -> None:
    for fault in (Fault(edge=True), Fault(edge=True, status=502), Fault(edge=True, status=502, after=True)):
        emulator.faults.add(fault)
        await _expect_edge_page(call, 502)
    emulator.faults.add(Fault(status=522, body={"id": "x"}))
    async with call.session.get(f"{emulator.url}/v2/images") as response:
        assert (response.status, await response.json()) == (522, {"id": "x"})


async def _expect_edge_page(call: Caller, status: int) -> None:
    headers = {"Authorization": f"Bearer {call.emulator.token}"}
    async with call.session.get(f"{call.emulator.url}/v2/images", headers=headers) as response:
        text = await response.text()
    assert (response.status, response.content_type) == (status, "text/html")
    assert response.headers["server"] == "cloudflare"
    assert text.startswith("<!DOCTYPE html>")
    assert f"Error {status}" in text
    assert not [name for name in response.headers if name.lower().startswith(("ratelimit", "x-request"))]


async def test_a_request_timeout_is_an_error_of_the_api(emulator: ImagesEmulator, call: Caller) -> None:
    emulator.faults.add(Fault(status=408))
    async with call.session.get(f"{emulator.url}/v2/images") as response:
        assert (response.status, (await response.json())["id"]) == (408, "request_timeout")


# --- requests that nobody would think of ---


def fuzz(document: Path, directory: Path, *options: str) -> Counter[int | None]:
    """Run schemathesis over the description; return the answers."""
    with ImagesEmulator(images=30, quotas=UNLIMITED, import_seconds=0.05, action_seconds=0.05) as emulator:
        command = (
            *(sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", emulator.url),
            *("-H", f"Authorization: Bearer {emulator.token}", "--seed", "7", "--generation-deterministic"),
            # What is valid can be refused all the same: only a snapshot can be offered. And it takes an image
            # that has no such transfer for one that is not there.
            *("--exclude-checks", "positive_data_acceptance,ensure_resource_availability"),
            *("--no-color", "--warnings", "off", "--max-examples", "3", *options),
        )
        outcome = subprocess.run(  # noqa: S603
            command, cwd=directory, env=dict(os.environ), capture_output=True, text=True, check=False
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return emulator.served


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(300)  # seconds of work, but all of it on the processor
def test_schemathesis_over_our_description(tmp_path: Path) -> None:
    # The phase of coverage takes the most time, and once is enough.
    phases = "examples,fuzzing,stateful" if PROVIDERS.exists() else "examples,coverage"
    served = fuzz(OWN, tmp_path, "--phases", phases)
    assert {200, 202, 400, 401, 404, 422} <= set(served)


@pytest.mark.slow
@pytest.mark.skipif(not PROVIDERS.exists(), reason="the provider's description is not here")
@pytest.mark.once
@pytest.mark.timeout(300)
def test_schemathesis_over_the_providers_description(tmp_path: Path) -> None:
    document = load(PROVIDERS)
    for path, method in (("/v2/images", "post"), ("/v2/images/{image_id}", "put")):
        _take_any_distribution(document["paths"][path][method]["requestBody"])
    copy = tmp_path / "images.json"
    copy.write_text(json.dumps(document, default=str), encoding="utf-8")
    served = fuzz(copy, tmp_path, "--phases", "examples,coverage")
    assert {200, 202, 400, 401, 404, 405, 415, 422} <= set(served)


def _take_any_distribution(node: Any) -> None:
    """Accept any distribution in the schema, as its text says: other values are ignored."""
    if isinstance(node, dict):
        fields = cast("dict[str, Any]", node)
        if "distribution" in fields.get("properties", {}):
            fields["properties"] = {**fields["properties"], "distribution": {"type": "string"}}
        for value in fields.values():
            _take_any_distribution(value)
    elif isinstance(node, list):
        for value in node:  # pyright: ignore[reportUnknownVariableType]
            _take_any_distribution(value)


# --- the judge ---


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda each: each.name)
def test_a_wrong_answer_is_noticed(description: Description) -> None:
    headers = {
        "content-type": "application/json",
        "ratelimit-limit": "5000",
        "ratelimit-remaining": "1",
        "ratelimit-reset": "1",
    }
    error = {"id": "x", "message": "y", "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9"}
    description.check("DELETE", "/v2/images/7", 404, headers, error)
    wrong: list[tuple[str, str, int, object]] = [
        ("DELETE", "/v2/images/7", 404, {"id": "x"}),
        ("DELETE", "/v2/images/7", 204, {}),
        ("GET", "/v2/images", 200, {"images": [], "links": {}}),
        ("GET", "/v2/images", 200, {"images": [{"id": "7"}], "links": {"pages": {}}, "meta": {"total": 1}}),
        ("GET", "/v2/images/7", 200, None),
        ("POST", "/v2/images", 200, {"image": {}}),
        ("GET", "/v2/images/7", 401, {"id": 5, "message": "y"}),
    ]
    for method, path, status, body in wrong:
        with pytest.raises((AssertionError, ValidationError)):
            description.check(method, path, status, headers, body)
