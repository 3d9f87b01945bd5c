"""The report as a page: what is in it, and what a browser makes of it."""

from __future__ import annotations

import asyncio
import re
import shutil
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from do_images_async import Image, converter
from do_images_async.audit import AuditReport, audit, combined, compare
from do_images_async.cli.charts import bars, histogram
from do_images_async.cli.page import report_page
from do_images_async.testing.catalogue import private_images

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OWN = "document.title='owned'"
HOSTILE = f'</script><script>{OWN}</script><img src=x onerror="{OWN}">\'&\x00\u202e'

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
in_a_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="needs chromium and chromedriver (Debian: chromium chromium-driver)"
)


def made_report(*more: Image, **options: Any) -> AuditReport:
    records = private_images(300, 7, NOW.timestamp())
    images = [converter.structure(record, Image) for record in records]
    return asyncio.run(audit([*images, *more], now=NOW, **options))


class Elements(HTMLParser):
    """Every element of a page, with its attributes, and every text."""

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
    for _, attributes in page.elements:
        assert not {"src", "href", "action", "srcset", "style", "onclick", "onerror"} & set(attributes)
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
    assert page.count('<tr data-severity="') == len(report.findings) == report.findings_total


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
    assert "here are the worst 250 of each rule" in text


def test_an_account_without_images_has_a_page() -> None:
    text = report_page(asyncio.run(audit([], now=NOW)), "nobody")
    assert "No rule found anything." in text
    assert "<figure>" not in text
    assert text.count("<table") == 0


def test_bars_and_columns_are_in_proportion() -> None:
    widths = re.findall(r'class="bar"[^>]* width="([\d.]+)"', bars([("a", 10.0), ("b", 5.0), ("c", 0.0)]))
    assert float(widths[0]) == 2 * float(widths[1])
    assert float(widths[2]) == 0
    heights = re.findall(r'class="bar"[^>]* height="([\d.]+)"', histogram([("a b c", 4.0), ("b", 1.0)]))
    assert float(heights[0]) == 4 * float(heights[1])
    assert "a b<" in histogram([("a b c", 4.0)])
    assert ">&lt;b&gt;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;&amp;…<" in bars(
        [("<b>" + "&" * 30, 1.0)]
    )
    assert bars([]).endswith("</svg>")
    assert histogram([("a", 0.0)]).endswith("</svg>")


# --- what a browser makes of it ---


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = BROWSER or ""
    for switch in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        *("disable-dev-shm-usage", f"user-data-dir={tmp_path_factory.mktemp('chrome')}"),
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def show(chrome: Chrome, tmp_path: Path, page: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    chrome.get(path.as_uri())


def cells(chrome: Chrome, column: str) -> list[str]:
    """The texts of the rows that are shown."""
    script = """
        return Array.from(document.querySelectorAll('#table tbody tr:not([hidden]) td'))
            .filter((cell) => cell.dataset.label === arguments[0]).map((cell) => cell.textContent)
    """
    found: list[str] = chrome.execute_script(script, column)  # pyright: ignore[reportUnknownMemberType]
    return found


def one(chrome: Chrome, selector: str) -> WebElement:
    return chrome.find_element("css selector", selector)


@pytest.mark.once
@in_a_browser
def test_a_click_filters_and_a_click_sorts(chrome: Chrome, tmp_path: Path) -> None:
    chrome.set_window_size(1280, 1000)  # pyright: ignore[reportUnknownMemberType]
    report = made_report()
    show(chrome, tmp_path, report_page(report, "somebody"))
    severities = [finding.severity.name.lower() for finding in report.findings]
    assert cells(chrome, "Severity") == severities

    one(chrome, '.chip[data-severity="high"]').click()
    assert cells(chrome, "Severity") == [each for each in severities if each != "high"]
    assert one(chrome, "#count").text == f"{len(cells(chrome, 'ID'))} of {len(severities)} findings"
    one(chrome, '.chip[data-severity="high"]').click()
    assert cells(chrome, "Severity") == severities

    one(chrome, '#rule option[value="retired"]').click()
    assert set(cells(chrome, "Rule")) == {"retired"}
    one(chrome, '#rule option[value=""]').click()
    name = report.findings[0].name
    one(chrome, "#search").send_keys(name.upper())  # pyright: ignore[reportUnknownMemberType]
    assert set(cells(chrome, "Name")) == {each.name for each in report.findings if name in each.name}
    one(chrome, "#search").send_keys(" nowhere")  # pyright: ignore[reportUnknownMemberType]
    assert one(chrome, "#nothing").is_displayed()
    one(chrome, "#search").clear()
    chrome.execute_script("document.getElementById('search').dispatchEvent(new Event('input'))")  # pyright: ignore[reportUnknownMemberType]

    one(chrome, 'th button[data-column="5"]').click()
    sizes = [float(each.replace(",", "")) for each in cells(chrome, "GB")]
    assert sizes == sorted(sizes, reverse=True)
    one(chrome, 'th button[data-column="5"]').click()
    assert [float(each.replace(",", "")) for each in cells(chrome, "GB")] == sorted(sizes)
    one(chrome, 'th button[data-column="3"]').click()
    names = cells(chrome, "Name")
    assert names[0].casefold() >= names[-1].casefold()
    assert not chrome.get_log("browser")  # type: ignore[no-untyped-call]  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.once
@in_a_browser
def test_no_script_of_a_name_runs_and_none_is_too_wide_for_a_phone(chrome: Chrome, tmp_path: Path) -> None:
    report = hostile_report()
    size = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)  # pyright: ignore[reportUnknownMemberType]
    show(chrome, tmp_path, report_page(report, HOSTILE, {HOSTILE: report}))
    assert chrome.title != "owned"
    assert chrome.title.startswith("Images of </script>")
    width: int = chrome.execute_script("return document.documentElement.scrollWidth")  # pyright: ignore[reportUnknownMemberType]
    assert width == 390
    one(chrome, ".chip").click()
    assert one(chrome, "#nothing").is_displayed()


@pytest.mark.once
@in_a_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light")])
def test_a_screenshot_is_whole_in_light_dark_and_on_a_phone(
    width: int, scheme: str, chrome: Chrome, tmp_path: Path
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})  # pyright: ignore[reportUnknownMemberType]
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)  # pyright: ignore[reportUnknownMemberType]
    show(chrome, tmp_path, report_page(made_report(), "somebody"))
    picture = tmp_path / "page.png"
    assert chrome.save_screenshot(str(picture))  # pyright: ignore[reportUnknownMemberType]
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (width, 900)
    assert picture.stat().st_size > 15_000  # an empty page is much smaller
    state: dict[str, Any] = chrome.execute_script(  # pyright: ignore[reportUnknownMemberType]
        """
        const style = getComputedStyle(document.body);
        return {
            overflow: document.documentElement.scrollWidth - innerWidth,
            light: style.backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b) > 382,
            ink: style.color.match(/\\d+/g).map(Number).reduce((a, b) => a + b) > 382,
            bars: Array.from(document.querySelectorAll('svg .bar')).filter(
                (each) => each.getBoundingClientRect().width > 0).length,
            stacked: getComputedStyle(document.querySelector('#table td')).display === 'flex',
        }
        """
    )
    assert state["overflow"] <= 0
    assert state["light"] is (scheme == "light")
    assert state["ink"] is not state["light"]
    assert state["bars"] > 15
    assert state["stacked"] is (width < 600)
