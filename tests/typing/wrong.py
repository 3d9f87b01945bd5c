"""What a user may get wrong: type checkers reject each line that says so, and no other. It is never run."""

from __future__ import annotations

from datetime import UTC, datetime

from do_images_async import Image, ImagesAPI, RateLimiter, RetryPolicy, TokenBucket, fan_out
from do_images_async.errors import APIError, QuotaWaitError
from do_images_async.events import PermitGranted
from do_images_async.retention import Policy, one_group, plan
from do_images_async.testing import Fault


def hook(event: int) -> None:
    print(event)


def clients() -> None:
    ImagesAPI(b"token")  # wrong: bytes are no token
    ImagesAPI("token", "https://api.digitalocean.com")  # wrong: all but the token go by name
    ImagesAPI("token", session="mine")  # wrong: no session
    ImagesAPI("token", limiter=TokenBucket(1, per=1))  # wrong: a bucket is no limiter
    ImagesAPI("token", retry=3)  # wrong: no policy
    ImagesAPI("token", on_event=hook)  # wrong: the hook takes something else
    ImagesAPI("token", timeouts=3)  # wrong: no such argument
    RetryPolicy(attempts="3")  # wrong: no number
    TokenBucket(250)  # wrong: of which period?
    RateLimiter(250)  # wrong: no bucket
    Fault(broken="cable")  # wrong: not one of the ways to break


async def calls(images: ImagesAPI) -> None:
    await images.get(4.2)  # wrong: neither an id nor a slug
    await images.get(None)  # wrong: neither an id nor a slug
    await images.delete("ubuntu-24-04-x64")  # wrong: only `get` takes a slug
    await images.update("golden", name="new")  # wrong: only `get` takes a slug
    await images.update(42, name=None)  # wrong: what is not to change is not given
    await images.create_custom(name="a", url="https://x/a.img")  # wrong: no region
    await images.list_page(type="snapshot")  # wrong: not a filter of the API's
    await images.list_page(private="yes")  # wrong: no bool
    await images.latest(type="base")  # wrong: not a type that can be asked for
    print((await images.latest()).name)  # wrong: there may be none
    await images.actions.transfer("golden", "ams3")  # wrong: actions are of an image's id
    await images.actions.transfer_to_regions(42, 3)  # wrong: no regions
    images.get_many([42, 4.2])  # wrong: neither an id nor a slug
    fan_out(images.get, [42, 4.2])  # wrong: neither an id nor a slug
    images.delete_many(["ubuntu-24-04-x64"])  # wrong: only `get` takes a slug
    await images.list()  # wrong: a generator is not awaited
    policy, now = Policy(keep_last=3), datetime.now(UTC)
    plan([await images.get(42)], policy, group_by=one_group, now=now)  # wrong: may be a part of the listing
    print((await images.get(42)).nmae)  # wrong: no such field
    for _ in images.list():  # wrong: it is asynchronous
        return


async def results(images: ImagesAPI, image: Image, event: PermitGranted) -> None:
    name: int = image.name  # wrong: a name is a string
    slug: str = image.slug  # wrong: it may be missing
    image.name = "other"  # wrong: models are frozen
    image.regions.append("nyc3")  # wrong: so are their parts
    event.status  # wrong: a permit has none
    try:
        print(name, slug, await images.get(42))
    except QuotaWaitError as error:
        print(error.status)  # wrong: nothing was sent, so there is no status
    except APIError as error:
        print(error.retry_after)  # wrong: only a 429 has that
