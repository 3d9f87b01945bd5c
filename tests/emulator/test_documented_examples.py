"""Every JSON example on the API page, over a socket: the request that is sent, and the decoded answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from do_images_async import (
    AccountTransfer,
    Action,
    ActionStatus,
    Image,
    ImagesAPI,
    ImageStatus,
    ImageType,
    Region,
    errors,
)
from tests.conftest import ONCE, TOKEN
from tests.support.servers import NO_CONTENT, Answer, Received, Server, content, reply

IMPORT_URL = (
    "http://cloud-images.ubuntu.com/minimal/releases/bionic/release/ubuntu-18.04-minimal-cloudimg-amd64.img"
)


def snapshot(**fields: object) -> dict[str, object]:
    return {
        "created_at": "2014-11-04T22:23:02Z",
        "description": "",
        "distribution": "Ubuntu",
        "error_message": "",
        "id": 7555621,
        "min_disk_size": 20,
        "name": "Nifty New Snapshot",
        "public": False,
        "regions": ["nyc2", "nyc3"],
        "size_gigabytes": 2.34,
        "slug": None,
        "status": "available",
        "tags": [],
        "type": "snapshot",
        **fields,
    }


LIST: dict[str, object] = {
    "images": [
        snapshot(id=7555620),
        snapshot(name="Another Snapshot", regions=["nyc2"]),
        snapshot(
            created_at="2020-05-15T05:47:50Z",
            id=63663980,
            name="20.04 (LTS) x64",
            public=True,
            size_gigabytes=2.36,
            slug="ubuntu-20-04-x64",
        ),
        snapshot(distribution="Arch Linux", name="A custom image", regions=["nyc3"], type="custom"),
        snapshot(distribution="Fedora", name="An APP image"),
        snapshot(distribution="CentOS", name="A simple tagged image", tags=["simple-image"]),
    ],
    "links": {"pages": {}},
    "meta": {"total": 6},
}


def listed(**fields: Any) -> Image:
    values: dict[str, Any] = {
        "id": 7555621,
        "name": "Nifty New Snapshot",
        "type": ImageType.SNAPSHOT,
        "distribution": "Ubuntu",
        "slug": None,
        "public": False,
        "regions": ("nyc2", "nyc3"),
        "tags": (),
        "min_disk_size": 20,
        "size_gigabytes": 2.34,
        "created_at": datetime(2014, 11, 4, 22, 23, 2, tzinfo=UTC),
        "status": ImageStatus.AVAILABLE,
        "description": "",
        "error_message": "",
    }
    return Image(**(values | fields))


LISTED = [
    listed(id=7555620),
    listed(name="Another Snapshot", regions=("nyc2",)),
    listed(
        created_at=datetime(2020, 5, 15, 5, 47, 50, tzinfo=UTC),
        id=63663980,
        name="20.04 (LTS) x64",
        public=True,
        size_gigabytes=2.36,
        slug="ubuntu-20-04-x64",
    ),
    listed(distribution="Arch Linux", name="A custom image", regions=("nyc3",), type=ImageType.CUSTOM),
    listed(distribution="Fedora", name="An APP image"),
    listed(distribution="CentOS", name="A simple tagged image", tags=("simple-image",)),
]

CREATED: dict[str, object] = {
    "image": {
        "created_at": "2018-09-20T19:28:00Z",
        "description": "Cloud-optimized image w/ small footprint",
        "distribution": "Ubuntu",
        "error_message": "",
        "id": 38413969,
        "name": "ubuntu-18.04-minimal",
        "regions": [],
        "status": "NEW",
        "tags": ["base-image", "prod"],
        "type": "custom",
    }
}

RETRIEVED: dict[str, object] = {
    "image": {
        "created_at": "2014-10-17T20:24:33Z",
        "description": "",
        "distribution": "Ubuntu",
        "error_message": "",
        "id": 6918990,
        "min_disk_size": 20,
        "name": "14.04 x64",
        "public": True,
        "regions": ["nyc1", "ams1", "sfo1", "nyc2", "ams2", "sgp1", "lon1", "nyc3", "ams3", "nyc3"],
        "size_gigabytes": 2.34,
        "slug": "ubuntu-16-04-x64",
        "status": "available",
        "tags": [],
    }
}

UPDATED: dict[str, dict[str, object]] = {
    "image": {
        "created_at": "2014-11-14T16:44:03Z",
        "description": "",
        "distribution": "Ubuntu",
        "error_message": "",
        "id": 7938391,
        "min_disk_size": 20,
        "name": "new-image-name",
        "public": False,
        "regions": ["nyc3", "nyc3"],
        "size_gigabytes": 2.34,
        "slug": None,
        "status": "available",
        "tags": [],
    }
}

SIZES = (
    *("s-1vcpu-3gb", "m-1vcpu-8gb", "s-3vcpu-1gb", "s-1vcpu-2gb", "s-2vcpu-2gb", "s-2vcpu-4gb"),
    *("s-4vcpu-8gb", "s-6vcpu-16gb", "s-8vcpu-32gb", "s-12vcpu-48gb", "s-16vcpu-64gb", "s-20vcpu-96gb"),
    *("s-1vcpu-1gb", "c-1vcpu-2gb", "s-24vcpu-128gb"),
)
FEATURES = (
    *("private_networking", "backups", "ipv6", "metadata", "server_id"),
    *("install_agent", "storage", "image_transfer"),
)


def region(name: str, slug: str) -> dict[str, object]:
    return {
        "name": name,
        "slug": slug,
        "sizes": list(SIZES),
        "features": list(FEATURES),
        "available": True,
    }


ACTION: dict[str, object] = {
    "id": 36805527,
    "status": "in-progress",
    "type": "transfer",
    "started_at": "2014-11-14T16:42:45Z",
    "completed_at": None,
    "resource_id": 7938269,
    "resource_type": "image",
    "region": region("New York 3", "nyc3"),
    "region_slug": "nyc3",
}
RUNNING = Action(
    id=36805527,
    status=ActionStatus.IN_PROGRESS,
    type="transfer",
    started_at=datetime(2014, 11, 14, 16, 42, 45, tzinfo=UTC),
    completed_at=None,
    resource_id=7938269,
    resource_type="image",
    region=Region(name="New York 3", slug="nyc3", sizes=SIZES, features=FEATURES, available=True),
    region_slug="nyc3",
)
ACTIONS: dict[str, object] = {
    "actions": [
        {
            "id": 29410565,
            "status": "completed",
            "type": "transfer",
            "started_at": "2014-07-25T15:04:21Z",
            "completed_at": "2014-07-25T15:10:20Z",
            "resource_id": 7555620,
            "resource_type": "image",
            "region": region("New York 2", "nyc2"),
            "region_slug": "nyc2",
        }
    ],
    "links": {
        "pages": {
            "last": "https://api.digitalocean.com/v2/images/7555620/actions?page=5&per_page=1",
            "next": "https://api.digitalocean.com/v2/images/7555620/actions?page=2&per_page=1",
        }
    },
    "meta": {"total": 5},
}


def only_request(server: Server) -> Received:
    assert len(server.received) == 1
    request = server.received[0]
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    return request


async def test_listing_sends_what_is_documented_and_decodes_every_field(
    server: Server, api: ImagesAPI
) -> None:
    server.script(reply(LIST))
    images = [image async for image in api.list()]
    request = only_request(server)
    assert (request.method, request.path, request.body) == ("GET", "/v2/images", b"")
    assert request.query == {"page": "1", "per_page": "200"}
    assert images == LISTED
    assert [type(image.status) for image in images] == [ImageStatus] * 6


async def test_one_page_of_the_listing_is_the_curl_example(server: Server, api: ImagesAPI) -> None:
    server.script(reply(LIST))
    page = await api.list_page(page=1, per_page=1)
    assert only_request(server).query == {"page": "1", "per_page": "1"}
    assert page.images == tuple(LISTED)
    assert (page.total, page.page, page.next_page) == (6, 1, None)


@pytest.mark.parametrize(
    ("arguments", "filters"),
    [
        ({"type": "distribution"}, {"type": "distribution"}),
        ({"type": "application"}, {"type": "application"}),
        ({"private": True}, {"private": "true"}),
        ({"tag_name": "base-image"}, {"tag_name": "base-image"}),
        (
            {"type": "application", "private": True, "tag_name": "x"},
            {"type": "application", "private": "true", "tag_name": "x"},
        ),
    ],
)
async def test_filters_go_into_the_query_as_documented(
    server: Server, api: ImagesAPI, arguments: dict[str, Any], filters: dict[str, str]
) -> None:
    server.script(reply(LIST))
    await api.list_page(**arguments)
    query = only_request(server).query
    assert {name: query[name] for name in query if name not in ("page", "per_page")} == filters
    assert (query.get("page", "1"), query.get("per_page", "20")) == ("1", "20")


async def test_creating_sends_the_documented_body_and_decodes_the_subset(
    server: Server, api: ImagesAPI
) -> None:
    server.script(reply(CREATED, status=202))
    image = await api.create_custom(
        name="ubuntu-18.04-minimal",
        url=IMPORT_URL,
        distribution="Ubuntu",
        region="nyc3",
        description="Cloud-optimized image w/ small footprint",
        tags=["base-image", "prod"],
    )
    request = only_request(server)
    assert (request.method, request.target) == ("POST", "/v2/images")
    assert request.headers["content-type"] == "application/json"
    assert request.json() == {
        "description": "Cloud-optimized image w/ small footprint",
        "distribution": "Ubuntu",
        "name": "ubuntu-18.04-minimal",
        "region": "nyc3",
        "tags": ["base-image", "prod"],
        "url": IMPORT_URL,
    }
    assert image == Image(
        id=38413969,
        name="ubuntu-18.04-minimal",
        type=ImageType.CUSTOM,
        distribution="Ubuntu",
        slug=None,
        public=None,
        regions=(),
        tags=("base-image", "prod"),
        min_disk_size=None,
        size_gigabytes=None,
        created_at=datetime(2018, 9, 20, 19, 28, tzinfo=UTC),
        status=ImageStatus.NEW,
        description="Cloud-optimized image w/ small footprint",
        error_message="",
    )


@pytest.mark.parametrize(
    ("key", "path"),
    [(6918990, "/v2/images/6918990"), ("ubuntu-16-04-x64", "/v2/images/ubuntu-16-04-x64")],
)
async def test_retrieving_by_id_or_slug(server: Server, api: ImagesAPI, key: int | str, path: str) -> None:
    server.script(reply(RETRIEVED))
    image = await api.get(key)
    request = only_request(server)
    assert (request.method, request.target, request.body) == ("GET", path, b"")
    assert image == Image(
        id=6918990,
        name="14.04 x64",
        type=None,
        distribution="Ubuntu",
        slug="ubuntu-16-04-x64",
        public=True,
        regions=("nyc1", "ams1", "sfo1", "nyc2", "ams2", "sgp1", "lon1", "nyc3", "ams3", "nyc3"),
        tags=(),
        min_disk_size=20,
        size_gigabytes=2.34,
        created_at=datetime(2014, 10, 17, 20, 24, 33, tzinfo=UTC),
        status=ImageStatus.AVAILABLE,
        description="",
        error_message="",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "new-image-name"},
        {"name": "Nifty New Snapshot", "distribution": "Ubuntu", "description": " "},
    ],
)
async def test_updating_sends_what_was_given_and_no_more(
    server: Server, api: ImagesAPI, changes: dict[str, str]
) -> None:
    server.script(reply({"image": {**UPDATED["image"], "name": changes["name"]}}))
    image = await api.update(7938391, **changes)
    request = only_request(server)
    assert (request.method, request.target) == ("PUT", "/v2/images/7938391")
    assert request.headers["content-type"] == "application/json"
    assert request.json() == changes
    assert image == Image(
        id=7938391,
        name=changes["name"],
        type=None,
        distribution="Ubuntu",
        slug=None,
        public=False,
        regions=("nyc3", "nyc3"),
        tags=(),
        min_disk_size=20,
        size_gigabytes=2.34,
        created_at=datetime(2014, 11, 14, 16, 44, 3, tzinfo=UTC),
        status=ImageStatus.AVAILABLE,
        description="",
        error_message="",
    )


async def test_deleting_returns_none(server: Server, api: ImagesAPI) -> None:
    server.script(NO_CONTENT)
    result: object = await api.delete(7938391)  # type: ignore[func-returns-value]
    request = only_request(server)
    assert (request.method, request.target, request.body) == ("DELETE", "/v2/images/7938391", b"")
    assert result is None


async def test_listing_actions_as_in_the_curl_example(server: Server, api: ImagesAPI) -> None:
    # The example's links lead to the API's own address, so the page must not be asked of another.
    document = {**ACTIONS, "links": {"pages": {"next": f"{server.url}/v2/images/7555620/actions?page=2"}}}
    server.script(reply(document))
    page = await api.actions.list_page(7555620, page=1, per_page=1)
    request = only_request(server)
    assert (request.method, request.path, request.body) == ("GET", "/v2/images/7555620/actions", b"")
    assert request.query == {"page": "1", "per_page": "1"}
    assert page.actions == (
        Action(
            id=29410565,
            status=ActionStatus.COMPLETED,
            type="transfer",
            started_at=datetime(2014, 7, 25, 15, 4, 21, tzinfo=UTC),
            completed_at=datetime(2014, 7, 25, 15, 10, 20, tzinfo=UTC),
            resource_id=7555620,
            resource_type="image",
            region=Region(name="New York 2", slug="nyc2", sizes=SIZES, features=FEATURES, available=True),
            region_slug="nyc2",
        ),
    )
    assert (page.total, page.next_page) == (5, 2)


async def test_the_links_of_the_example_are_read_for_their_number_by_another_origin(
    server: Server, api: ImagesAPI
) -> None:
    server.script(reply(ACTIONS))
    assert (await api.actions.list_page(7555620)).next_page == 2


async def test_retrieving_an_action(server: Server, api: ImagesAPI) -> None:
    server.script(reply({"action": ACTION}))
    assert await api.actions.get(7938269, 36805527) == RUNNING
    request = only_request(server)
    assert (request.method, request.target) == ("GET", "/v2/images/7938269/actions/36805527")


@pytest.mark.parametrize("document", [{"action": ACTION}, ACTION], ids=["wrapped", "unwrapped"])
async def test_transferring_to_a_region(server: Server, api: ImagesAPI, document: object) -> None:
    """Decode the page's example, whose action names another region than the requested one."""
    server.script(reply(document, status=201), reply({"image": {"id": 7938269, "regions": ["nyc3"]}}))
    assert await api.actions.transfer(7938269, "nyc2") == RUNNING
    request = server.received[0]
    assert server.methods == ["POST", "GET"]
    assert (request.method, request.target) == ("POST", "/v2/images/7938269/actions")
    assert request.json() == {"type": "transfer", "region": "nyc2"}


async def test_converting(server: Server, api: ImagesAPI) -> None:
    server.script(reply({"action": {**ACTION, "type": "convert"}}, status=201))
    assert await api.actions.convert(7938269) == attrs.evolve(RUNNING, type="convert")
    request = only_request(server)
    assert (request.method, request.target) == ("POST", "/v2/images/7938269/actions")
    assert request.json() == {"type": "convert"}


TEAM = "4f6c71e2-1e90-4762-9fee-6cc4a0a9f2cf"


@pytest.mark.parametrize(
    ("recipient", "body"),
    [
        ({"email": "alice@example.com"}, {"recipient_email": "alice@example.com"}),
        ({"team_uuid": TEAM}, {"recipient_uuid": TEAM}),
    ],
)
@pytest.mark.parametrize(("number", "transfer_id"), [(3164444, 3164444), (0, None)])
async def test_beginning_an_account_transfer(
    server: Server,
    api: ImagesAPI,
    recipient: dict[str, str],
    body: dict[str, str],
    number: int,
    transfer_id: int | None,
) -> None:
    server.script(reply({"transfer_id": number}, status=201))
    transfer = await api.account_transfers.create(7555620, **recipient)
    assert transfer == AccountTransfer(image_id=7555620, transfer_id=transfer_id)
    assert transfer.accepted is (number == 0)
    request = only_request(server)
    assert (request.method, request.target) == ("POST", "/v2/images/7555620/account_transfer")
    assert request.json() == body


@pytest.mark.parametrize(
    ("verb", "status", "more", "body"),
    [
        ("accept", 201, {"team_uuid": TEAM}, {"recipient_uuid": TEAM}),
        ("cancel", 204, {}, {}),
        ("decline", 204, {}, {}),
    ],
)
async def test_answering_an_account_transfer(
    server: Server, api: ImagesAPI, verb: str, status: int, more: dict[str, str], body: dict[str, str]
) -> None:
    server.script(content(b"", status=status) if status == 201 else NO_CONTENT)
    assert await getattr(api.account_transfers, verb)(9375231, 3164444, **more) is None
    request = only_request(server)
    assert (request.method, request.target) == ("POST", f"/v2/images/9375231/account_transfer/{verb}")
    assert request.json() == {"transfer_id": 3164444, **body}


CALLS: dict[str, Callable[[ImagesAPI], Awaitable[object]]] = {
    "list": lambda api: api.list_page(),
    "create": lambda api: api.create_custom(name="a", url="https://example.com/a.img", region="nyc3"),
    "get": lambda api: api.get(1),
    "update": lambda api: api.update(1, name="a"),
    "delete": lambda api: api.delete(1),
    "list actions": lambda api: api.actions.list_page(1),
    "get action": lambda api: api.actions.get(1, 2),
    "transfer": lambda api: api.actions.transfer(1, "nyc3"),
    "convert": lambda api: api.actions.convert(1),
    "create account transfer": lambda api: api.account_transfers.create(1, email="alice@example.com"),
    "accept account transfer": lambda api: api.account_transfers.accept(1, 2, team_uuid=TEAM),
    "cancel account transfer": lambda api: api.account_transfers.cancel(1, 2),
    "decline account transfer": lambda api: api.account_transfers.decline(1, 2),
}
EVERYWHERE = [
    (401, "unauthorized", "Unable to authenticate you.", errors.AuthenticationError),
    (429, "too_many_requests", "API rate limit exceeded.", errors.RateLimitError),
    (500, "server_error", "Unexpected server-side error", errors.ServerError),
    (418, "example_error", "some error message", errors.APIError),
]
MISSING = (404, "not_found", "The resource you were accessing could not be found.", errors.NotFoundError)
UNREADABLE = (400, "bad_request", "error parsing request body", errors.BadRequestError)


def documented_errors(name: str) -> list[tuple[int, str, str, type[errors.APIError]]]:
    missing = [] if name in ("list", "create") else [MISSING]
    return [*EVERYWHERE, *missing, *([UNREADABLE] if "account transfer" in name else [])]


DOCUMENTED_ERRORS = [(name, *error) for name in CALLS for error in documented_errors(name)]


@pytest.mark.parametrize(("name", "status", "id_", "message", "error_class"), DOCUMENTED_ERRORS)
async def test_error_examples_become_errors(
    server: Server, api: ImagesAPI, name: str, status: int, id_: str, message: str, error_class: type
) -> None:
    headers = {"ratelimit-limit": "5000", "ratelimit-remaining": "4816", "ratelimit-reset": "1444931833"}
    answer: Answer = reply({"id": id_, "message": message}, status=status, headers=headers)
    server.script(answer)
    with pytest.raises(errors.APIError) as caught:
        await CALLS[name](api.with_options(retry=ONCE))
    error = caught.value
    assert type(error) is error_class
    assert (error.status, error.id, error.message, error.request_id) == (status, id_, message, None)
    assert error.rate_limit is not None
    assert (error.rate_limit.limit, error.rate_limit.remaining) == (5000, 4816)
    assert error.rate_limit.reset_at == datetime(2015, 10, 15, 17, 57, 13, tzinfo=UTC)
    assert len(server.received) == 1


async def test_the_quota_headers_are_kept(server: Server, api: ImagesAPI) -> None:
    headers = {"ratelimit-limit": "5000", "ratelimit-remaining": "4816", "ratelimit-reset": "1444931833"}
    server.script(reply(RETRIEVED, headers=headers), reply(LIST, headers=headers))
    assert api.rate_limit is None
    await api.get(6918990)
    assert api.rate_limit is not None
    assert (api.rate_limit.limit, api.rate_limit.remaining, api.rate_limit.reset) == (5000, 4816, 1444931833)
    assert (await api.list_page()).rate_limit == api.rate_limit
