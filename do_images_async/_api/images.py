"""`ImagesAPI`: one short method for each endpoint under `/v2/images`."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from functools import partial
from types import NoneType, TracebackType
from typing import Final, Self, TypeVar, overload

import aiohttp

from do_images_async._api.actions import AccountTransfers, ImageActions, check_regions
from do_images_async._api.bulk import BulkProgress, Outcome, fan_out
from do_images_async._api.changes import Change, Changes, check_changes, check_fields, check_ids
from do_images_async._api.identity import check_created, check_image
from do_images_async._api.latest import LatestFilter, LatestType, newest
from do_images_async._api.listing import ImageFilters, Listing, ListType, check_listing, page_fields
from do_images_async._api.pagination import Page
from do_images_async._api.polling import check_wait
from do_images_async._api.read_once import ReadOnce
from do_images_async._api.recovery import check_since, find_candidates
from do_images_async._api.regions import RegionCopies, Turns
from do_images_async._api.waits import until_available
from do_images_async._arguments import (
    check_bool,
    check_header,
    check_hook,
    check_image_id,
    check_image_key,
    check_import_url,
    check_text,
    check_texts,
    is_insecure,
    read_base_url,
)
from do_images_async._credentials import TokenProvider, choose_base_url, read_token_source
from do_images_async._http.attempt import hides_middlewares
from do_images_async._http.bodies import ImageBody, ImageListBody
from do_images_async._http.converter import ModelConverter
from do_images_async._http.logs import logger
from do_images_async._http.request import Call, Options, Reply
from do_images_async._http.retry import RetryPolicy
from do_images_async._http.transport import Transport
from do_images_async._quota.protocols import Limiter, check_limiter
from do_images_async._whole import WholeListing, whole_listing
from do_images_async.errors import PublicImageError
from do_images_async.events import EventHook
from do_images_async.models import Action, Image, ImagePage, RateLimit

__all__ = ["ImagesAPI"]

_PATH: Final = "/v2/images"


class _Unchanged(Enum):
    UNCHANGED = "unchanged"


UNCHANGED: Final = _Unchanged.UNCHANGED
"""Says of an argument of `update` that it was not given, which an empty string does not."""

Id = TypeVar("Id", bound=int)
Slug = TypeVar("Slug", bound=str)
Key = TypeVar("Key", bound=int | str)
Hook = Callable[[BulkProgress], object] | None


class ImagesAPI:
    """The DigitalOcean Images API, for one token.

    Docstrings name sections of the API page: https://docs.digitalocean.com/reference/api/reference/images/.

    Use it as an async context manager, or call `aclose` when you are done. It may be shared by any number of
    tasks of one event loop, which must be asyncio's: with anyio, use its asyncio backend.

    Args:
        token: what the control panel issued, or a function that returns it, or a coroutine function that
            does. None reads the environment, as `from_env` does. A function is called at the first call and
            again after a 401, once for all calls that wait for it; then the call that met the 401 is
            retried once, even with `RetryPolicy(attempts=1)`. It runs in the event loop, so it must not
            block: if it does I/O, make it a coroutine function. It may take `timeout` seconds; its exceptions
            become a `TokenError`.
        session: an aiohttp session to send through. It is never changed or closed; without one, the client
            makes its own at the first call, and closes it. Its own middlewares run for each attempt, before
            the token is on the request and a permit is taken, so outside of `timeout`; only a
            `quota_middleware` is left out. They may read a response's body, but not a part of it. Its
            `timeout`, `base_url` and `raise_for_status` are not used.
        base_url: where the API is; https, or http on this machine; with `/v2` at its end or without. None is
            the provider's address, or `DIGITALOCEAN_API_URL` if the token comes from the environment too: a
            token that is given here never goes where a variable says.
        allow_insecure_http: True allows `http://` to any host, such as an emulator's in a container. The
            token can then be read on the way; a warning is logged.
        limiter: the limiter of the requests; by default the documented 250 a minute and 5,000 an hour, shared
            by all clients in this process that use the same token at the same origin. If a function provides
            the token, the property `limiter` is the right one only after the first call.
        retry: how often a request is sent at most, and how long to wait in between.
        timeout: seconds for each attempt, from when it may be sent until its body is read; None for no limit.
        max_wait: the longest wait for quota, in seconds; None waits as long as it takes.
        user_agent: your program, such as "golden-images/1.4"; the User-Agent header begins with it, and the
            library's name and version follow.
        on_event: called with what happens to each attempt, for metrics and traces; see
            `do_images_async.events`. It must not block; what it raises is logged and goes no further.
        converter: makes models of response bodies: a copy of `do_images_async.converter` with hooks of your
            own. None uses that converter itself.

    Raises:
        TypeError, ValueError: an argument can't be used; the message names it.
    """

    def __init__(
        self,
        token: str | TokenProvider | None = None,
        *,
        session: aiohttp.ClientSession | None = None,
        base_url: str | None = None,
        allow_insecure_http: bool = False,
        limiter: Limiter | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        timeout: float | None = 30.0,
        max_wait: float | None = None,
        user_agent: str | None = None,
        on_event: EventHook | None = None,
        converter: ModelConverter | None = None,
    ) -> None:
        chosen, name = choose_base_url(base_url, from_environment=token is None)
        address = read_base_url(chosen, name, allow_insecure_http=allow_insecure_http)
        secret = read_token_source(token)
        # What is raised from here on has neither a token nor a URL's password among its local variables.
        del token, base_url, chosen
        if isinstance(secret, Exception):
            raise secret
        if isinstance(address, Exception):
            raise address
        if session is not None and not isinstance(session, aiohttp.ClientSession):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"session must be an aiohttp.ClientSession, not {type(session).__name__}")
        if limiter is not None:
            check_limiter(limiter)
        check_hook(on_event, "on_event")
        if converter is not None and not isinstance(converter, ModelConverter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"converter must be a copy of do_images_async.converter, not {type(converter).__name__}"
            )
        self._options = Options(retry=retry, timeout=timeout, max_wait=max_wait)
        self._transport = Transport(
            token=secret,
            base_url=address,
            session=session,
            limiter=limiter,
            user_agent=None if user_agent is None else check_header(user_agent, "user_agent"),
            on_event=on_event,
            converter=converter,
        )
        self._turns = Turns()
        if session is not None and hides_middlewares(session):
            logger.warning("middlewares of the session do not run for this client: this aiohttp hides them")
        if is_insecure(address):
            logger.warning("the token is sent unencrypted to %s: anybody on the way can read it", address)

    @classmethod
    def from_env(
        cls,
        *,
        session: aiohttp.ClientSession | None = None,
        allow_insecure_http: bool = False,
        limiter: Limiter | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        timeout: float | None = 30.0,
        max_wait: float | None = None,
        user_agent: str | None = None,
        on_event: EventHook | None = None,
        converter: ModelConverter | None = None,
    ) -> Self:
        """Return a client for the token in `DIGITALOCEAN_TOKEN`, else in `DIGITALOCEAN_ACCESS_TOKEN`.

        `DIGITALOCEAN_API_URL`, when set, is the base URL. White space around the values is ignored, such as
        the line feed at the end of a secret. `ImagesAPI()` does the same. Arguments and errors are those of
        the class.

        Raises:
            ValueError: neither variable is set, or one can't be used.
        """
        return cls(
            session=session,
            allow_insecure_http=allow_insecure_http,
            limiter=limiter,
            retry=retry,
            timeout=timeout,
            max_wait=max_wait,
            user_agent=user_agent,
            on_event=on_event,
            converter=converter,
        )

    async def __aenter__(self) -> Self:
        self._transport.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.leave()

    def __repr__(self) -> str:
        if not hasattr(self, "_transport"):
            return "<ImagesAPI that could not be made>"
        return f"<ImagesAPI {self._transport.base_url} {self.limiter!r}>"

    async def aclose(self) -> None:
        """Close the client, and its session unless it was passed in; doing it twice does nothing.

        Calls that are in flight or wait for quota raise `ClientStateError`.
        """
        await self._transport.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """Return the quota as the server last reported it; None before the first response."""
        return self._transport.rate_limit

    @property
    def limiter(self) -> Limiter:
        """Return the limiter of the requests."""
        return self._transport.limiter

    @property
    def actions(self) -> ImageActions:
        """Return the image actions: transfers to other regions, conversions, and waits for them."""
        return ImageActions(self._transport, self._options)

    @property
    def account_transfers(self) -> AccountTransfers:
        """Return the transfers of images to other accounts."""
        return AccountTransfers(self._transport, self._options)

    def with_options(
        self,
        *,
        retry: RetryPolicy | _Unchanged = UNCHANGED,
        timeout: float | _Unchanged | None = UNCHANGED,
        max_wait: float | _Unchanged | None = UNCHANGED,
        reserve: int | _Unchanged = UNCHANGED,
    ) -> Self:
        """Return a light copy with other options, on the same session and limiter.

        Use the copy as it is, without `async with`. A client and its copies are closed together: at the end
        of the outermost `async with` block of any of them, or by `aclose`.

        Args:
            retry, timeout, max_wait: as for the class.
            reserve: tokens that calls of the copy leave in every bucket for calls without a reserve, so that
                bulk work does not stand in the way of interactive calls. Bulk work is not starved:
                after a minute of waiting, calls with a reserve get one permit in eight.

        Raises:
            TypeError, ValueError: an option can't be used.
        """
        now = self._options
        if reserve is not UNCHANGED:
            self.limiter.check_reserve(reserve)
        copied = copy.copy(self)
        copied._options = Options(  # noqa: SLF001  (our own copy)
            retry=now.retry if retry is UNCHANGED else retry,
            timeout=now.timeout if timeout is UNCHANGED else timeout,
            max_wait=now.max_wait if max_wait is UNCHANGED else max_wait,
            reserve=now.reserve if reserve is UNCHANGED else reserve,
        )
        return copied

    def list(
        self,
        *,
        type: ListType | None = None,  # noqa: A002  (the API's own name)
        private: bool | None = None,
        tag_name: str | None = None,
        per_page: int = 200,
        concurrency: int = 4,
        strict: bool = False,
    ) -> AsyncGenerator[Image, None]:
        """Yield every image once, in the server's order (API page: "List All Images").

        The API's pages are offsets: when images are created or deleted meanwhile, one may be repeated and
        another left out. Repeats are dropped (but without `strict` not those within one page, which are the
        server's). When totals or repeats show that the list moved, all pages are read again, and what is new
        comes at the end. A listing that still moves after the fourth reading, or that has fewer different
        images than its largest total, is logged as a warning with both counts; so is one without a total in
        which a page is smaller than a later one or repeats an image of an earlier one, and, with its id, an
        image that a filter should have left out. With `strict` these are errors.

        Costs one request for each page, `ceil(total / per_page)` in all, the first page's included; up to
        four times that when the list moves; with `strict`, at least twice and up to ten times. Leaving after
        the first image has cost one.

        What is returned can be read once. After its end, an error, or `aclose`, another loop over it raises a
        ValueError, as do `audit`, `fan_out` and what is built on them. `audit` also refuses one of which
        a part was read. Call `list` again to read again.

        Args:
            type: only 1-Click applications or only distributions. This is not an image's `type`.
            private: True for the account's own images only.
            tag_name: only images with this tag.
            per_page: images in a page, 1 to 200.
            concurrency: pages that are fetched ahead of the one being read, at most; memory holds as many
                and that one, and about a byte for each image that was read: a few where ids are hundreds
                apart, and some 170 if they were drawn at random from 2**53.
            strict: read until all pages, once more, show no movement and bring nothing new. Totals do
                not show every change: pass True where a part must not pass for the whole, as in an audit.

        Raises:
            TypeError, ValueError: an argument can't be used.
            IncompleteListingError: page after page brings nothing new, as from a server that ignores the
                page's number; or the pages hold more than ten times the total, if that is more than one page,
                and still go on. With `strict` also if the list did not come to rest, has fewer different
                images than its total, has repeats or a gap and no total, or if a page holds one image twice
                and not the same.
            WrongResourceError: `strict`, and a page holds an image that a filter should have left out.
            DOImagesError: a page failed; `page` is its number. No page is ever left out.
        """
        listing = self._listing(ImageFilters(type, private, tag_name), per_page)
        check_listing(per_page, concurrency, strict)
        return listing.items(concurrency=concurrency, strict=strict)

    def list_pages(
        self,
        *,
        type: ListType | None = None,  # noqa: A002
        private: bool | None = None,
        tag_name: str | None = None,
        per_page: int = 200,
        concurrency: int = 4,
        strict: bool = False,
    ) -> AsyncGenerator[ImagePage, None]:
        """Yield every page, in order; arguments, cost and errors are those of `list`.

        Images that an earlier page had are taken out of a page, and pages that are read again come only when
        they hold something new. As for `list`, read it once.
        """
        listing = self._listing(ImageFilters(type, private, tag_name), per_page)
        check_listing(per_page, concurrency, strict)
        pages = listing.pages(concurrency=concurrency, strict=strict)
        return ReadOnce(_image_pages(pages), "listing")

    async def list_whole(
        self,
        *,
        type: ListType | None = None,  # noqa: A002
        private: bool | None = None,
        tag_name: str | None = None,
        per_page: int = 200,
        concurrency: int = 4,
        progress: Callable[[ImagePage], object] | None = None,
    ) -> WholeListing:
        """Read all images with `list(strict=True)`, and return a listing that is known to be complete.

        Use it where a part must not pass for the whole, as `do_images_async.retention.plan` does, which takes
        nothing else. Costs `ceil(total / per_page)` requests at least twice, and up to ten times when the
        list moves; memory holds all images (API page: "List All Images").

        Args:
            type, private, tag_name, per_page, concurrency: as for `list`.
            progress: called with each page as it is read; what it raises ends the reading.

        Raises:
            TypeError, ValueError: an argument can't be used.
            IncompleteListingError, WrongResourceError: as for `list` with `strict`.
            DOImagesError: a page failed; `page` is its number.
        """
        check_hook(progress, "progress")
        images: list[Image] = []
        pages = self.list_pages(
            type=type,
            private=private,
            tag_name=tag_name,
            per_page=per_page,
            concurrency=concurrency,
            strict=True,
        )
        async with aclosing(pages):
            async for page in pages:
                images += page.images
                if progress is not None:
                    progress(page)
        return whole_listing(images)

    async def list_page(
        self,
        *,
        type: ListType | None = None,  # noqa: A002
        private: bool | None = None,
        tag_name: str | None = None,
        page: int = 1,
        per_page: int = 20,
    ) -> ImagePage:
        """Read one page; one request (API page: "List All Images").

        Args:
            type, private, tag_name: as for `list`.
            page: the page's number, from 1. Beyond the last one, the page is empty.
            per_page: images in a page, 1 to 200.

        Raises:
            TypeError, ValueError: an argument can't be used.
            DOImagesError: the request failed.
        """
        listing = self._listing(ImageFilters(type, private, tag_name), per_page)
        return _image_page(await listing.page(page))

    async def latest(
        self,
        *,
        name: str | None = None,
        tag_name: str | None = None,
        distribution: str | None = None,
        type: LatestType | None = None,  # noqa: A002
        private: bool = True,
        strict: bool = True,
    ) -> Image | None:
        """Return the newest available image that matches, or None (API page: "List All Images").

        The newest has the latest `created_at`, and among equal dates the highest id; an image without a date
        is older than every other. Images that are not available yet, or not any more, are left out.

        Costs the requests of one `list` with `strict`: two readings of all pages of the account's own images,
        so two requests for up to 200 images. The API applies `tag_name`, `private` and the two public types;
        the other filters are applied to what it lists.

        Args:
            name: the name, or a pattern such as "web-*": `*`, `?` and `[…]` as in a shell, with case.
            tag_name: only images with this tag.
            distribution: the operating system's name, such as "Ubuntu"; case does not matter.
            type: "snapshot", "backup" or "custom", an image's own type; or "distribution" or "application",
                which are public.
            private: True, the default, for the account's own images only, so that nobody else's image of that
                name is taken for yours; False for public ones as well.
            strict: False reads the list once, at half the cost, and can then miss an image that moved between
                two pages.

        Raises:
            TypeError, ValueError: an argument can't be used, or `type` is a public one with `private`.
            IncompleteListingError: the list can't be shown to be whole; an older image is never returned
                instead.
            DOImagesError: a page failed.
        """
        wanted = LatestFilter(name, tag_name, distribution, type, private)
        listing = wanted.listing
        images = self.list(
            type=listing.type, private=listing.private, tag_name=listing.tag_name, strict=strict
        )
        async with aclosing(images):
            return await newest(images, wanted)

    async def get(self, image_id: int | str) -> Image:
        """Read one image; one request (API page: "Retrieve an Existing Image").

        Args:
            image_id: its id, or the slug of a public image.

        Raises:
            TypeError, ValueError: it is neither.
            NotFoundError: there is no such image.
            WrongResourceError: the answer is about another image.
            DOImagesError: the request failed.
        """
        # No local variable of a traceback holds what the server sent.
        sending = self._send("GET", f"{_PATH}/{check_image_key(image_id)}")
        return check_image((await sending).value.image, image_id)

    async def create_custom(
        self,
        *,
        name: str,
        url: str,
        region: str,
        distribution: str | None = None,
        description: str | None = None,
        tags: Collection[str] | None = None,
    ) -> Image:
        """Start the import of an image from a URL; one request (API page: "Create a Custom Image").

        The answer comes at once, with status NEW and a part of the fields: see `wait_until_available`. The
        request is retried only when it surely was not carried out.

        Args:
            name: the display name.
            url: where the provider finds the image: http, https or ftp; raw, qcow2, vhdx, vdi or vmdk, also
                compressed with gzip or bzip2; less than 100 GB uncompressed.
            region: the slug of the region that will hold it.
            distribution: the operating system's name. The API takes any; those that it does not know become
                "Unknown".
            description: free text.
            tags: tag names, existing or new; the token needs the scope `tag:create`.

        Raises:
            TypeError, ValueError: an argument can't be used.
            WrongResourceError: the answer is about an image of another name; `outcome_unknown` is True.
            DecodeError: the answer has no id, or one below 1; `outcome_unknown` is True.
            DOImagesError: the request failed; with `outcome_unknown` the import may be in progress: see
                `find_created` before you retry.
        """
        body: dict[str, object] = {
            "name": check_text(name, "name"),
            "url": check_import_url(url),
            "region": check_text(region, "region"),
        }
        if distribution is not None:
            body["distribution"] = check_text(distribution, "distribution")
        if description is not None:
            body["description"] = check_text(description, "description", empty=True)
        if tags is not None:
            body["tags"] = check_texts(tags, "tags")
        return check_created((await self._send("POST", _PATH, body)).value.image, name)

    async def find_created(
        self, *, name: str, since: datetime, tags: Collection[str] | None = None
    ) -> tuple[Image, ...]:
        """Return the private images that a creation with an unknown outcome may have made, newest first.

        An empty answer right after the failure proves nothing yet: the request may still be in flight. Call
        this again after a minute, and only then retry the creation.

        Costs the requests of `list(private=True, strict=True)`, two passes at least.

        Args:
            name, tags: as they were given to `create_custom`.
            since: when `create_custom` was called, with a time zone; the server's clock may be five minutes
                behind.

        Raises:
            TypeError, ValueError: an argument can't be used.
            DOImagesError: the listing failed.
        """
        wanted = [] if tags is None else check_texts(tags, "tags")
        async with aclosing(self.list(private=True, strict=True)) as images:
            return await find_candidates(
                images, name=check_text(name, "name"), since=check_since(since), tags=wanted
            )

    async def update(
        self,
        image_id: int,
        *,
        name: str | _Unchanged = UNCHANGED,
        description: str | _Unchanged = UNCHANGED,
        distribution: str | _Unchanged = UNCHANGED,
    ) -> Image:
        """Change an image's fields, only those that are given; one request (API page: "Update an Image").

        Args:
            image_id: its id.
            name: the new display name.
            description: the new description; an empty one is a change like any other. Custom images only.
            distribution: the new operating system's name. Custom images only.

        Raises:
            TypeError, ValueError: an argument can't be used, or nothing is to change.
            NotFoundError: there is no such image.
            WrongResourceError: the answer is about another image, or has another name than the new one;
                `outcome_unknown` is True.
            DOImagesError: the request failed.
        """
        body: dict[str, object] = {}
        if name is not UNCHANGED:
            body["name"] = check_text(name, "name")
        if description is not UNCHANGED:
            body["description"] = check_text(description, "description", empty=True)
        if distribution is not UNCHANGED:
            body["distribution"] = check_text(distribution, "distribution")
        if not body:
            raise ValueError("update needs at least one of name, description and distribution")
        sending = self._send("PUT", f"{_PATH}/{check_image_id(image_id)}", body)
        renamed = None if name is UNCHANGED else name
        return check_image((await sending).value.image, image_id, write=True, name=renamed)

    async def delete(self, image_id: int) -> None:
        """Delete a snapshot, backup or custom image; one request (API page: "Delete an Image").

        An answer of 404 counts as done when an earlier attempt of the same call may have deleted it.

        Args:
            image_id: its id.

        Raises:
            TypeError, ValueError: it is no id.
            NotFoundError: there is no such image.
            DecodeError: the answer is a success whose body is neither empty nor JSON, such as a proxy's page.
            DOImagesError: the request failed; with `outcome_unknown` the image may be gone.
        """
        path = f"{_PATH}/{check_image_id(image_id)}"
        await self._transport.send(Call(method="DELETE", path=path, model=NoneType), self._options)

    async def wait_until_available(
        self, image_id: int, *, timeout: float = 3600.0, poll_interval: float = 5.0
    ) -> Image:
        """Wait until an import is done (API page: "Create a Custom Image", on `status`).

        Costs one request for each poll, and its retries; the time between two polls grows by half each, from
        `poll_interval` to a minute. A poll that fails with what may pass, after its retries, is logged and
        followed by the next one: 408, 429 and `max_wait`, 5xx, a broken connection, a timeout, an answer that
        is no JSON or about another image, and, after the first answer, a token function that fails. So is a
        404 in the first ten seconds: an image that was just created may not be known everywhere.

        Args:
            image_id: its id.
            timeout: seconds to wait at most, requests included.
            poll_interval: seconds between the first two polls.

        Raises:
            TypeError, ValueError: an argument can't be used.
            ImportFailedError: the import failed, or the image was deleted or retired meanwhile.
            WaitTimeoutError: time is up; `image` is the image as last seen, `last_error` the error of the
                last poll that failed.
            NotFoundError: there is no such image.
            DOImagesError: a poll failed with an error that does not pass, such as 401 or 403.
        """
        check_image_id(image_id)

        read = partial(self.get, image_id)
        return await until_available(
            read,
            image_id,
            timeout=timeout,
            poll_interval=poll_interval,
            redact=self._transport.redact,
        )

    def ensure_regions(
        self,
        image_id: int,
        regions: Collection[str],
        *,
        timeout: float = 7200.0,
        poll_interval: float = 5.0,
        progress: Callable[[str, Action], object] | None = None,
    ) -> AsyncGenerator[Outcome[str, Action | None], None]:
        """Make sure that an image is in all these regions, and yield an outcome for each as it is known.

        A region that lacks the image gets a transfer, which is waited for. One that a transfer is in progress
        to is waited for as well, so it may be called as often as you like. A transfer may name the region
        that the image comes from: one in progress that names a region with the image may be to any other, and
        is waited for before another is begun. Calls of one client and its copies for one image look, and
        start transfers, one after the other, and know for a minute what they have started. Other clients,
        processes and machines may look at the same moment: a transfer that the server then refuses is waited
        for, but if it accepts two, two are made. The value is the completed action, and None for a region
        that had the image, or has it after such a wait; the image may show the region some seconds later.
        Leaving stops the waiting, not the transfers. After an error with `outcome_unknown`, or a call that
        was cancelled, a transfer may have begun that the actions do not show yet: another call would begin a
        second one. API page: "Initiate an Image Action".

        Costs one request if no region lacks the image; otherwise also those of `actions.list`, one for each
        transfer that is begun, and one for each poll. A transfer that is refused, or whose outcome is
        unknown, costs up to two more, to find it if it has begun all the same; an image with completed
        transfers costs one more, to see whether one has just ended.

        Args:
            image_id: its id.
            regions: the regions' slugs, each one once.
            timeout: seconds to poll each region's transfer, from when it was started or found, waits for
                quota included.
            poll_interval: seconds between the first two polls of a region's action.
            progress: called with the region and its action after each poll, the first time with the action
                as it was begun; what it raises is the region's error.

        Raises:
            TypeError, ValueError: an argument can't be used.
            NotFoundError: there is no such image.
            WrongResourceError: the answer is about another image; nothing was transferred.
            QuotaWaitError: `max_wait` has passed while this call waited for quota, or another one did.
            DOImagesError: the image or its actions could not be read. What happens to one region is its
                outcome's error, as in `actions.transfer_to_regions`.
        """
        check_wait(timeout, poll_interval)
        check_hook(progress, "progress")
        copies = RegionCopies(
            image_id=check_image_id(image_id),
            read=partial(self.get, image_id),
            actions=self.actions,
            start=partial(self.actions.transfer, image_id),
            turns=self._turns,
            limiter=lambda: self.limiter,
            max_wait=self._options.max_wait,
            timeout=timeout,
            poll_interval=poll_interval,
            progress=progress,
        )
        return ReadOnce(copies.ensure(check_regions(regions)), "generator of outcomes")

    # For type checkers: mypy takes `[42, "ubuntu-24-04-x64"]` for a list of objects where `Key` is asked for.
    @overload
    def get_many(
        self,
        ids: Iterable[Id] | AsyncIterable[Id],
        *,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Hook = None,
    ) -> AsyncGenerator[Outcome[Id, Image], None]: ...

    @overload
    def get_many(
        self,
        ids: Iterable[Slug] | AsyncIterable[Slug],
        *,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Hook = None,
    ) -> AsyncGenerator[Outcome[Slug, Image], None]: ...

    @overload
    def get_many(
        self,
        ids: Iterable[int | str] | AsyncIterable[int | str],
        *,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Hook = None,
    ) -> AsyncGenerator[Outcome[int | str, Image], None]: ...

    def get_many(
        self,
        ids: Iterable[Key] | AsyncIterable[Key],
        *,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Hook = None,
    ) -> AsyncGenerator[Outcome[Key, Image], None]:
        """Read many images; one request for each, and an outcome for each (API page: see `get`).

        Args:
            ids: ids and slugs, in any iterable or async iterable; they are drawn as they are needed.
            concurrency, ordered, progress: as for `fan_out`.

        Raises:
            TypeError, ValueError: an argument can't be used. An id that can't be is that id's error.
        """
        return fan_out(self.get, check_ids(ids), concurrency=concurrency, ordered=ordered, progress=progress)

    def delete_many(
        self,
        ids: Iterable[int] | AsyncIterable[int],
        *,
        dry_run: bool = False,
        allow_public: bool = False,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Hook = None,
    ) -> AsyncGenerator[Outcome[int, Image | None], None]:
        """Delete many images, and yield an outcome for each (API page: see `delete`).

        Each is read first, and not deleted unless it is private: two requests for each image. With
        `allow_public` it is not read: one request. The outcome's value is the image as it was read, if it
        was.

        Args:
            ids: ids, in any iterable or async iterable; they are drawn as they are needed.
            dry_run: read each image and delete none; the outcomes are what would be deleted, and why not.
            allow_public: do not ask whether an image is public; otherwise `PublicImageError` is the outcome
                of one that is.
            concurrency, ordered, progress: as for `fan_out`.

        Raises:
            TypeError, ValueError: an argument can't be used. An id that can't be is that id's error.
        """

        check_bool(dry_run, "dry_run")
        check_bool(allow_public, "allow_public")

        async def delete(image_id: int) -> Image | None:
            image = None
            if dry_run or not allow_public:
                image = await self.get(check_image_id(image_id))
            if image is not None and image.public is not False and not allow_public:
                raise PublicImageError(image)
            if not dry_run:
                await self.delete(image_id)
            return image

        return fan_out(delete, check_ids(ids), concurrency=concurrency, ordered=ordered, progress=progress)

    def update_many(
        self,
        changes: Changes,
        *,
        concurrency: int = 32,
        ordered: bool = False,
        progress: Hook = None,
    ) -> AsyncGenerator[Outcome[int, Image], None]:
        """Change many images; one request for each, and an outcome for each (API page: see `update`).

        Args:
            changes: for each id its changes by the names of `update`, as in `{42: {"name": "golden"}}`; a
                mapping, or pairs in any iterable or async iterable, which are drawn as they are needed.
            concurrency, ordered, progress: as for `fan_out`.

        Raises:
            TypeError, ValueError: an argument can't be used. A change that can't be made is its image's
                error.
        """

        async def update(change: Change) -> Image:
            image_id, fields = change
            return await self.update(image_id, **check_fields(fields))

        pairs = check_changes(changes)
        outcomes = fan_out(update, pairs, concurrency=concurrency, ordered=ordered, progress=progress)
        return ReadOnce(_keyed_by_id(outcomes), "generator of outcomes")

    def _listing(self, filters: ImageFilters, per_page: int) -> Listing[Image]:
        return Listing(
            transport=self._transport,
            options=self._options,
            path=_PATH,
            body=ImageListBody,
            per_page=per_page,
            filters=filters.query(),
            admit=filters.check,
        )

    def _send(
        self, method: str, path: str, body: Mapping[str, object] | None = None
    ) -> Awaitable[Reply[ImageBody]]:
        # Not a coroutine: for every request in flight there would be one more.
        call = Call(method=method, path=path, model=ImageBody, body=body)
        return self._transport.send(call, self._options)


def _image_page(page: Page[Image]) -> ImagePage:
    return ImagePage(images=page.items, **page_fields(page))


async def _image_pages(pages: AsyncGenerator[Page[Image], None]) -> AsyncGenerator[ImagePage, None]:
    async with aclosing(pages):
        async for page in pages:
            yield _image_page(page)


async def _keyed_by_id(
    outcomes: AsyncGenerator[Outcome[Change, Image], None],
) -> AsyncGenerator[Outcome[int, Image], None]:
    async with aclosing(outcomes):
        async for outcome in outcomes:
            yield Outcome(outcome.key[0], outcome.value, outcome.error)
