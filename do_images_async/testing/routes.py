"""The endpoints under `/v2/images`. Each checks the request, then answers as the API page documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import attrs
from aiohttp import web
from yarl import URL

from do_images_async.testing.answers import Problem, Style, usual_problem
from do_images_async.testing.catalogue import DISTRIBUTIONS, REGIONS, Record
from do_images_async.testing.state import Filter, ImageStore
from do_images_async.testing.validation import (
    Body,
    boolean_of,
    choice_of,
    integer_of,
    invalid,
    json_object,
    not_found,
    tags_of,
    text_of,
)

__all__ = ["Answer", "Links", "Route", "Routes", "Window", "image_for_change", "with_refusals"]

T = TypeVar("T")
Answer = tuple[int, Body | None]
Handler = Callable[[web.Request], Awaitable[Answer]]

_CREATED_FIELDS = (
    *("created_at", "description", "distribution", "error_message", "id"),
    *("name", "regions", "status", "tags", "type"),
)


@attrs.frozen
class Route:
    """An endpoint.

    Attributes:
        scope: the scopes that its token needs, separated by spaces.
        authenticated: whether a request without a valid token is answered 401 rather than by the handler.
    """

    method: str
    path: str
    scope: str
    handler: Handler
    authenticated: bool = True


@attrs.frozen
class Window:
    """The part of a listing that a page shows."""

    page: int
    per_page: int

    @classmethod
    def of_request(cls, request: web.Request) -> Window:
        """Return the part that the query asks for."""
        return cls(
            page=integer_of(request.query, "page", 1, 1),
            per_page=integer_of(request.query, "per_page", 20, 1, 200),
        )

    def of(self, items: list[T]) -> list[T]:
        return items[(self.page - 1) * self.per_page : self.page * self.per_page]

    def envelope(self, request: web.Request, links_to: Links, count: int) -> Body:
        """Return the fields beside the items: the links and the total."""

        def link(number: int) -> str:
            return links_to.page(request, number)

        links: dict[str, str] = {}
        last = -(-count // self.per_page)
        if self.page > 1:
            links |= {"first": link(1), "prev": link(self.page - 1)}
        if self.page < last:
            links |= {"next": link(self.page + 1), "last": link(last)}
        pages = {"pages": links} if links or links_to.style == "documented" else {}
        return {"links": pages, "meta": {"total": count}}


@attrs.frozen
class Links:
    """The builder of the links between pages.

    Attributes:
        url: returns the emulator's own URL, for requests whose `Host` is unusable.
        style: "observed" leaves out `links.pages` where it would be empty, and varies the links: some lack
            `per_page`, others have a trailing slash and an additional parameter.
    """

    url: Callable[[], str]
    style: Style = "documented"

    def page(self, request: web.Request, number: int) -> str:
        """Return the link to a page of the listing that the request asks for."""
        path, query = request.path, {**request.query, "page": str(number)}
        if self.style == "observed" and number % 2:
            query.pop("per_page", None)
        elif self.style == "observed":
            path, query = f"{path.rstrip('/')}/", {**query, "sort": "created_at"}
        return str(URL((_origin(request) or self.url()) + path).with_query(query))


class Routes:
    """The endpoints over one account's images.

    Args:
        images: the account.
        links: builds the links between pages.
    """

    def __init__(self, images: ImageStore, links: Links) -> None:
        self._images = images
        self._links = links
        self.all: tuple[Route, ...] = (
            Route("GET", "/v2/images", "image:read", self.list_images),
            Route("POST", "/v2/images", "image:create", self.create),
            Route("GET", "/v2/images/{image_id}", "image:read", self.get),
            Route("PUT", "/v2/images/{image_id}", "image:update", self.update),
            Route("DELETE", "/v2/images/{image_id}", "image:delete", self.delete),
        )

    async def list_images(self, request: web.Request) -> Answer:
        query = request.query
        window = Window.of_request(request)
        numbers = self._images.listing(
            Filter(
                kind=choice_of(query, "type", ("application", "distribution")),
                private=boolean_of(query, "private"),
                tag_name=query.get("tag_name"),
            )
        )
        return 200, {
            "images": [self._images[number] for number in window.of(numbers)],
            **window.envelope(request, self._links, len(numbers)),
        }

    async def get(self, request: web.Request) -> Answer:
        image = self._images.find(request.match_info["image_id"])
        if image is None:
            raise not_found()
        return 200, {"image": image}

    async def create(self, request: web.Request) -> Answer:
        body = await json_object(request)
        name, url, region = (text_of(body, field, required=True) for field in ("name", "url", "region"))
        if region not in REGIONS:
            raise invalid("region is invalid")
        if not _can_be_fetched(url):
            raise invalid("url must be an http, https or ftp URL")
        image = self._images.start_import(
            name=name,
            url=url,
            region=region,
            distribution=text_of(body, "distribution") or "Unknown",
            description=text_of(body, "description"),
            tags=tags_of(body),
        )
        return 202, {"image": {field: image[field] for field in _CREATED_FIELDS}}

    async def update(self, request: web.Request) -> Answer:
        body = await json_object(request)
        image = image_for_change(self._images, request)
        allowed = ("name", "description", "distribution") if image.get("type") == "custom" else ("name",)
        changes = {
            field: text_of(body, field) for field in ("name", "description", "distribution") if field in body
        }
        if changes.get("name") == "":
            raise invalid("name must not be empty")
        for field in changes:
            if field not in allowed:
                raise invalid(f"{field} can only be changed on custom images")
        if changes.get("distribution", DISTRIBUTIONS[0]) not in DISTRIBUTIONS:
            changes["distribution"] = "Unknown"
        return 200, {"image": self._images.update(image["id"], **changes)}

    async def delete(self, request: web.Request) -> Answer:
        self._images.remove(image_for_change(self._images, request)["id"])
        return 204, None


def _can_be_fetched(url: str) -> bool:
    try:
        return url.lower().startswith(("http://", "https://", "ftp://")) and bool(urlsplit(url).netloc)
    except ValueError:  # such as https://[
        return False


def image_for_change(images: ImageStore, request: web.Request) -> Record:
    """Return the image with the id in the path; raise Problem if there is none or it is public."""
    key = request.match_info["image_id"]
    image = images.find(key) if key.isascii() and key.isdigit() else None
    if image is None:
        raise not_found()
    if image["public"]:
        raise Problem(403, "forbidden", "You do not have access for the attempted action.")
    return image


def _origin(request: web.Request) -> str | None:
    """Return the origin that the client used; clients may refuse links to another one.

    A proxy that ends TLS says so in `X-Forwarded-Proto`. It is safe to believe: whoever sends the header
    changes only the links in their own answer.
    """
    if "Host" not in request.headers:  # HTTP/1.0; aiohttp would name the machine, without the port
        return None
    try:
        origin = request.url.origin()
    except ValueError:
        return None
    scheme = request.headers.get("X-Forwarded-Proto", "").partition(",")[0].strip().lower()
    return str(origin.with_scheme(scheme) if scheme in ("http", "https") else origin)


def with_refusals(routes: Sequence[Route]) -> Iterator[Route]:
    """Yield the endpoints, then 405 for the other methods of their paths, then 404 for all other paths.

    HEAD is answered as GET is; aiohttp leaves the body out.
    """
    methods: dict[str, list[str]] = {}
    for route in routes:
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            yield attrs.evolve(route, method=method)
            methods.setdefault(route.path, []).append(method)
    for path, allowed in methods.items():
        yield Route("*", path, "", _refusal(usual_problem(405, {"allow": ", ".join(allowed)})))
    yield Route("*", "/{anything:.*}", "", _refusal(usual_problem(404)), authenticated=False)


def _refusal(problem: Problem) -> Handler:
    async def refuse(_: web.Request) -> Answer:
        raise problem

    return refuse
