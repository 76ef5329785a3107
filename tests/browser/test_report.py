"""The report in a real browser: it draws, answers clicks, fits, and asks for nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulations.report import witness, write_report
from simulations.report.story import Case, Event, Lane, Message, Story
from simulations.truth import Violation

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
SWITCHES = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTHS = (400, 1000, 1600)
HOUR = 3_600_000

if CHROMIUM is None:
    pytest.skip("no chromium on this machine", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all pages of this file."""
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield one
        one.close()


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run of seven guardians in which an invariant failed."""
    result = witness.run("minority-cut-off", seed=3, mode="fast")
    at, text = next((at, text) for at, text in result.told if "releases" in text)
    said = "guardian 0 released claim 0 38 s after storing a veto"
    broken = replace(result, violations=[Violation("S6", said, at, (f"d4 06:00:00.060 {text}",))])
    broken.__dict__["witness"] = result.__dict__["witness"]
    path = tmp_path_factory.mktemp("report") / "seven.html"
    write_report(broken, path)
    return path


@pytest.fixture(scope="module")
def hundreds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a federation of five hundred."""
    size, votes = 500, 300
    approvals = tuple((HOUR + 400_000 * seat, seat, False) for seat in range(votes))
    story = Story(
        title="five hundred", shows="Very many.", verdict="passed", length=96 * HOUR,
        calm=80 * HOUR, groups=["federation 0"],
        lanes=[Lane(f"guardian {seat}", f"g{seat}", 0) for seat in range(size)],
        events=[Event(at, lane, "approve", f"guardian {lane} approves claim 0", 0, 0)
                for at, lane, _ in approvals],
        messages=[Message("vote", lane, at, tuple((seat, at + 50) for seat in range(size)),
                          f"guardian {lane} votes", 0) for at, lane, _ in approvals],
        cases=[Case("claim 0", 0, "owner", "open", HOUR, 250, 24 * HOUR, approvals)],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("report") / "hundreds.html"
    write_report(story, path)
    return path


@pytest.fixture
def complaints() -> list[str]:
    """Errors of the page, and whatever it asked the network for."""
    return []


def opened(browser: Any, path: Path, width: int, complaints: list[str], **how: Any) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900}, offline=True, **how)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("request", lambda one: None if one.url.startswith("file:") else
            complaints.append(one.url))  # fmt: skip
    page.goto(path.as_uri())
    page.wait_for_selector("#timeline text")
    return page


def labels_of(page: Any) -> list[str]:
    """The names beside the lanes, without what shows when one points at them."""
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('#timeline text.name')].map((one) => one.firstChild.data)"
    )
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits(
    browser: Any, seven: Path, hundreds: Path, complaints: list[str], width: int, scheme: str
) -> None:
    """At every width and in both schemes: no sideways scrolling, no error, no request."""
    for path in (seven, hundreds):
        page = opened(browser, path, width, complaints, color_scheme=scheme)

        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.close()
    assert complaints == []


def test_every_guardian_has_a_lane(browser: Any, seven: Path, complaints: list[str]) -> None:
    """Seven lanes, each with its name, votes, arrows and the band of the partition."""
    page = opened(browser, seven, 1000, complaints)

    assert [name for name in labels_of(page) if name.startswith("guardian")] == [
        f"guardian {seat}" for seat in range(7)
    ]
    assert page.locator("#timeline .arrow.m-vote").count() >= 7
    assert page.locator("#timeline .band rect.b-network").count() >= 3
    assert page.locator("#timeline .steps").count() >= 2
    page.close()


def test_a_click_tells_the_statement(browser: Any, seven: Path, complaints: list[str]) -> None:
    """A click on an approval shows who, when, what was signed, and whom it reached."""
    page = opened(browser, seven, 1000, complaints)

    page.locator("#timeline .mark:has(.k-approve):not([data-events*=' '])").first.click()
    told = page.locator("#detail").inner_text()

    assert "approves claim" in told
    assert "verdict" in told
    assert "reached 6" in told
    page.close()


def test_a_failure_leads_to_its_moment(browser: Any, seven: Path, complaints: list[str]) -> None:
    """A time in the excerpt of a failure moves the drawing there."""
    page = opened(browser, seven, 1000, complaints)
    before = page.evaluate("report.timeline.scale.to - report.timeline.scale.from")

    page.locator(".finding .excerpt .go").first.click()
    at, start, end = page.evaluate(
        "[report.timeline.chosen.at, report.timeline.scale.from, report.timeline.scale.to]"
    )

    assert start < at < end
    assert end - start <= before
    assert page.locator("#timeline line.broke").count() == 1
    page.close()


def test_a_case_is_chosen_by_its_name(browser: Any, seven: Path, complaints: list[str]) -> None:
    """Choosing a claim draws its staircase alone, with the waiting period and the quorum."""
    page = opened(browser, seven, 1000, complaints)

    page.locator("#claims .go").nth(1).click()
    page.wait_for_selector("#timeline .wait")

    assert page.locator("#timeline .stair").count() == 1
    assert "quorum" in page.locator("#detail").inner_text()
    page.close()


def test_people_can_zoom_and_hide(browser: Any, seven: Path, complaints: list[str]) -> None:
    """Buttons and keys zoom and walk from event to event; the legend hides a kind."""
    page = opened(browser, seven, 1000, complaints)
    span = "report.timeline.scale.to - report.timeline.scale.from"
    before = page.evaluate(span)

    page.locator("#in").click()
    page.locator("#timeline").press("ArrowRight")
    page.locator("#legend button", has_text="votes").click()
    page.wait_for_function("!document.querySelector('#timeline .arrow.m-vote')")

    assert page.evaluate(span) < before
    assert page.evaluate("report.timeline.chosen.what") == "events"
    page.close()


def test_strips_of_a_crowd_open(browser: Any, hundreds: Path, complaints: list[str]) -> None:
    """Five hundred guardians are twenty strips; one opens into its lanes, and closes again."""
    page = opened(browser, hundreds, 1000, complaints)
    assert sum("guardians" in text for text in labels_of(page)) == 20

    page.locator("#timeline .strip").nth(2).click()
    page.wait_for_function("document.querySelectorAll('#timeline .mark').length > 20")
    names = labels_of(page)
    page.locator("#timeline .strip").nth(2).click()
    page.wait_for_function("!document.querySelector('#timeline .mark')")

    assert "guardian 50" in names and "guardian 75" not in names
    assert complaints == []
    page.close()
