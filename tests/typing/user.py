"""A user's program: what every public call gives, pinned for type checkers. It is checked, and never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import aiohttp
from redis.asyncio import Redis

from do_images_async import (
    AccountTransfer,
    Action,
    ActionPage,
    ActionStatus,
    BulkProgress,
    FileRateLimiter,
    Image,
    ImagePage,
    ImagesAPI,
    ImageStatus,
    ImageType,
    Limiter,
    LimiterStats,
    Outcome,
    Permit,
    RateLimit,
    RateLimiter,
    Region,
    Report,
    RetryPolicy,
    TokenBucket,
    WholeListing,
    __version__,
    converter,
    errors,
    events,
    fan_out,
    quota_middleware,
)
from do_images_async.audit import (
    AuditReport,
    Baseline,
    Context,
    Finding,
    NamedRule,
    Rule,
    RuleSettings,
    Severity,
    audit,
    compare,
    older_than,
)
from do_images_async.redis import RedisRateLimiter
from do_images_async.retention import (
    Decision,
    Plan,
    Policy,
    by_distribution,
    by_name,
    by_pattern,
    by_regions,
    by_tags,
    one_group,
    plan,
)
from do_images_async.testing import Entry, Fault, ImagesEmulator


async def the_client(session: aiohttp.ClientSession, limiter: Limiter) -> None:
    assert_type(ImagesAPI.from_env(), ImagesAPI)
    made = ImagesAPI("token", session=session, limiter=limiter, retry=RetryPolicy(attempts=1), max_wait=None)
    async with made as images:
        assert_type(images, ImagesAPI)
        assert_type(images.with_options(reserve=5, timeout=None), ImagesAPI)
        assert_type(images.rate_limit, RateLimit | None)
        assert_type(images.limiter, Limiter)
        assert_type(await images.aclose(), None)


async def token() -> str:
    return "token"


async def the_token(limiter: Limiter) -> None:
    assert_type(
        ImagesAPI(lambda: "token", base_url="http://emulator:8080", allow_insecure_http=True), ImagesAPI
    )
    assert_type(ImagesAPI(token), ImagesAPI)
    middleware = quota_middleware(limiter, max_wait=5, reserve=10)
    assert_type(middleware, aiohttp.ClientMiddlewareType)
    aiohttp.ClientSession(middlewares=(middleware,))


class Unlimited:
    """A limiter of one's own."""

    async def acquire(self, *, max_wait: float | None = None, reserve: int = 0) -> Permit:
        return Unlimited.Granted()

    def check_reserve(self, reserve: int) -> None: ...

    def next_permit_in(self) -> float:
        return 0.0

    def stats(self) -> LimiterStats:
        return LimiterStats(granted=0, in_flight=0, waiting=0, available=())

    class Granted:
        """Its permit."""

        def settle(self, report: Report | None = None) -> None: ...
        def release(self) -> None: ...
        def lose(self) -> None: ...


assert_type(ImagesAPI("token", limiter=Unlimited()), ImagesAPI)


async def images_in_and_out(images: ImagesAPI) -> None:
    assert_type(images.list(type="distribution", private=False), AsyncGenerator[Image, None])
    assert_type(images.list_pages(tag_name="prod"), AsyncGenerator[ImagePage, None])
    assert_type(await images.list_page(page=2, per_page=50), ImagePage)
    assert_type([image async for image in images.list()], list[Image])
    assert_type(await images.list_whole(private=True), WholeListing)
    assert_type(await images.latest(name="web-*", type="snapshot"), Image | None)
    assert_type(await images.get(42), Image)
    assert_type(await images.get("ubuntu-24-04-x64"), Image)
    assert_type(
        await images.create_custom(name="a", url="https://x/a.img", region="nyc3", tags=("a",)), Image
    )
    created = await images.find_created(name="a", since=datetime.now(UTC), tags=["a"])
    assert_type(created, tuple[Image, ...])
    assert_type(await images.update(42, description=""), Image)
    assert_type(await images.delete(42), None)
    assert_type(await images.wait_until_available(42, timeout=60, poll_interval=1.5), Image)


async def actions(images: ImagesAPI) -> None:
    assert_type(images.actions.list(42), AsyncGenerator[Action, None])
    assert_type(await images.actions.list_page(42, page=2), ActionPage)
    assert_type(await images.actions.get(42, 7), Action)
    assert_type(await images.actions.transfer(42, "ams3"), Action)
    assert_type(await images.actions.convert(42), Action)
    assert_type(await images.actions.wait(42, 7, timeout=60), Action)
    spread = images.actions.transfer_to_regions(42, ["ams3"])
    assert_type(spread, AsyncGenerator[Outcome[str, Action], None])
    ensured = images.ensure_regions(42, ["ams3", "fra1"], timeout=60)
    assert_type(ensured, AsyncGenerator[Outcome[str, Action | None], None])


async def account_transfers(images: ImagesAPI) -> None:
    offer = await images.account_transfers.create(42, email="alice@example.com")
    assert_type(offer, AccountTransfer)
    assert_type(offer.transfer_id, int | None)
    assert_type(offer.accepted, bool)
    assert_type(await images.account_transfers.accept(42, 7, team_uuid="…"), None)
    assert_type(await images.account_transfers.cancel(42, 7), None)
    assert_type(await images.account_transfers.decline(42, 7), None)


def shown(progress: BulkProgress) -> None:
    assert_type(progress.done, int)
    assert_type(progress.total, int | None)


async def many(images: ImagesAPI) -> None:
    assert_type(images.get_many([1, 2], progress=shown), AsyncGenerator[Outcome[int, Image], None])
    assert_type(images.get_many(["slug"]), AsyncGenerator[Outcome[str, Image], None])
    assert_type(images.get_many([1, "slug"]), AsyncGenerator[Outcome[int | str, Image], None])
    keys: list[int | str] = [1, "slug"]
    assert_type(images.get_many(keys, ordered=True), AsyncGenerator[Outcome[int | str, Image], None])
    mixed: AsyncGenerator[Outcome[int | str, Image], None] = images.get_many((1, 2))
    await mixed.aclose()
    assert_type(images.delete_many([1], dry_run=True), AsyncGenerator[Outcome[int, Image | None], None])
    assert_type(images.update_many({1: {"name": "a"}}), AsyncGenerator[Outcome[int, Image], None])
    assert_type(fan_out(images.get, [1, "slug"]), AsyncGenerator[Outcome[int | str, Image], None])
    assert_type(fan_out(images.get, [1, 2]), AsyncGenerator[Outcome[int, Image], None])
    async for outcome in fan_out(images.actions.convert, [1, 2], concurrency=2, ordered=True):
        assert_type(outcome, Outcome[int, Action])
        assert_type(outcome.key, int)
        assert_type(outcome.value, Action | None)
        assert_type(outcome.error, BaseException | None)
        assert_type(outcome.ok, bool)
        assert_type(outcome.result(), Action)


def action_models(action: Action, page: ActionPage) -> None:
    assert_type(action.status, ActionStatus | None)
    assert_type(action.completed_at, datetime | None)
    assert_type(action.region, Region | None)
    assert_type(page.actions, tuple[Action, ...])


def models(image: Image, page: ImagePage, rate_limit: RateLimit) -> None:
    assert_type(image.id, int)
    assert_type(image.name, str)
    assert_type(image.slug, str | None)
    assert_type(image.regions, tuple[str, ...])
    assert_type(image.tags, tuple[str, ...] | None)
    assert_type(image.size_gigabytes, float | None)
    assert_type(image.created_at, datetime | None)
    assert_type(image.type, ImageType | None)
    assert_type(image.status, ImageStatus | None)
    assert_type(ImageStatus("tomorrow").is_known, bool)
    assert_type(page.images, tuple[Image, ...])
    assert_type(page.total, int | None)
    assert_type(page.next_page, int | None)
    assert_type(len(page), int)
    assert_type(rate_limit.remaining, int)
    assert_type(rate_limit.reset_at, datetime)
    assert_type(converter.structure({"id": 7}, Image), Image)
    assert_type(converter.loads(b'{"id": 7}', Image), Image)
    mapper = converter.copy()
    mapper.register_structure_hook(Image, lambda value, _: mapper.structure(value, Image))
    ImagesAPI("token", converter=mapper)
    assert_type(Image(id=7).to_dict(), dict[str, Any])
    assert_type(len(__version__), int)


async def limiters(redis: Redis) -> None:
    limiter = RateLimiter(TokenBucket(250, per=60), TokenBucket(5000, per=3600.0, margin=5), slow_start=False)
    assert_type(limiter.buckets, tuple[TokenBucket, ...])
    assert_type(limiter.stats(), LimiterStats)
    assert_type(limiter.stats().available, tuple[int, ...])
    assert_type(limiter.next_permit_in(), float)
    async with limiter.permit(max_wait=1) as permit:
        assert_type(permit, Permit)
    permit = await limiter.acquire(max_wait=1, reserve=5)
    assert_type(permit.settle(), None)
    any_limiter: Limiter = limiter
    async with FileRateLimiter(
        "quota.db", token="token", on_store_failure="local", slow_start=False
    ) as of_machine:
        assert_type(of_machine, FileRateLimiter)
        assert_type(of_machine.stats(), LimiterStats)
        ImagesAPI("token", limiter=of_machine)
    async with RedisRateLimiter(redis, "token", on_store_failure="local", slow_start=False) as shared:
        assert_type(shared, RedisRateLimiter)
        any_limiter = shared
    await any_limiter.acquire()


async def failures(images: ImagesAPI) -> None:
    try:
        await images.get(42)
    except errors.RateLimitError as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.status, int)
        assert_type(error.id, str | None)
        assert_type(error.rate_limit, RateLimit | None)
    except errors.WrongResourceError as error:
        assert_type(error.asked, int | str)
    except errors.QuotaWaitError as error:
        assert_type(error.wait, float)
    except errors.ImportFailedError as error:
        assert_type(error.image, Image)
    except errors.ActionFailedError as error:
        assert_type(error.action, Action)
    except errors.PublicImageError as error:
        assert_type(error.image, Image)
    except errors.WaitTimeoutError as error:
        assert_type(error.image, Image | None)
        assert_type(error.last_error, errors.DOImagesError | None)
    except errors.DOImagesError as error:
        assert_type(error.outcome_unknown, bool)
        assert_type(error.page, int | None)


async def failures_that_may_pass(images: ImagesAPI) -> None:
    try:
        await images.get(42)
    except (errors.TransportError, errors.DecodeError) as error:
        assert_type(error.transient, bool)


def hook(event: events.Event) -> None:
    assert_type(event.method, str)
    if isinstance(event, events.AttemptEnded):
        assert_type(event.status, int | None)
        assert_type(event.outcome, str)
        assert_type(event.error, errors.DOImagesError | None)
    else:
        assert_type(event, events.PermitGranted)
        assert_type(event.quota_wait, float)


def no_owner(image: Image, context: Context) -> Finding | None:
    assert_type(context.age(image), timedelta | None)
    return context.finding(image, "no-owner", Severity.LOW, "no team tag", "tag it")


async def audits() -> None:
    rules: list[Rule] = [NamedRule("no-owner", no_owner), older_than(90)]
    images = ImagesAPI.from_env(on_event=hook).list()
    report = await audit(images, rules=rules, ignore_tags=["keep-*"], in_use={7})
    assert_type(report, AuditReport)
    assert_type(report.findings, tuple[Finding, ...])
    assert_type(report.to_dict(), dict[str, Any])
    assert_type(report.rules, tuple[RuleSettings, ...])
    assert_type(compare(report, Baseline.from_dict(report.to_dict())).differences, tuple[str, ...])


async def tests_of_ones_own() -> None:
    async with ImagesEmulator(images=3) as emulator:
        assert_type(emulator.url, str)
        assert_type(emulator.images.add(name="a"), int)
        assert_type(emulator.requests.count("GET", "/v2/images", status=200), int)
        assert_type(emulator.requests[0], Entry)
        emulator.faults.add(Fault(method="GET", status=503, times=2))
        emulator.faults.add(Fault(edge=True, reset_in=-600.0))
    ImagesEmulator(style="observed", burst_remaining_zero=False, names=["emulator"], remote_admin=True)


def retention(images: WholeListing, now: datetime) -> None:
    policy = Policy(
        keep_last=3,
        keep_hourly=1,
        keep_daily=7,
        keep_weekly=4,
        keep_monthly=12,
        keep_yearly=1,
        keep_within=timedelta(days=30),
        keep_tags=frozenset({"golden"}),
        min_keep=1,
    )
    made = plan(images, policy, group_by=by_name("web-*"), now=now, types=["snapshot"], in_use=[42])
    assert_type(made, Plan)
    assert_type(made.decisions, tuple[Decision, ...])
    assert_type(made.kept, tuple[Image, ...])
    assert_type(made.removed, tuple[Image, ...])
    assert_type(made.decisions[0].reasons, tuple[str, ...])
    assert_type(made.decisions[0].group, str | None)
    for group_by in (by_tags, by_distribution, by_regions, one_group, by_pattern("(?P<group>.+)-.*")):
        plan(images, policy, group_by=group_by, now=now, time_zone=UTC)
    plan(images, policy, group_by=lambda image: image.slug, now=now)
    assert_type([image.id for image in images], list[int])
    assert_type(len(images), int)
