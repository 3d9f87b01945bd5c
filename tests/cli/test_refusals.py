"""The usage errors before anything is sent: options without effect, empty values, wrong addresses."""

from __future__ import annotations

import click
import pytest

from do_images_async.cli.app import main
from do_images_async.testing import ImagesEmulator
from tests.conftest import TOKEN
from tests.support.cli_processes import account, do_images_here

COMMANDS = sorted(main.list_commands(click.Context(main)))
HERE = {
    "DIGITALOCEAN_TOKEN": TOKEN,
    "DIGITALOCEAN_API_URL": "http://127.0.0.1:9",
    "PROD": TOKEN,
    "SAME": TOKEN,
}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("audit --images 5", "--images is for the demo"),
        ("audit --seed 5", "--seed is for the demo"),
        ("audit --demo --token-file nosuch", "--demo and --token-file exclude each other"),
        ("audit --demo --context nosuch", "--demo and --context exclude each other"),
        ("audit --demo --account a=PROD", "--demo and --account exclude each other"),
        ("audit --demo --retries 1", "--demo and --retries exclude each other"),
        ("audit --account a=PROD --token-file nosuch", "--account and --token-file exclude each other"),
        (
            "prune --name w --account a=PROD --context x --keep-last 1",
            "--account and --context exclude each other",
        ),
        ("list -t TOK --token-file nosuch", "--access-token and --token-file exclude each other"),
        ("list -t TOK --context nosuch", "--access-token and --context exclude each other"),
        ("get 1 --token-file nosuch --context nosuch", "--token-file and --context exclude each other"),
        ("delete - --token-file -", "the ids and --token-file can't both be read from stdin"),
        ("list --columns=", "--columns: it names no column"),
        ("actions 5 --columns=,", "--columns: it names no column"),
        ("list --file=", "'--file': it is empty: name a file."),
        ("audit --demo --file=", "'--file': it is empty: name a file."),
        ("actions ubuntu-24-04-x64", "'ubuntu-24-04-x64' is no id; that is a number"),
        ("create x --url https://example.com/a.img --region nyc1 --tag=", "--tag names no tag"),
        ("list --region=", "--region names no region"),
        ("list --region NYC3", "--region: 'NYC3' is no slug of a region, such as nyc3"),
        ("transfer 5 --region=,", "--region names no region"),
        ("prune --name w --keep-last 1 --keep-tag=", "--keep-tag names no tag"),
        (
            "create x --url https://example.com/a.img --region nyc1 --wait-timeout 9",
            "--wait-timeout is for --wait",
        ),
        ("transfer 5 --region nyc1 --poll-interval 9", "--poll-interval is for --wait"),
        ("wait 5 --poll-interval inf", "'--poll-interval': 'inf' is not a finite number above 0."),
        ("audit --older-than inf", "'--older-than': 'inf' is not a finite number from 0."),
        ("convert 5 --wait-timeout 9", "--wait-timeout is for --wait"),
        ("list -o json --columns ID", "--columns is for a table or CSV: json has no columns"),
        ("get 5 -o ndjson --no-header", "--no-header is for a table or CSV: ndjson has no columns"),
        ("prune --name w --keep-last 1 --journal j", "--journal is for --apply and --apply-plan"),
        ("prune --name w --keep-last 1 --yes", "--yes is for --apply and --apply-plan"),
        ("wait 0", "'0' is no id; that is a number"),
        ("list --tag=", "--tag must not be empty"),
        ("list --name=", "--name must not be empty"),
        ("latest --name=", "--name must not be empty"),
        ("replicate --name= --to ams3", "--name must not be empty"),
        ("replicate --name w --name= --to ams3", "--name must not be empty"),
        ("replicate --tag= --to ams3", "--tag must not be empty"),
        ("audit --account a=PROD --account b=SAME", "--account: a and b have the same token."),
        (
            "prune --name w --account a=PROD --account b=SAME --keep-last 1",
            "--account: a and b have the same token.",
        ),
        ("latest --tag=", "--tag must not be empty"),
        ("prune --name= --keep-last 1", "--name must not be empty"),
        ("prune --name w --keep-within 0d", "--keep-within must be longer than nothing"),
        ("prune --pattern ( --keep-last 1", "--pattern is no regular expression"),
        ("prune --pattern x --keep-last 1", "--pattern needs a group named group"),
        ("list --token-file=", "--token-file is empty"),
        ("list --token-file /dev/zero", "--token-file /dev/zero: File too large"),
        ("audit --demo --images 100001", "'--images': 100001 is not in the range"),
        (f"list --tag {TOKEN}", "--tag must not be an API token"),
        (f"get {TOKEN}", "must not be an API token"),
        (f"create {TOKEN} --url https://example.com/a.img --region nyc1", "NAME must not be an API token"),
    ],
)
async def test_what_has_no_effect_or_no_meaning_is_refused(call: str, message: str) -> None:
    ended = await do_images_here(*call.split(), **HERE)
    assert (ended.status, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert TOKEN not in ended.stderr


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("update 5 --name {}", "--image-name must not be an API token"),
        ("update 5 --description {}", "--image-description must not be an API token"),
        ("create {} --url https://example.com/a.img --region nyc1", "NAME must not be an API token"),
        (
            "create x --url https://example.com/a.img --region nyc1 --tag a,{}",
            "--tag-names must not be an API token",
        ),
        ("list --name {}", "--name must not be an API token"),
    ],
)
@pytest.mark.parametrize("token", ["0123456789abcdef" * 4, "a-token-of-a-gateway"])
async def test_a_token_in_the_place_of_a_text_is_refused_whatever_it_looks_like(
    call: str, message: str, token: str
) -> None:
    ended = await do_images_here(*call.format(token).split(), **(HERE | {"DIGITALOCEAN_TOKEN": token}))
    assert (ended.status, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert token not in ended.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_of_an_option_is_finite(name: str) -> None:
    """NaN passes every comparison with a limit, so that a limit of NaN would limit nothing."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    for option in command.params:
        if isinstance(option.default, float) or isinstance(option.type, click.types.FloatParamType):
            for value in ("nan", "inf", "-inf", "1e999", "-1"):
                with pytest.raises(click.BadParameter):
                    option.type_cast_value(click.Context(command), value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("junk", "Error: DIGITALOCEAN_API_URL must be an absolute https URL, not 'junk'\n"),
        (
            "http://example.com",
            (
                "Error: DIGITALOCEAN_API_URL must be https, or the token could be read on the way: "
                "'http://example.com'\n"
            ),
        ),
        (
            f"https://{TOKEN}",
            (
                "Error: DIGITALOCEAN_API_URL must have a host name with 1 to 63 characters between its dots, "
                "not 'https://(a token)'\n"
            ),
        ),
        (
            "https://h..x",
            (
                "Error: DIGITALOCEAN_API_URL must have a host name with 1 to 63 characters between its dots, "
                "not 'https://h..x'\n"
            ),
        ),
    ],
)
async def test_a_wrong_address_is_the_fault_of_its_variable(url: str, message: str) -> None:
    ended = await do_images_here("list", DIGITALOCEAN_TOKEN=TOKEN, DIGITALOCEAN_API_URL=url)
    assert (ended.status, ended.stdout, ended.stderr) == (2, "", message)


async def test_an_empty_list_names_the_filters_that_the_api_applied() -> None:
    async with ImagesEmulator(images=5, quotas=None) as emulator:
        where = account(emulator, emulator.token)
        tagged = await do_images_here("list", "-q", "--tag", "nosuch", **where)
    assert tagged.status == 0
    assert tagged.stderr == "do-images: no private image has the tag 'nosuch'\n"
