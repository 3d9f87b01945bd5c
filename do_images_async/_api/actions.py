"""Image actions (transfers to regions, conversions) and transfers to other accounts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from functools import partial
from types import NoneType
from typing import Final

from do_images_async._api.bulk import Outcome, fan_out
from do_images_async._api.identity import NotThereError, check_action, check_image, mismatch, region_of
from do_images_async._api.listing import Listing, check_listing, page_fields
from do_images_async._api.polling import check_wait
from do_images_async._api.waits import until_completed
from do_images_async._arguments import check_hook, check_image_id, check_text, check_texts, shown
from do_images_async._http.bodies import AccountTransferBody, ActionBody, ActionListBody, ImageBody
from do_images_async._http.request import Call, Options
from do_images_async._http.transport import Transport
from do_images_async.errors import DOImagesError
from do_images_async.models import AccountTransfer, Action, ActionPage, ActionStatus

__all__ = ["AccountTransfers", "ImageActions"]

_PATH: Final = "/v2/images"
REGIONS_AT_ONCE: Final = 32


class ImageActions:
    """An image's actions: `ImagesAPI.actions`."""

    def __init__(self, transport: Transport, options: Options) -> None:
        self._transport = transport
        self._options = options

    def list(
        self, image_id: int, *, per_page: int = 200, concurrency: int = 4, strict: bool = False
    ) -> AsyncGenerator[Action, None]:
        """Yield every action of an image (API page: "List All Actions for an Image").

        Costs and guarantees are those of `ImagesAPI.list`.

        Args:
            image_id: its id.
            per_page, strict: as for `ImagesAPI.list`.
            concurrency: pages that are fetched ahead of the one being read, at most.

        Raises:
            TypeError, ValueError: an argument can't be used.
            NotFoundError: there is no such image.
            IncompleteListingError: the listing can't be shown to be whole; see `ImagesAPI.list`.
            DOImagesError: a page failed; `page` is its number.
        """
        check_image_id(image_id)
        check_listing(per_page, concurrency, strict)
        return self._listing(image_id, per_page).items(concurrency=concurrency, strict=strict)

    async def list_page(self, image_id: int, *, page: int = 1, per_page: int = 20) -> ActionPage:
        """Read one page of an image's actions; one request (API page: "List All Actions for an Image").

        Args:
            image_id: its id.
            page: the page's number, from 1.
            per_page: actions in a page, 1 to 200.

        Raises:
            TypeError, ValueError: an argument can't be used.
            NotFoundError: there is no such image.
            DOImagesError: the request failed.
        """
        read = await self._listing(image_id, per_page).page(page)
        return ActionPage(actions=read.items, **page_fields(read))

    def _listing(self, image_id: int, per_page: int) -> Listing[Action]:
        return Listing(
            transport=self._transport,
            options=self._options,
            path=_actions_path(image_id),
            body=ActionListBody,
            per_page=per_page,
            check=lambda action: check_action(action, image_id, action.id),
        )

    async def get(self, image_id: int, action_id: int) -> Action:
        """Read one action; one request (API page: "Retrieve an Existing Action").

        Args:
            image_id: the image's id.
            action_id: the action's id.

        Raises:
            TypeError, ValueError: an argument is no id.
            NotFoundError: there is no such image, or it has no such action.
            WrongResourceError: the answer is about another action, or another image's.
            DOImagesError: the request failed.
        """
        path = f"{_actions_path(image_id)}/{check_image_id(action_id, 'action_id')}"
        return check_action(await self._action("GET", path), image_id, action_id)

    async def transfer(self, image_id: int, region: str) -> Action:
        """Start to copy an image to another region; one request (API page: "Initiate an Image Action").

        The image stays where it is, too. It is in the region when the action is completed: see `wait`. An
        action that is answered as errored already is returned; `wait` raises `ActionFailedError` for it.
        When the answer names another region than was asked for, one more request reads the image: an action
        may name the region that the image comes from, and no other.

        Args:
            image_id: its id.
            region: the region's slug.

        Raises:
            TypeError, ValueError: an argument can't be used.
            NotFoundError: there is no such image.
            UnprocessableEntityError: there is no such region, or the image can't go there.
            WrongResourceError: the answer is about another image, region or type of action;
                `outcome_unknown` is True.
            DOImagesError: the request failed; with `outcome_unknown` the action may be in progress: read
                `list` before you retry.
        """
        body = {"type": "transfer", "region": check_text(region, "region")}
        action = await self._action("POST", _actions_path(image_id), body)
        check_action(action, image_id, kind="transfer")
        try:
            await self._check_region(action, image_id, region)
        except DOImagesError as error:
            error.outcome_unknown = True
            error.add_note(f"action {action.id} was begun")
            raise
        return action

    async def convert(self, image_id: int) -> Action:
        """Start to turn an image, such as a backup, into a snapshot; one request.

        An action that is answered as errored already is returned, as by `transfer`.
        API page: "Initiate an Image Action".

        Args:
            image_id: its id.

        Raises:
            TypeError, ValueError: it is no id.
            NotFoundError: there is no such image.
            WrongResourceError: the answer is about another image or type of action; `outcome_unknown` is
                True.
            DOImagesError: the request failed; with `outcome_unknown` the action may be in progress.
        """
        action = await self._action("POST", _actions_path(image_id), {"type": "convert"})
        return check_action(action, image_id, kind="convert")

    async def wait(
        self, image_id: int, action_id: int, *, timeout: float = 3600.0, poll_interval: float = 5.0
    ) -> Action:
        """Wait until an action is completed (API page: "Retrieve an Existing Action", on `status`).

        Costs one request for each poll, and its retries. Polls, and the errors that do not end the wait, are
        those of `ImagesAPI.wait_until_available`.

        Args:
            image_id: the image's id.
            action_id: the action's id.
            timeout: seconds to wait at most, requests included.
            poll_interval: seconds between the first two polls.

        Raises:
            TypeError, ValueError: an argument can't be used.
            ActionFailedError: the action errored.
            WaitTimeoutError: time is up; `action` is the action as last seen, which may still be completed,
                `last_error` the error of the last poll that failed.
            NotFoundError: there is no such image, or it has no such action.
            DOImagesError: a poll failed with an error that does not pass, such as 401 or 403.
        """
        check_image_id(image_id)
        check_image_id(action_id, "action_id")
        read = partial(self.get, image_id, action_id)
        return await until_completed(read, image_id, action_id, timeout=timeout, poll_interval=poll_interval)

    def transfer_to_regions(
        self,
        image_id: int,
        regions: Collection[str],
        *,
        timeout: float = 7200.0,
        poll_interval: float = 5.0,
        progress: Callable[[str, Action], object] | None = None,
    ) -> AsyncGenerator[Outcome[str, Action], None]:
        """Copy an image to several regions at once, and yield an outcome for each as it is known.

        Costs what `transfer` and `wait` cost for each region. An error of one region does not touch the rest.
        Leaving stops the waiting, not the transfers. API page: "Initiate an Image Action".

        Args:
            image_id: its id.
            regions: the regions' slugs, each one once.
            timeout: seconds to wait at most for each region, requests included.
            poll_interval: seconds between the first two polls of a region's action.
            progress: called with the region and its action after each poll, the first time with the action
                as it was begun; what it raises is the region's error.

        Raises:
            TypeError, ValueError: an argument can't be used.
        """
        check_image_id(image_id)
        slugs = check_regions(regions)
        check_wait(timeout, poll_interval)
        check_hook(progress, "progress")

        async def transfer(region: str) -> Action:
            begun = await self.transfer(image_id, region)
            return await until_completed(
                partial(self.get_transfer, image_id, begun.id, region),
                image_id,
                begun.id,
                timeout=timeout,
                poll_interval=poll_interval,
                begun=begun,
                report=None if progress is None else partial(progress, region),
            )

        return fan_out(transfer, slugs, concurrency=REGIONS_AT_ONCE)

    async def get_transfer(self, image_id: int, action_id: int, region: str) -> Action:
        """Read a transfer; a completed one that names another region costs a request more, as in `transfer`.

        Raises:
            WrongResourceError: the answer is about another action, or the image is not in the region.
            DOImagesError: a request failed.
        """
        action = check_action(await self.get(image_id, action_id), image_id, action_id, kind="transfer")
        if action.status == ActionStatus.COMPLETED:
            await self._check_region(action, image_id, region)
        return action

    async def _check_region(self, action: Action, image_id: int, region: str) -> None:
        """Check that an action is, or may be, the transfer to this region.

        The API page's own example of a transfer to nyc2 is answered with an action that names nyc3: perhaps
        where the image comes from. So a region that the image is in is accepted, and when the action is
        completed, the image must be in the region that was asked for.
        """
        answered = region_of(action)
        if answered is None or answered == region:
            return
        call = Call(method="GET", path=f"{_PATH}/{image_id}", model=ImageBody)
        image = (await self._transport.send(call, self._options)).value.image
        held = check_image(image, image_id).regions
        if (region if action.status == ActionStatus.COMPLETED else answered) in held:
            return
        if answered in held:
            raise NotThereError(action, image_id, region)
        raise mismatch("a transfer to", region, answered, write=False)

    async def _action(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Action:
        call = Call(method=method, path=path, model=ActionBody, body=body)
        return (await self._transport.send(call, self._options)).value.action


class AccountTransfers:
    """Transfers of an image to another account: `ImagesAPI.account_transfers`."""

    def __init__(self, transport: Transport, options: Options) -> None:
        self._transport = transport
        self._options = options

    async def create(
        self, image_id: int, *, email: str | None = None, team_uuid: str | None = None
    ) -> AccountTransfer:
        """Offer a snapshot to another account; one request (API page: "Initiate an Image Account Transfer").

        A team of one's own, where one may do so, accepts at once: then `accepted` is true and `transfer_id`
        is None. Otherwise the recipient has to accept. The token needs `image:update` and `image:delete`.

        Args:
            image_id: its id.
            email: the recipient's e-mail address; or
            team_uuid: the recipient team's UUID. Exactly one of the two.

        Raises:
            TypeError, ValueError: an argument can't be used, or not exactly one recipient is given.
            NotFoundError: there is no such image.
            DOImagesError: the request failed; with `outcome_unknown` the offer may have been made.
        """
        path = _transfer_path(image_id)
        call = Call(
            method="POST", path=path, model=AccountTransferBody, body=_check_recipient(email, team_uuid)
        )
        answer = (await self._transport.send(call, self._options)).value
        if answer.image_id not in (None, image_id):
            raise mismatch("a transfer of image", image_id, answer.image_id, write=True)
        return AccountTransfer(image_id=image_id, transfer_id=answer.transfer_id or None)

    async def accept(self, image_id: int, transfer_id: int, *, team_uuid: str) -> None:
        """Accept an image that is offered; one request (API page: "Accept an Image Account Transfer").

        Args:
            image_id: its id.
            transfer_id: the transfer's id.
            team_uuid: the UUID of the team that the image goes to.

        Raises:
            TypeError, ValueError: an argument can't be used.
            NotFoundError: there is no such transfer.
            DOImagesError: the request failed; with `outcome_unknown` it may be accepted.
        """
        body = {"recipient_uuid": check_text(team_uuid, "team_uuid")}
        await self._answer(image_id, transfer_id, "accept", body)

    async def cancel(self, image_id: int, transfer_id: int) -> None:
        """Take back an offer that is not accepted yet; one request.

        Only the sender can. API page: "Cancel an Image Account Transfer".

        Args:
            image_id: its id.
            transfer_id: the transfer's id.

        Raises:
            TypeError, ValueError: an argument is no id.
            NotFoundError: there is no such transfer.
            DOImagesError: the request failed; with `outcome_unknown` it may be cancelled.
        """
        await self._answer(image_id, transfer_id, "cancel")

    async def decline(self, image_id: int, transfer_id: int) -> None:
        """Refuse an image that is offered; one request (API page: "Decline an Image Account Transfer").

        Only the recipient can.

        Args:
            image_id: its id.
            transfer_id: the transfer's id.

        Raises:
            TypeError, ValueError: an argument is no id.
            NotFoundError: there is no such transfer.
            DOImagesError: the request failed; with `outcome_unknown` it may be declined.
        """
        await self._answer(image_id, transfer_id, "decline")

    async def _answer(
        self, image_id: int, transfer_id: int, verb: str, more: Mapping[str, object] | None = None
    ) -> None:
        body = {"transfer_id": check_image_id(transfer_id, "transfer_id"), **(more or {})}
        path = f"{_transfer_path(image_id)}/{verb}"
        await self._transport.send(Call(method="POST", path=path, model=NoneType, body=body), self._options)


def _actions_path(image_id: int) -> str:
    return f"{_PATH}/{check_image_id(image_id)}/actions"


def _transfer_path(image_id: int) -> str:
    return f"{_PATH}/{check_image_id(image_id)}/account_transfer"


def check_regions(regions: Collection[str]) -> list[str]:
    slugs = check_texts(regions, "regions")
    if len(set(slugs)) < len(slugs):
        raise ValueError(f"regions must name each region once, not {shown(slugs)}")
    return slugs


def _check_recipient(email: str | None, team_uuid: str | None) -> dict[str, object]:
    if (email is None) == (team_uuid is None):
        raise ValueError("exactly one of email and team_uuid must be given")
    if email is None:
        return {"recipient_uuid": check_text(team_uuid, "team_uuid")}
    return {"recipient_email": check_text(email, "email")}
