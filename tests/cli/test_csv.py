"""CSV: every reader reads the rows back, and no cell begins a formula."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from do_images_async.cli.csv_text import csv_text
from do_images_async.testing import ImagesEmulator
from tests.support.cli_processes import account, do_images_here, in_terminal_here
from tests.support.servers import Server, image_document, reply
from tests.support.slow import fewer

TEXTS = st.text(
    st.sampled_from("=+-@\uff1d\ufe66'\",;\r\n\t \xa0\ufeff\u200b\u2028abc1é世") | st.characters()
)
FORMULAS = (
    "=1",
    "+1",
    "-1",
    "@a",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\xa0=1",
    "\ufeff=1",
    "\u200b=1",
    "\uff1d1",
    "'=1",
)


def undefused(cell: str) -> str:
    """Return the text that a cell was made of."""
    return cell.removeprefix("'")


def begins_formula(text: str) -> bool:
    skipped = ("Cc", "Cf", "Zl", "Zp", "Zs")
    seen = [char for char in text if unicodedata.category(char) not in skipped]
    return text[:1] in ("\t", "\r", "\n") or (
        bool(seen) and unicodedata.normalize("NFKC", seen[0])[0] in "=+-@\N{MINUS SIGN}"
    )


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), max_size=4))
@example([["a\r=cmd|' /C calc'!A0"], ["''=1", ""]])
@example([["'=1", "=1", "'", "'a", "a"]])
@example([[""]])
def test_rows_are_read_back_as_they_were(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(rows), newline=""), strict=True))
    assert [[undefused(cell) for cell in row] for row in read] == rows


@given(TEXTS)
@example("a\r=cmd|' /C calc'!A0")
def test_no_cell_and_no_line_outside_of_quotes_begins_a_formula(text: str) -> None:
    ((cell,),) = csv.reader(io.StringIO(csv_text([[text]]), newline=""), strict=True)
    assert not begins_formula(cell)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text(text: str) -> None:
    assert csv_text([[text]]).lstrip('"').startswith("'")


def test_values_are_those_of_json() -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    row = [True, False, None, 7, 2.34, 1e308, -1.5, moment, ("a", "b")]
    assert csv_text([row]) == 'true,false,,7,2.34,1e+308,-1.5,2026-03-01T12:00:00Z,"a,b"\n'
    assert csv_text([["'quoted'", "a-b", "a=b"]]) == "''quoted',a-b,a=b\n"


async def test_the_columns_of_a_list_have_the_names_of_json() -> None:
    async with ImagesEmulator(images=40, quotas=None) as emulator:
        where = account(emulator, emulator.token)
        rows = csv.DictReader(io.StringIO((await do_images_here("list", "-o", "csv", **where)).stdout))
        records = json.loads((await do_images_here("list", "-o", "json", **where)).stdout)
        named = await do_images_here("list", "-o", "csv", "--columns", "size_gigabytes,MinDisk", **where)
    for row, record in zip(rows, records, strict=True):
        assert set(row) == set(record)
        assert row["public"] == json.dumps(record["public"])
        assert float(row["size_gigabytes"] or 0) == (record["size_gigabytes"] or 0)
        assert row["created_at"] == record["created_at"]
    assert named.stdout.startswith("size_gigabytes,min_disk_size\n")


async def test_csv_and_all_columns_have_the_description_and_the_error_message(server: Server) -> None:
    failed = image_document(public=False, description="golden, really", error_message="no such file")
    server.answer_with(lambda request: reply({"images": [failed], "meta": {"total": 1}}))
    (row,) = csv.DictReader(
        io.StringIO((await do_images_here("list", "-o", "csv", **account(server))).stdout)
    )
    table = await do_images_here("list", "--columns", "all", **account(server))
    short = await do_images_here("get", "7", **account(server))
    assert (row["description"], row["error_message"]) == ("golden, really", "no such file")
    assert "golden, really" in table.stdout
    assert "no such file" in table.stdout
    assert "Description" not in short.stdout


@pytest.mark.parametrize("form", fewer(["table", "csv", "json", "ndjson"]))
async def test_a_terminal_gets_no_escape_sequence_of_a_name(form: str, server: Server) -> None:
    hostile = image_document(name="\x1b]0;title\x07\x9b1m\x1b[31m", public=False)
    server.answer_with(lambda request: reply({"images": [hostile], "meta": {"total": 1}}))
    columns = ("--columns", "Name") if form in ("csv", "table") else ()
    ended = await in_terminal_here("list", "-q", "-o", form, *columns, **account(server))
    assert ended.status == 0
    assert "]0;title" in ended.stdout
    assert not [sequence for sequence in ("\x1b]", "\x07", "\x9b", "\x1b[31m") if sequence in ended.stdout]


@pytest.mark.parametrize("encoding", fewer(["ascii", "cp1252"]))
@pytest.mark.parametrize(("form", "shown"), fewer([("table", "cafe \\u4e16\\u754c"), ("csv", "cafe 世界")]))
async def test_a_table_is_escaped_where_stdout_can_not_encode_it_and_csv_is_utf_8(
    encoding: str, form: str, shown: str, server: Server
) -> None:
    image = image_document(name="cafe 世界", public=False)
    server.answer_with(lambda request: reply({"images": [image], "meta": {"total": 1}}))
    arguments = ("list", "-q", "-o", form, "--columns", "Name", "--no-header")
    ended = await do_images_here(*arguments, PYTHONIOENCODING=encoding, **account(server))
    assert ended.status == 0
    assert shown in ended.stdout


async def test_values_at_the_ends_of_what_there_is_do_no_harm(server: Server) -> None:
    images = [
        image_document(1, created_at="0001-01-01T00:00:00+14:00", size_gigabytes=1e308, min_disk_size=2**62),
        image_document(2, created_at="9999-12-31T23:59:59-14:00", size_gigabytes=1e308),
        image_document(3, created_at="9999-12-31T23:59:59Z", size_gigabytes=5e-324),
    ]
    server.answer_with(lambda request: reply({"images": images, "meta": {"total": 3}}))
    for command, forms in (
        ("list", ("table", "csv", "json", "ndjson")),
        ("audit", ("text", "csv", "json", "html")),
    ):
        for form in forms:
            ended = await do_images_here(command, "-q", "-o", form, **account(server))
            assert (ended.status, ended.stderr) == (0, ""), (command, form)
            assert str(image_document(1)["name"]) in ended.stdout
