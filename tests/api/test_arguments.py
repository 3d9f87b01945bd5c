"""Arguments: bad ones are refused before a connection is made."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from do_images_async import ImagesAPI, RateLimiter, RetryPolicy, TokenBucket, errors, fan_out
from do_images_async.testing import ImagesEmulator
from tests.conftest import FAST, ONCE, TOKEN
from tests.support.servers import Server, image_reply, refusal

Call = Callable[[ImagesAPI, Any], Awaitable[object]]
WRITES: dict[str, Call] = {
    "update": lambda api, image_id: api.update(image_id, name="a"),
    "delete": lambda api, image_id: api.delete(image_id),
    "wait": lambda api, image_id: api.wait_until_available(image_id),
}
CALLS: dict[str, Call] = {"get": lambda api, image_id: api.get(image_id), **WRITES}

URL = "https://example.com/golden.qcow2"

BAD_IDS: list[tuple[Any, type[Exception]]] = [
    *((value, ValueError) for value in (0, -1, -(2**70), 2**63, 10**5000)),
    *(
        (value, TypeError)
        for value in (True, False, None, 1.0, float("nan"), b"42", [42], {"id": 42}, object())
    ),
]
BAD_SLUGS = [
    "",
    " ",
    "42",
    "0",
    "../droplets",
    "..",
    ".",
    "./42",
    "a/b",
    "/42",
    "a\\b",
    "?x",
    "a?x=1",
    "#x",
    "a#x",
    "%2e%2e",
    "%2E%2E%2Fdroplets",
    "a%00",
    "a\nb",
    "a\n",
    "a\r\nHost: evil.example",
    "a\0b",
    "a b",
    " a",
    "a;b",
    "a:b",
    "a@b",
    "//evil.example/x",
    "https://evil.example/x",
    "\u00fcbuntu",
    "\uff0e\uff0e",
    "\u2024\u2024/droplets",
    "\u0664\u0662",
    "\U0001f427",
    "\ud800",
    "a" * 256,
    "a" * 1_000_000,
]


# --- ids and slugs ---


@pytest.mark.parametrize("slug", BAD_SLUGS, ids=lambda slug: ascii(slug[:20]))
async def test_row_57_a_slug_that_could_name_another_url_is_never_sent(
    server: Server, api: ImagesAPI, slug: str
) -> None:
    with pytest.raises(ValueError, match="image_id"):
        await api.get(slug)
    assert not server.connections


TOKEN_IN_PLACE: list[Callable[[Any], Awaitable[object]]] = [
    lambda api: api.get(TOKEN),
    lambda api: api.actions.get(TOKEN, 7),
    lambda api: api.get_many([42, TOKEN], concurrency=TOKEN),
    lambda api: anext(api.list(tag_name=TOKEN)),
    lambda api: api.list_page(type=TOKEN),
    lambda api: api.update(42, name=TOKEN),
    lambda api: api.update(42, name="a", description=[TOKEN]),
    lambda api: api.create_custom(name="a", url="https://a.example/a", region=TOKEN),
    lambda api: api.create_custom(name="a", url=TOKEN, region="fra1"),
    lambda api: api.create_custom(name="a", url="https://a.example/a", region="fra1", tags=[TOKEN]),
    lambda api: api.actions.transfer(42, TOKEN),
    lambda api: api.account_transfers.create(42, email=TOKEN),
    lambda api: api.account_transfers.create(42, team_uuid=TOKEN),
    lambda api: api.latest(name=TOKEN),
]


@pytest.mark.parametrize("call", TOKEN_IN_PLACE)
async def test_a_token_in_place_of_another_argument_is_neither_sent_nor_shown(
    server: Server, api: ImagesAPI, call: Callable[[Any], Awaitable[object]]
) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        await call(api)
    assert TOKEN[:20] not in str(caught.value)
    assert not server.connections


@pytest.mark.parametrize(
    ("image_id", "kind"), BAD_IDS, ids=lambda value: repr(value)[:20] if value != 10**5000 else "huge"
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_row_57_what_is_no_id_is_never_sent(
    server: Server, api: ImagesAPI, call: Call, image_id: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await call(api, image_id)
    assert not server.connections


@pytest.mark.parametrize("slug", ["42", "ubuntu-24-04-x64", "../droplets"])
@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES.keys())
async def test_row_57_only_get_takes_a_slug(server: Server, api: ImagesAPI, call: Call, slug: str) -> None:
    with pytest.raises(TypeError, match="image_id"):
        await call(api, slug)
    assert not server.connections


@pytest.mark.parametrize(
    "key", [1, 42, 2**63 - 1, "ubuntu-24-04-x64", "a", "Docker_20.04", "7daystodie", "rocky-9.x64", "a" * 255]
)
async def test_row_57_good_keys_are_one_path_segment(server: Server, api: ImagesAPI, key: int | str) -> None:
    server.script(image_reply(key) if isinstance(key, int) else image_reply(42, slug=key))
    await api.get(key)
    assert server.received[0].target == f"/v2/images/{key}"


# --- creating ---

CREATION: dict[str, Any] = {"name": "golden", "url": URL, "region": "nyc3"}
BAD_CREATIONS: list[tuple[str, Any, type[Exception]]] = [
    *(("name", value, TypeError) for value in (None, 5, b"x")),
    ("name", "", ValueError),
    ("name", "\ud800", ValueError),
    *(("region", value, TypeError) for value in (None, 3, ["nyc3"])),
    ("region", "", ValueError),
    *(("distribution", value, TypeError) for value in (5, ["Ubuntu"])),
    *(("description", value, TypeError) for value in (5, b"x")),
    *(
        ("tags", value, TypeError)
        for value in ("prod", b"x", bytearray(b"x"), 5, {}, {"a": "b"}, iter("ab"), [1], [None], ["a", b"b"])
    ),
    *(("tags", value, ValueError) for value in ([""], ["a", "\ud800"])),
    *(("url", value, TypeError) for value in (None, 5, b"https://example.com/a")),
    *(
        ("url", value, ValueError)
        for value in (
            "",
            "golden.qcow2",
            "/golden.qcow2",
            "//example.com/golden.qcow2",
            "file:///etc/passwd",
            "gopher://example.com/a",
            "javascript:alert(1)",
            "data:text/plain,a",
            "s3://bucket/golden.qcow2",
            "https://",
            "https:///golden.qcow2",
            "http://[",
            "https://example.com/a b",
            "https://example.com/a\nb",
            " https://example.com/a",
            "https://h:99999/",
            "https://h:0/",
            "https://h:port/",
        )
    ),
]


@pytest.mark.parametrize(("name", "value", "kind"), BAD_CREATIONS)
async def test_an_invalid_creation_is_never_sent(
    server: Server, api: ImagesAPI, name: str, value: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=name):
        await api.create_custom(**{**CREATION, name: value})
    assert not server.connections


@pytest.mark.parametrize("missing", CREATION)
async def test_a_creation_needs_name_url_and_region(server: Server, api: ImagesAPI, missing: str) -> None:
    arguments = {name: value for name, value in CREATION.items() if name != missing}
    with pytest.raises(TypeError, match=missing):
        await api.create_custom(**arguments)
    assert not server.connections


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {}),
        ({"description": ""}, {"description": ""}),
        ({"tags": []}, {"tags": []}),
        ({"tags": ("a", "b")}, {"tags": ["a", "b"]}),
        ({"distribution": "Plan 9"}, {"distribution": "Plan 9"}),
        ({"url": "http://example.com/a"}, {"url": "http://example.com/a"}),
        ({"url": "HTTPS://example.com/a?b=c#d"}, {"url": "HTTPS://example.com/a?b=c#d"}),
        ({"url": "ftp://example.com/a"}, {"url": "ftp://example.com/a"}),
        ({"name": 'quote " \\ \0 \n \U0001f427 & # +'}, {"name": 'quote " \\ \0 \n \U0001f427 & # +'}),
        ({"tags": ["a&b", "\u00e9"]}, {"tags": ["a&b", "\u00e9"]}),
    ],
)
async def test_row_61_a_creation_sends_what_was_given(
    server: Server, api: ImagesAPI, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    server.script(image_reply(42, status=202, name=given.get("name", "golden")))
    await api.create_custom(**{**CREATION, **given})
    assert server.received[0].json() == {**CREATION, **sent}


# --- updating ---


async def test_row_60_an_update_with_nothing_in_it_is_never_sent(server: Server, api: ImagesAPI) -> None:
    with pytest.raises(ValueError, match="at least one"):
        await api.update(42)
    assert not server.connections


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        *(
            (name, value, TypeError)
            for name in ("name", "description", "distribution")
            for value in (None, 5, b"x")
        ),
        ("name", "", ValueError),
        ("distribution", "", ValueError),
        ("description", "\ud800", ValueError),
    ],
)
async def test_an_invalid_update_is_never_sent(
    server: Server, api: ImagesAPI, name: str, value: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=name):
        await api.update(42, **{name: value})
    assert not server.connections


async def test_an_empty_description_is_a_change_like_any_other(server: Server, api: ImagesAPI) -> None:
    server.script(image_reply(42), image_reply(42, name="a"))
    await api.update(42, description="")
    await api.update(42, name="a")
    assert [request.json() for request in server.received] == [{"description": ""}, {"name": "a"}]


@pytest.mark.parametrize("tags", [5, b"x", {}, {"a": "b"}, "prod"])
async def test_not_every_iterable_is_a_list_of_tags(api: ImagesAPI, tags: Any) -> None:
    with pytest.raises(TypeError, match=r"^tags must be a list, tuple or set of strings, not "):
        await api.create_custom(**CREATION, tags=tags)


@pytest.mark.parametrize("tags", [["a"], ("a",), {"a"}, frozenset("a"), {"a": 1}.keys()])
async def test_tags_come_in_any_collection(server: Server, api: ImagesAPI, tags: Any) -> None:
    server.script(image_reply(1, status=202, name="golden"))
    await api.create_custom(**CREATION, tags=tags)
    assert server.received[0].json()["tags"] == ["a"]


@pytest.mark.parametrize(
    "url",
    [
        "gopher://user:hunter2@h/a",
        "https://user:hunter2@h:99999/a",
        "https://user:hunter2/x@h:99999/a",
        "https://user:hunter2?x@h/a b",
        "user:hunter2@h/a",
        "https://h:0/a?signature=hunter2",
    ],
)
async def test_row_62_a_refused_url_is_shown_without_its_secrets(api: ImagesAPI, url: str) -> None:
    with pytest.raises(ValueError, match=r"url must be .* not '") as caught:
        await api.create_custom(name="a", url=url, region="nyc3")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["HTTPS://example.com/a.img", "Ftp://example.com/a.img"])
async def test_a_scheme_may_be_in_upper_case_for_client_and_emulator(url: str) -> None:
    async with ImagesEmulator() as emulator, ImagesAPI(emulator.token, base_url=emulator.url) as api:
        assert (await api.create_custom(name="a", url=url, region="nyc3")).name == "a"


# --- what is repeated of a bad argument ---


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "value",
    ["/" * 10**6, b"/" * 10**6, ["/" * 10**6], 10**5000, -(10**5000), Unprintable()],
    ids=["text", "bytes", "list", "int", "negative", "unprintable"],
)
async def test_a_message_names_its_argument_and_repeats_little_of_it(api: ImagesAPI, value: Any) -> None:
    calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("image_id", lambda: api.get(value)),
        ("image_id", lambda: api.delete(value)),
        ("url", lambda: api.create_custom(name="a", url=value, region="nyc3")),
        ("type", lambda: api.list_page(type=value)),
        ("private", lambda: api.list_page(private=value)),
        ("since", lambda: api.find_created(name="a", since=value)),
        ("per_page", lambda: api.list_page(per_page=value)),
        ("timeout", lambda: api.wait_until_available(1, timeout=value)),
        ("email", lambda: api.account_transfers.create(1, email=value + "\ud800")),
    ]
    for name, call in calls:
        if name == "email" and not isinstance(value, str):
            continue
        with pytest.raises((TypeError, ValueError), match=name) as caught:
            await call()
        assert len(str(caught.value)) < 250


@pytest.mark.parametrize("key", [None, 1.5, True, b"ubuntu"])
async def test_the_error_for_a_bad_key_names_ids_and_slugs(api: ImagesAPI, key: Any) -> None:
    with pytest.raises(TypeError, match=r"^image_id must be an int, or the slug of a public image, not "):
        await api.get(key)


# --- where the API is ---


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.digitalocean.com",
        "http://localhost.evil.example",
        f"https://{'a' * 64}.example",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://128.0.0.1",
        "http://[::2]",
        "http://[::ffff:10.0.0.1]",
        "https://api.digitalocean.com@evil.example",
        "https://user:password@api.digitalocean.com",
        "https://:password@api.digitalocean.com",
        "http://localhost@evil.example",
        "https://api.digitalocean.com?x=1",
        "https://api.digitalocean.com/#x",
        "https://",
        "https:///v2",
        "api.digitalocean.com",
        "//api.digitalocean.com",
        "/v2",
        "",
        "ftp://api.digitalocean.com",
        "file:///etc/passwd",
        "ws://localhost",
        "https://api.digitalocean.com:port",
        "https://api.digitalocean.com:99999",
        "https://[",
        "https://h..x",
        "https://.x",
        "https://..",
        "https://xn--a.example",
        "https://h /",
        "https://h\u00a0/",
        "https://h<x>/",
        "https://h%20x/",
        "https://h:0",
        "https:user:password@api.digitalocean.com",
        "https://user:password@h:99999/",
    ],
)
def test_row_59_a_base_url_that_could_leak_the_token_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        ImagesAPI(TOKEN, base_url=base_url)
    assert "password" not in str(caught.value).replace("user name or password", "")


@pytest.mark.parametrize("base_url", [5, b"https://api.digitalocean.com"])
def test_a_base_url_is_a_string(base_url: Any) -> None:
    with pytest.raises(TypeError, match="base_url"):
        ImagesAPI(TOKEN, base_url=base_url)


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.digitalocean.com",
        "https://api.digitalocean.com/",
        "https://proxy.example:8443/digitalocean",
        "HTTPS://API.DIGITALOCEAN.COM",
        "http://localhost:8080",
        "http://LOCALHOST",
        "http://127.0.0.1:1",
        "http://127.1.2.3",
        "http://[::1]:8080",
        "http://[::ffff:127.0.0.1]",
        "https://api.digitalocean.com.",
    ],
)
def test_row_59_https_anywhere_and_http_on_this_machine(base_url: str) -> None:
    assert ImagesAPI(TOKEN, base_url=base_url).rate_limit is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/v2/images/1"),
        ("/", "/v2/images/1"),
        ("/a/b", "/a/b/v2/images/1"),
        ("/a%20b/", "/a%20b/v2/images/1"),
    ],
)
async def test_a_path_in_the_base_url_stands_before_ours(server: Server, path: str, expected: str) -> None:
    server.script(image_reply(1))
    async with ImagesAPI(TOKEN, base_url=server.url + path) as api:
        await api.get(1)
    assert server.received[0].target == expected


# --- the token ---


@pytest.mark.parametrize(
    "ending", ["\n", "\r\nX: y", " ", "\t", "\0", "\x7f", "\u00e9", "\u2028", "\ud800", " two"], ids=ascii
)
@pytest.mark.parametrize("front", [True, False])
def test_row_58_an_invalid_token_is_refused_and_not_shown(ending: str, front: bool) -> None:
    token = ending + "secret-part" if front else "secret-part" + ending
    with pytest.raises(ValueError, match="token") as caught:
        ImagesAPI(token)
    assert "secret-part" not in f"{caught.value!r} {caught.value.args}"


@pytest.mark.parametrize("token", [b"secret-part", 5, True, ["secret-part"]])
def test_a_token_is_a_string(token: Any) -> None:
    with pytest.raises(TypeError, match="token") as caught:
        ImagesAPI(token)
    assert "secret-part" not in str(caught.value)


def test_an_empty_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    with pytest.raises(ValueError, match="token"):
        ImagesAPI("")


# --- the environment ---


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DIGITALOCEAN_TOKEN": "first"}, "first"),
        ({"DIGITALOCEAN_ACCESS_TOKEN": "second"}, "second"),
        ({"DIGITALOCEAN_TOKEN": "first", "DIGITALOCEAN_ACCESS_TOKEN": "second"}, "first"),
        ({"DIGITALOCEAN_TOKEN": "", "DIGITALOCEAN_ACCESS_TOKEN": "second"}, "second"),
        ({"DIGITALOCEAN_TOKEN": "\n", "DIGITALOCEAN_ACCESS_TOKEN": " second\r\n"}, "second"),
    ],
)
async def test_the_token_comes_from_the_environment(
    server: Server, environment: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    environment.setenv("DIGITALOCEAN_API_URL", f"{server.url}\n")
    server.script(refusal(404), image_reply(1), image_reply(1))
    async with ImagesAPI.from_env(user_agent="mine/1", retry=ONCE) as api:
        with pytest.raises(errors.NotFoundError):
            await api.get(1)
    async with ImagesAPI(base_url=server.url) as api:
        await api.get(1)
    async with ImagesAPI("given", base_url=server.url) as api:
        await api.get(1)
    sent = [request.headers["authorization"] for request in server.received]
    assert sent == [f"Bearer {expected}", f"Bearer {expected}", "Bearer given"]
    agents = [request.headers["user-agent"] for request in server.received[1:]]
    assert agents[0] == agents[1]
    assert agents[0].startswith("do-images-async/")
    assert server.received[0].headers["user-agent"] == f"mine/1 {agents[0]}"


@pytest.mark.parametrize("make", [ImagesAPI.from_env, ImagesAPI])
def test_without_a_token_the_error_names_the_variables(
    environment: pytest.MonkeyPatch, make: Callable[[], ImagesAPI]
) -> None:
    environment.setenv("DIGITALOCEAN_TOKEN", "")
    with pytest.raises(ValueError, match="DIGITALOCEAN_TOKEN or DIGITALOCEAN_ACCESS_TOKEN"):
        make()


def test_a_bad_token_in_the_environment_is_refused_and_not_shown(environment: pytest.MonkeyPatch) -> None:
    for variable in ("DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN"):
        environment.setenv(variable, "secret-part\nand another")
        expected = f"^{variable} must be visible ASCII characters without spaces and line ends"
        with pytest.raises(ValueError, match=expected) as caught:
            ImagesAPI.from_env()
        assert "secret-part" not in str(caught.value)


def test_a_bad_url_in_the_environment_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    environment.setenv("DIGITALOCEAN_API_URL", "http://evil.example")
    with pytest.raises(ValueError, match=r"^DIGITALOCEAN_API_URL must be https"):
        ImagesAPI.from_env()
    with pytest.raises(ValueError, match=r"^base_url must be an absolute https URL"):
        ImagesAPI(base_url="junk")


def test_an_empty_url_in_the_environment_is_the_default(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    environment.setenv("DIGITALOCEAN_API_URL", "")
    assert "https://api.digitalocean.com" in repr(ImagesAPI.from_env())


# --- options ---

BAD_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    *(("timeout", value, ValueError) for value in (0, -1, float("nan"), float("inf"))),
    *(("timeout", value, TypeError) for value in ("30", True)),
    *(("max_wait", value, ValueError) for value in (-1, float("nan"))),
    *(("max_wait", value, TypeError) for value in ("30", True)),
    *(("retry", value, TypeError) for value in (None, 3, "twice")),
]


@pytest.mark.parametrize(("name", "value", "kind"), BAD_OPTIONS)
def test_a_bad_option_is_refused(name: str, value: Any, kind: type[Exception]) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(kind, match=name):
        ImagesAPI(TOKEN, **options)
    with pytest.raises(kind, match=name):
        ImagesAPI(TOKEN).with_options(**options)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("user_agent", "a\r\nX: y", ValueError),
        ("user_agent", "", ValueError),
        ("user_agent", "caf\u00e9", ValueError),
        ("user_agent", 5, TypeError),
        ("session", "session", TypeError),
        ("limiter", 250, TypeError),
    ],
)
def test_a_client_with_a_bad_argument_is_not_made(name: str, value: Any, kind: type[Exception]) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(kind, match=name):
        ImagesAPI(TOKEN, **options)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        *(({"attempts": value}, ValueError) for value in (0, -1)),
        *(({"attempts": value}, TypeError) for value in (True, 1.5, "4", None)),
        *(({"base": value}, ValueError) for value in (-1, float("nan"), float("inf"))),
        *(({"cap": value}, ValueError) for value in (-1, float("nan"), float("inf"))),
        *(({"base": value}, TypeError) for value in ("1", None, True)),
        *(({"cap": value}, TypeError) for value in ("1", None, True)),
    ],
)
def test_a_bad_retry_policy_is_refused(options: dict[str, Any], kind: type[Exception]) -> None:
    (name,) = options
    allowed = (
        "be an int|be at least 1"
        if name == "attempts"
        else "be a number of seconds|be at least 0 seconds and finite"
    )
    with pytest.raises(kind, match=f"^{name} must ({allowed}), not "):
        RetryPolicy(**options)


def test_the_documented_defaults() -> None:
    assert RetryPolicy() == RetryPolicy(attempts=4, base=0.5, cap=20.0)
    assert RateLimiter().buckets == (TokenBucket(250, per=60), TokenBucket(5000, per=3600))
    assert "https://api.digitalocean.com" in repr(ImagesAPI(TOKEN))


async def test_a_copy_with_other_options_shares_limiter_and_session(server: Server, api: ImagesAPI) -> None:
    server.script(image_reply(1), refusal(503), image_reply(1), refusal(503))
    once = api.with_options(retry=ONCE)
    await once.get(1)
    await api.get(1)
    with pytest.raises(errors.ServerError):
        await once.get(1)
    assert once.limiter is api.limiter
    assert server.connections == 1
    assert api.limiter.stats().granted == 4


async def test_options_that_are_not_given_stay(server: Server, api: ImagesAPI) -> None:
    server.script(*[refusal(503)] * 9)
    copied = api.with_options(retry=ONCE).with_options(timeout=None).with_options(max_wait=3)
    with pytest.raises(errors.ServerError):
        await copied.get(1)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("reserve", "kind"), [(-1, ValueError), (2, ValueError), (True, TypeError), ("1", TypeError)]
)
def test_a_reserve_that_could_never_be_left_is_refused(reserve: Any, kind: type[Exception]) -> None:
    api = ImagesAPI(TOKEN, limiter=RateLimiter(TokenBucket(2, per=60)))
    with pytest.raises(kind, match="reserve"):
        api.with_options(reserve=reserve)


async def test_a_copy_with_a_reserve_leaves_tokens_for_others(server: Server) -> None:
    server.script(*[image_reply(1)] * 3)
    limiter = RateLimiter(TokenBucket(2, per=60))
    async with ImagesAPI(TOKEN, base_url=server.url, limiter=limiter, max_wait=0, retry=FAST) as api:
        bulk = api.with_options(reserve=1)
        await bulk.get(1)
        with pytest.raises(errors.QuotaWaitError):
            await bulk.get(1)
        await api.get(1)
    assert len(server.received) == 2


async def test_headers_of_a_plain_request(server: Server, api: ImagesAPI) -> None:
    server.script(image_reply(1))
    await api.get(1)
    headers = server.received[0].headers
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["user-agent"].startswith("do-images-async/")
    assert headers["accept"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert "cookie" not in headers


BAD_CHANGES: list[Any] = [None, 5, "ab", [5], ["ab"], [(1, {}, 2)], [[1, {"name": "a"}]]]


@pytest.mark.parametrize("changes", BAD_CHANGES)
async def test_changes_are_pairs_of_ids_and_fields(server: Server, api: ImagesAPI, changes: Any) -> None:
    with pytest.raises(TypeError, match="changes must be"):
        async for _ in api.update_many(changes):
            pass
    assert not server.connections


@pytest.mark.parametrize("fields", [None, 5, "name", {"size": "x"}, {5: "x"}])
async def test_a_change_of_another_field_is_its_images_error(
    server: Server, api: ImagesAPI, fields: Any
) -> None:
    outcomes = [outcome async for outcome in api.update_many({1: fields})]
    assert [(outcome.key, type(outcome.error)) for outcome in outcomes] == [(1, TypeError)]
    assert "changes may be of name, description and distribution" in str(outcomes[0].error)
    assert not server.connections


@pytest.mark.parametrize("key", ["110000010", "7", "0012"])
async def test_row_95_an_id_in_a_string_is_told_to_be_an_int(api: ImagesAPI, key: str) -> None:
    expected = f"image_id must be an int to name an image by its id: pass {int(key)}, not {key!r}"
    with pytest.raises(ValueError, match=expected):
        await api.get(key)


@pytest.mark.parametrize("key", ["0" * 19, "9" * 19])
async def test_row_95_digits_that_are_no_id_are_not_proposed(api: ImagesAPI, key: str) -> None:
    with pytest.raises(ValueError, match=r"^image_id must be from 1 to 2\*\*63 - 1, not"):
        await api.get(key)


# --- generators ---

GENERATORS: list[tuple[str, Callable[[ImagesAPI], object]]] = [
    ("per_page", lambda api: api.list(per_page=0)),
    ("concurrency", lambda api: api.list(concurrency=0)),
    ("type", lambda api: api.list(type=cast("Any", "snapshot"))),
    ("private", lambda api: api.list(private=cast("Any", "yes"))),
    ("tag_name", lambda api: api.list_pages(tag_name="")),
    ("per_page", lambda api: api.list_pages(per_page=201)),
    ("ids", lambda api: api.get_many("ubuntu-24-04-x64")),
    ("concurrency", lambda api: api.get_many([1], concurrency=0)),
    ("progress", lambda api: api.get_many([1], progress=cast("Any", 5))),
    ("ids", lambda api: api.delete_many(cast("Any", 5))),
    ("concurrency", lambda api: api.delete_many([1], concurrency=0)),
    ("changes", lambda api: api.update_many(cast("Any", 5))),
    ("concurrency", lambda api: api.update_many({1: {}}, concurrency=0)),
    ("image_id", lambda api: api.actions.list(0)),
    ("per_page", lambda api: api.actions.list(1, per_page=0)),
    ("concurrency", lambda api: api.actions.list(1, concurrency=0)),
    ("regions", lambda api: api.actions.transfer_to_regions(1, "nyc3")),
    ("timeout", lambda api: api.actions.transfer_to_regions(1, ["nyc3"], timeout=0)),
    ("poll_interval", lambda api: api.actions.transfer_to_regions(1, ["nyc3"], poll_interval=0)),
    ("progress", lambda api: api.actions.transfer_to_regions(1, ["nyc3"], progress=cast("Any", 5))),
    ("concurrency", lambda api: fan_out(api.get, [1], concurrency=0)),
    ("keys", lambda api: fan_out(api.get, cast("Any", 5))),
    ("call", lambda _: fan_out(cast("Any", 5), [1])),
]


@pytest.mark.parametrize(("name", "call"), GENERATORS)
async def test_a_generators_arguments_are_checked_when_it_is_called(
    api: ImagesAPI, name: str, call: Callable[[ImagesAPI], object]
) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        call(api)


# --- one decision for the token and the address ---


async def test_a_token_of_the_environment_goes_where_the_environment_says(
    server: Server, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    environment.setenv("DIGITALOCEAN_API_URL", server.url)
    server.answer_with(lambda _: image_reply(1))
    for make in (ImagesAPI, ImagesAPI.from_env):
        async with make() as api:
            await api.get(1)
    assert len(server.received) == 2


async def test_a_token_that_is_passed_never_goes_where_the_environment_says(
    server: Server, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DIGITALOCEAN_TOKEN", TOKEN)
    environment.setenv("DIGITALOCEAN_API_URL", "https://elsewhere.example")
    for token in (TOKEN, lambda: TOKEN):
        assert "<ImagesAPI https://api.digitalocean.com " in repr(ImagesAPI(token))
        assert f"<ImagesAPI {server.url} " in repr(ImagesAPI(token, base_url=server.url))
    assert f"<ImagesAPI {server.url} " in repr(ImagesAPI(base_url=server.url))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", "/v2/images/1"),
        ("/v2/", "/v2/images/1"),
        ("/do/v2", "/do/v2/images/1"),
        ("/do/v2//", "/do/v2/images/1"),
        ("/v2/v2", "/v2/v2/images/1"),
        ("/api-v2", "/api-v2/v2/images/1"),
    ],
)
async def test_v2_at_the_end_of_a_base_url_means_the_same_as_without(
    server: Server, path: str, expected: str
) -> None:
    server.answer_with(lambda _: image_reply(1))
    async with ImagesAPI(TOKEN, base_url=server.url + path) as api:
        await api.get(1)
    assert server.received[0].path == expected


async def test_http_elsewhere_is_allowed_when_asked_for_and_warned_of_once(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    host = socket.gethostname()
    url = f"http://{host}:{server.port}"
    with pytest.raises(ValueError, match="allow_insecure_http=True"):
        ImagesAPI(TOKEN, base_url=url)
    assert not caplog.records
    async with ImagesAPI(TOKEN, base_url=url, allow_insecure_http=True) as api:
        assert f"<ImagesAPI {url} " in repr(api.with_options(timeout=1))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("do_images_async", "WARNING")
    assert f"unencrypted to {url}" in record.getMessage()


def test_nothing_is_warned_of_on_this_machine_or_over_https(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    ImagesAPI(TOKEN, base_url=server.url, allow_insecure_http=True)
    ImagesAPI(TOKEN, base_url="https://emulator:8080", allow_insecure_http=True)
    assert not caplog.records


class Partial:
    """A limiter that has only one of the methods."""

    async def acquire(self) -> None: ...


@pytest.mark.parametrize(
    ("limiter", "says"),
    [
        (Partial(), "Partial lacks check_reserve, next_permit_in, stats"),
        (RateLimiter, "not the class RateLimiter"),
        ("limiter", "str lacks acquire, check_reserve, next_permit_in, stats"),
        (0, "int lacks acquire"),
    ],
)
def test_a_limiter_is_checked_whole_when_it_is_given(limiter: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        ImagesAPI(TOKEN, limiter=limiter)
