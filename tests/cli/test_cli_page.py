"""The report as a page: its content, and its behaviour in a browser."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
import pytest_asyncio

from do_images_async import Image, ImageType, converter
from do_images_async.audit import AuditReport, audit, combined, compare
from do_images_async.cli.charts import Bar, bars
from do_images_async.cli.page import report_page
from do_images_async.testing.catalogue import private_images
from tests.support.browser import BROWSER, Browser, browser

Test = TypeVar("Test", bound=Callable[..., object])

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN = "document.title='owned'"
HOSTILE = f'</script><script>{OWN}</script><img src=x onerror="{OWN}">\'&\x00\u202e'


def in_a_browser(test: Test) -> Test:
    """Run a test in the module's browser, if there is one, and on one Python only."""
    skipping = pytest.mark.skipif(not BROWSER, reason="needs chromium: apt-get install chromium")
    marked: Test = pytest.mark.once(pytest.mark.asyncio(loop_scope="module")(skipping(test)))
    return marked


def made_report(*more: Image, **options: Any) -> AuditReport:
    records = private_images(300, 7, NOW.timestamp())
    images = [converter.structure(record, Image) for record in records]
    return asyncio.run(audit([*images, *more], now=NOW, **options))


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile_report() -> AuditReport:
    def find(image: Image, context: Any) -> Any:
        from do_images_async.audit import Severity

        return context.finding(image, HOSTILE, Severity.HIGH, HOSTILE, HOSTILE)

    image = Image(id=1, name=HOSTILE, distribution=HOSTILE, regions=(HOSTILE,), size_gigabytes=3.0)
    report = asyncio.run(audit([image], rules=[find], now=NOW))
    whole = combined({HOSTILE: attrs.evolve(report, incomplete=HOSTILE)})
    return attrs.evolve(whole, comparison=compare(whole, made_report().to_dict()))


# --- what is in it ---


def test_nothing_is_loaded_from_anywhere() -> None:
    page = Elements(report_page(made_report(), "somebody"))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base"}
    for tag, attributes in page.elements:
        assert not {"src", "action", "srcset", "style", "onclick", "onerror"} & set(attributes)
        assert tag == "a" or "href" not in attributes
    assert "url(" not in "".join(page.texts)
    policy = next(each["content"] for _, each in page.elements if "http-equiv" in each)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_hostile_names_are_text() -> None:
    report = hostile_report()
    text = report_page(report, HOSTILE, {HOSTILE: report})
    page = Elements(text)
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "img" not in {tag for tag, _ in page.elements}
    assert "\x00" not in text
    assert "\u202e" not in text
    assert len([each for each in page.texts if each.startswith("</script><script>document.title")]) > 5


def test_the_numbers_are_those_of_the_report() -> None:
    report = attrs.evolve(made_report(), requests=4, pages=2, elapsed=1.5, reported_total=300)
    text = " ".join(Elements(report_page(report, "somebody")).texts)
    for value in (f"${report.monthly_cost:,.2f}", f"${report.savings:,.2f}", f"{report.findings_total:,}"):
        assert value in text
    assert "4 requests for 2 pages in 1.50 s. 300 images read of 300" in text
    assert "incomplete" not in text.lower()
    page = report_page(report, "somebody")
    assert page.count('<tr data-id="') == len(report.findings) == report.findings_total


def test_an_incomplete_report_says_so() -> None:
    text = report_page(attrs.evolve(made_report(), reported_total=900), "somebody")
    assert "This report is incomplete:</strong> 300 images read of 900." in text
    assert "INCOMPLETE." in text


def test_many_findings_of_a_rule_leave_room_for_the_others() -> None:
    many = [Image(id=10**9 + number, size_gigabytes=100.0) for number in range(600)]
    report = made_report(*many, keep=10_000)
    text = report_page(report, "somebody")
    assert text.count('data-rule="oversized"') == 250
    assert 'data-rule="retired"' in text
    shown = text.count('<tr data-id="')
    assert f'placeholder="Search {shown:,} of {report.findings_total:,} findings' in text
    left_out = f"leaves out {report.findings_total - shown:,} findings: it holds the worst 250 of each rule"
    assert left_out in text


def test_a_search_over_everything_says_so() -> None:
    report = made_report()
    text = report_page(report, "somebody")
    assert f'placeholder="Search all {report.findings_total:,} findings' in text
    assert "leaves out" not in text


def test_every_region_is_named_and_has_its_cost() -> None:
    regions = [f"reg{number}" for number in range(30)]
    images = [Image(id=n + 1, regions=(each,), size_gigabytes=1.0 + n) for n, each in enumerate(regions)]
    text = report_page(asyncio.run(audit(images, now=NOW)), "somebody")
    assert all(text.count(f">{each}</text>") == 2 for each in regions)
    for title in ("Gigabytes by region", "USD a month by region", "Gigabytes by type", "USD a month by type"):
        assert f"<figcaption>{title}</figcaption>" in text


@pytest.mark.parametrize(
    ("kind", "place"),
    [("snapshot", "snapshots/droplets"), ("custom", "custom_images"), ("backup", "backups")],
)
def test_a_finding_has_its_regions_and_tags_and_a_link_to_the_control_panel(kind: str, place: str) -> None:
    image = Image(id=42, type=ImageType(kind), regions=("nyc3", "ams3"), tags=("<b>",), size_gigabytes=80.0)
    text = report_page(asyncio.run(audit([image], now=NOW)), "somebody")
    assert f'<a href="https://cloud.digitalocean.com/images/{place}"' in text
    assert '<bdi class="region">ams3</bdi> <bdi class="tag">&lt;b&gt;</bdi>' in text


def test_an_account_without_images_has_a_page() -> None:
    text = report_page(asyncio.run(audit([], now=NOW)), "nobody")
    assert "No rule found anything." in text
    assert "<figure>" not in text
    assert text.count("<table") == 0


def test_bars_are_in_proportion() -> None:
    points = [Bar("a", 10.0, "10"), Bar("b", 5.0, "5"), Bar("c", 0.0, "0")]
    widths = re.findall(r'class="bar"[^>]* width="([\d.]+)%"', bars(points))
    assert float(widths[0]) == 2 * float(widths[1])
    assert float(widths[2]) == 0
    assert ">&lt;b&gt;" + "&amp;" * 10 + "…<" in bars([Bar("<b>" + "&" * 30, 1.0, "1")])
    assert bars([]).endswith("</svg>")


# --- what a browser makes of it ---


def full_page() -> str:
    return report_page(made_report(), "somebody")


def one_image_page() -> str:
    image = Image(id=1, type=ImageType.SNAPSHOT, public=False, regions=("fra1",), size_gigabytes=3.0)
    return report_page(asyncio.run(audit([attrs.evolve(image, created_at=NOW)], now=NOW)), "somebody")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab() -> AsyncGenerator[Browser, None]:
    async with browser() as running:
        yield running


async def cells(tab: Browser, column: str) -> list[str]:
    """Return the texts of the rows that are shown."""
    found: list[str] = await tab.run(
        f"""
        Array.from(document.querySelectorAll('#table tbody tr:not([hidden]) td'))
            .filter((cell) => cell.dataset.label === {column!r})
            .map((cell) => (cell.querySelector('bdi') || cell).textContent)
        """
    )
    return found


async def click(tab: Browser, selector: str) -> None:
    await tab.run(f"document.querySelector({selector!r}).click()")


async def enter(tab: Browser, name: str, value: str, event: str) -> None:
    """Enter a value into a field as a user does."""
    await tab.run(
        f"(field => {{ field.value = {value!r}; field.dispatchEvent(new Event({event!r})); }})"
        f"(document.getElementById({name!r}))"
    )


async def shown(tab: Browser, name: str) -> bool:
    visible: bool = await tab.run(f"document.getElementById({name!r}).checkVisibility()")
    return visible


@in_a_browser
async def test_a_click_filters_and_a_click_sorts(tab: Browser, tmp_path: Path) -> None:
    report = await asyncio.to_thread(made_report)
    await tab.show(tmp_path / "report.html", report_page(report, "somebody"))
    severities = [finding.severity.name.lower() for finding in report.findings]
    assert await cells(tab, "Severity") == severities

    await click(tab, '.chip[data-severity="high"]')
    rest = [each for each in severities if each != "high"]
    assert await cells(tab, "Severity") == rest
    assert await tab.run("document.getElementById('count').textContent") == (
        f"{len(rest)} of {len(severities)} findings"
    )
    await click(tab, '.chip[data-severity="high"]')
    assert await cells(tab, "Severity") == severities

    await enter(tab, "rule", "retired", "change")
    assert set(await cells(tab, "Rule")) == {"retired"}
    await enter(tab, "rule", "", "change")
    await enter(tab, "region", "ams3", "change")
    assert len(await cells(tab, "ID")) == len([each for each in report.findings if "ams3" in each.regions])
    await enter(tab, "region", "", "change")
    name = report.findings[0].name
    await enter(tab, "search", name.upper(), "input")
    assert set(await cells(tab, "Image")) == {each.name for each in report.findings if name in each.name}
    await enter(tab, "search", "nowhere at all", "input")
    assert await shown(tab, "nothing")
    await enter(tab, "search", "", "input")

    for descending in (True, False):
        await click(tab, 'th button[data-column="5"]')
        sizes = [float(each.replace(",", "")) for each in await cells(tab, "GB")]
        assert sizes == sorted(sizes, reverse=descending)
    await click(tab, 'th button[data-column="3"]')
    names = await cells(tab, "Image")
    assert names[0].casefold() >= names[-1].casefold()
    assert not tab.errors


@in_a_browser
@pytest.mark.parametrize("allowed", [True, False])
async def test_the_ids_of_the_rows_that_are_shown_are_copied(
    allowed: bool, tab: Browser, tmp_path: Path
) -> None:
    report = await asyncio.to_thread(made_report)
    await tab.show(tmp_path / "report.html", report_page(report, "somebody"))
    refused = "" if allowed else "throw new Error();"
    await tab.run(
        "navigator.clipboard.writeText = async (text) => {" + refused + " window.copiedText = text; }; 0"
    )
    await enter(tab, "region", "ams3", "change")
    await click(tab, "#copy")
    chosen = dict.fromkeys(str(each.image_id) for each in report.findings if "ams3" in each.regions)
    copied = "window.copiedText" if allowed else "document.getElementById('ids').value"
    assert await tab.run(copied) == "".join(f"{each}\n" for each in chosen)
    assert f"{len(chosen)} ids; do-images delete -" in await tab.run(
        "document.getElementById('copied').textContent"
    )
    assert await shown(tab, "ids") is not allowed


@in_a_browser
async def test_no_script_of_a_name_runs_and_none_is_too_wide_for_a_phone(
    tab: Browser, tmp_path: Path
) -> None:
    report = await asyncio.to_thread(hostile_report)
    page = report_page(report, HOSTILE, {HOSTILE: report})
    await tab.show(tmp_path / "report.html", page, width=390)
    title = await tab.run("document.title")
    assert title.startswith("Images of </script>")
    assert await tab.run("document.documentElement.scrollWidth") == 390
    await click(tab, ".chip")
    assert await shown(tab, "nothing")


@in_a_browser
async def test_a_long_name_leaves_the_rules_names_on_one_line(tab: Browser, tmp_path: Path) -> None:
    long = Image(id=10**9, name="x" * 255, type=ImageType.SNAPSHOT, regions=("nyc3",), size_gigabytes=90.0)
    report = combined({"production": await asyncio.to_thread(made_report, long)})
    await tab.show(tmp_path / "report.html", report_page(report, "somebody", {"production": report}))
    lines = "(cell => Math.round(cell.querySelector('bdi').getClientRects().length))"
    rules = f"Array.from(document.querySelectorAll('td[data-label=Rule]')).map({lines})"
    assert set(await tab.run(rules)) == {1}


@in_a_browser
@pytest.mark.parametrize("images", [1, 300])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
async def test_a_screenshot_is_whole_in_light_dark_and_on_a_phone(
    width: int, scheme: str, images: int, tab: Browser, tmp_path: Path
) -> None:
    page = await asyncio.to_thread(one_image_page if images == 1 else full_page)
    await tab.show(tmp_path / "report.html", page, width=width, scheme=scheme)
    picture = await tab.screenshot()
    assert struct.unpack(">II", picture[16:24]) == (width, 900)
    assert len(picture) > 15_000  # an empty page is much smaller
    state: dict[str, Any] = await tab.run(
        """
        (style => ({
            overflow: document.documentElement.scrollWidth - innerWidth,
            light: style.backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b) > 382,
            ink: style.color.match(/\\d+/g).map(Number).reduce((a, b) => a + b) > 382,
            bars: Array.from(document.querySelectorAll('svg .bar')).filter(
                (each) => each.getBoundingClientRect().width > 0).length,
            empty: Array.from(document.querySelectorAll('figure')).filter(
                (each) => each.clientHeight > 90 + 26 * each.querySelectorAll('.bar').length).length,
            small: Array.from(document.querySelectorAll('svg text')).filter(
                (each) => each.getBoundingClientRect().height < 12
                    || parseFloat(getComputedStyle(each).fontSize) < 12).length,
            overlapping: Array.from(document.querySelectorAll('svg text:not(.value)')).filter(
                (each) => each.getBoundingClientRect().right
                    > each.nextElementSibling.getBoundingClientRect().left).length,
            stacked: getComputedStyle(document.querySelector('#table td')).display === 'flex',
        }))(getComputedStyle(document.body))
        """
    )
    assert state["overflow"] <= 0
    assert state["light"] is (scheme == "light")
    assert state["ink"] is not state["light"]
    assert state["bars"] > (15 if images > 1 else 5)
    assert (state["empty"], state["small"], state["overlapping"]) == (0, 0, 0)
    assert state["stacked"] is (width < 600)
