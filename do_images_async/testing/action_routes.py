"""The endpoints for image actions and account transfers."""

from __future__ import annotations

import re

from aiohttp import web

from do_images_async.testing.actions import ActionStore, Transfer, TransferStore
from do_images_async.testing.answers import Problem
from do_images_async.testing.catalogue import REGIONS, Record
from do_images_async.testing.routes import Answer, Links, Route, Window, image_for_change
from do_images_async.testing.state import ImageStore
from do_images_async.testing.validation import (
    Body,
    email_of,
    invalid,
    json_object,
    not_found,
    number_of,
    text_of,
    uuid_of,
)

__all__ = ["ActionRoutes", "TransferRoutes"]

_IMAGE = "/v2/images/{image_id}"


class ActionRoutes:
    """The endpoints under an image's `actions`.

    Args:
        images, actions: the account.
        links: builds the links between pages.
    """

    def __init__(self, images: ImageStore, actions: ActionStore, links: Links) -> None:
        self._images = images
        self._actions = actions
        self._links = links
        self.all: tuple[Route, ...] = (
            Route("GET", f"{_IMAGE}/actions", "image:read", self.list_actions),
            Route("POST", f"{_IMAGE}/actions", "image:update", self.start),
            Route("GET", f"{_IMAGE}/actions/{{action_id}}", "image:read", self.get),
        )

    async def list_actions(self, request: web.Request) -> Answer:
        window = Window.of_request(request)
        actions = self._actions.of(self._image(request)["id"])
        return 200, {
            "actions": window.of(actions),
            **window.envelope(request, self._links, len(actions)),
        }

    async def get(self, request: web.Request) -> Answer:
        action_id = request.match_info["action_id"]
        image = self._image(request)
        number = int(action_id) if re.fullmatch("[0-9]{1,19}", action_id) else 0
        action = self._actions.find(image["id"], number)
        if action is None:
            raise not_found()
        return 200, {"action": action}

    async def start(self, request: web.Request) -> Answer:
        body = await json_object(request)
        image = image_for_change(self._images, request)
        kind = text_of(body, "type", required=True)
        if kind not in ("transfer", "convert"):
            raise Problem(404, "not_found", "The specified action type is not available.")
        region = text_of(body, "region", required=True) if kind == "transfer" else None
        self._check(image, kind, region)
        return 201, {"action": self._actions.start(image["id"], kind, region)}

    def _check(self, image: Record, kind: str, region: str | None) -> None:
        if image.get("status", "available") != "available":
            raise invalid("The image is not available.")
        if kind == "convert" and image.get("type") == "snapshot":
            raise invalid("The image is a snapshot already.")
        if region is not None and region not in REGIONS:
            raise invalid("region is invalid")
        if region in image["regions"]:
            raise invalid("The image is in this region already.")
        if self._actions.in_progress(image["id"], kind, region):
            raise Problem(409, "conflict", "The same action is in progress.")

    def _image(self, request: web.Request) -> Record:
        key = request.match_info["image_id"]
        image = self._images.find(key) if key.isascii() and key.isdigit() else None
        if image is None:
            raise not_found()
        return image


class TransferRoutes:
    """The endpoints under an image's `account_transfer`.

    Args:
        images, transfers: the account.
    """

    def __init__(self, images: ImageStore, transfers: TransferStore) -> None:
        self._images = images
        self._transfers = transfers
        path = f"{_IMAGE}/account_transfer"
        self.all: tuple[Route, ...] = (
            Route("POST", path, "image:update image:delete", self.create),
            Route("POST", f"{path}/accept", "image:create", self.accept),
            Route("POST", f"{path}/cancel", "image:update", self.cancel),
            Route("POST", f"{path}/decline", "image:create", self.decline),
        )

    async def create(self, request: web.Request) -> Answer:
        body = await json_object(request)
        image = image_for_change(self._images, request)
        email, team = email_of(body, "recipient_email"), uuid_of(body, "recipient_uuid")
        if bool(email) == bool(team):
            raise invalid("exactly one of recipient_email and recipient_uuid is required")
        if image.get("type") != "snapshot":
            raise invalid("Only snapshots can be transferred.")
        if self._transfers.pending(image["id"]):
            raise Problem(409, "conflict", "The image is being transferred already.")
        transfer = self._transfers.create(image["id"], email=email or None, team=team or None)
        return 201, {"transfer_id": transfer.id}

    async def accept(self, request: web.Request) -> Answer:
        body = await json_object(request)
        transfer = self._pending(request, body)
        team = uuid_of(body, "recipient_uuid", required=True)
        if transfer.team not in (None, team):
            raise Problem(403, "forbidden", "The image is offered to somebody else.")
        self._transfers.accept(transfer)
        return 201, None

    async def cancel(self, request: web.Request) -> Answer:
        self._pending(request, await json_object(request)).state = "cancelled"
        return 204, None

    async def decline(self, request: web.Request) -> Answer:
        self._pending(request, await json_object(request)).state = "declined"
        return 204, None

    def _pending(self, request: web.Request, body: Body) -> Transfer:
        number = number_of(body, "transfer_id")
        key = request.match_info["image_id"]
        transfer = self._transfers.find(int(key), number) if re.fullmatch("[0-9]{1,19}", key) else None
        if transfer is None or self._transfers.is_void(transfer):
            raise not_found()
        if transfer.state != "pending":
            raise Problem(409, "conflict", f"The transfer is {transfer.state} already.")
        return transfer
