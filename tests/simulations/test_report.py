"""The report of a run: one page, complete, alone, and never taken in by what it shows."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from simulations import report, running
from simulations.report import command, telling, witness
from simulations.report.payload import ARRIVALS_MAX, EVENTS_MAX, payload, strips
from simulations.report.story import NONE, Band, Case, Event, Lane, Message, Story
from simulations.truth import Violation

HOUR = 3_600_000


@pytest.fixture(scope="module")
def cut_off() -> running.Result:
    """Three guardians are cut off for three days; two owners recover all the same."""
    return witness.run("minority-cut-off", seed=3, mode="fast")


@pytest.fixture(scope="module")
def cuts() -> running.Result:
    """Machines lose power, again and again."""
    return witness.run("power-cuts", seed=3, mode="fast")


def data_of(page: str) -> Any:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def crowd(guardians: int, votes: int) -> Story:
    """One federation of very many, made by hand."""
    lanes = [Lane(f"guardian {seat}", f"g{seat}", 0) for seat in range(guardians)]
    approvals = tuple((HOUR + seat, seat, False) for seat in range(votes))
    everyone = tuple((seat, HOUR + 50) for seat in range(guardians))
    return Story(
        title="crowd", shows="Very many.", verdict="passed", length=48 * HOUR, calm=24 * HOUR,
        groups=["federation 0"], lanes=lanes,
        events=[Event(at, lane, "approve", f"guardian {lane} approves claim 0", 0, 0)
                for at, lane, _ in approvals],
        messages=[Message("vote", lane, at, everyone, "a vote", 0) for at, lane, _ in approvals],
        bands=[Band("network", tuple(range(40)), HOUR, NONE, "partition")],
        cases=[Case("claim 0", 0, "owner", "open", HOUR, votes, 0, approvals)],
    )  # fmt: skip


def test_watching_a_run_changes_nothing(cut_off: running.Result) -> None:
    """The trace of a run that is watched is that of the run that is not."""
    alone = running.run("minority-cut-off", seed=3, mode="fast")

    assert cut_off.trace == alone.trace
    assert cut_off.told == alone.told


def test_every_event_has_a_place(cuts: running.Result) -> None:
    """What the record tells about a guardian is on that guardian's lane, in order."""
    story = telling.tell(cuts)

    assert sorted((one.at, one.text) for one in story.events) == sorted(cuts.told)
    assert [one.at for one in story.events] == sorted(one.at for one in story.events)
    for event in story.events:
        name = re.match(r"guardian \d+", event.text)
        if name is not None:
            assert story.lanes[event.lane].name == name[0]
    assert {event.kind for event in story.events} >= {"claim", "approve", "release", "down", "back"}


def test_the_staircase_reaches_the_quorum(cut_off: running.Result) -> None:
    """A recovered claim shows at least a quorum of votes, in order, and then releases."""
    for case in telling.tell(cut_off).cases:
        times = [at for at, _, _ in case.approvals]
        stood = sorted(times)[case.quorum - 1]

        assert times == sorted(times)
        assert case.recovered > case.releases[0][0] >= stood + case.waiting


def test_a_partition_is_a_band_and_delays_messages(cut_off: running.Result) -> None:
    """Votes cross the cut only after it is healed, and the page has both to show."""
    story = telling.tell(cut_off)
    (band,) = [one for one in story.bands if one.family == "network"]
    votes = [one for one in story.messages if one.kind == "vote" and one.sent < band.end]
    late = [at for one in votes for lane, at in one.arrivals
            if (lane in band.lanes) != (one.source in band.lanes)]  # fmt: skip

    assert [story.lanes[lane].name for lane in band.lanes] == [
        "guardian 2", "guardian 4", "guardian 5",
    ]  # fmt: skip
    assert late and all(at >= band.end for at in late)


def test_a_statement_says_what_was_signed(cut_off: running.Result) -> None:
    """Behind every vote is what it says; of keys and sealed boxes only the first bytes."""
    votes = [one for one in telling.tell(cut_off).messages if one.kind == "vote"]

    facts = dict(votes[0].facts)

    assert facts["verdict"] == "approve"
    assert facts["claim"].endswith("(32 bytes)")


def test_nights_begin_and_end(cuts: running.Result) -> None:
    """A node that was down is a band from the moment it fell until it was back."""
    story = telling.tell(cuts)
    downs = [at for at, text in cuts.told if " down: " in text]

    nights = [one for one in story.bands if one.family == "off"]

    assert sorted(one.begin for one in nights) == downs
    assert all(one.end == NONE or one.end > one.begin for one in nights)


def test_a_result_alone_is_drawn_too() -> None:
    """Without a witness there are no messages, and everything else is there."""
    story = telling.tell(running.run("quiet-week", seed=3, mode="fast"))

    assert not story.messages
    assert story.events and story.cases and story.rules


def test_many_federations_do_not_mix() -> None:
    """With several federations an event belongs to one of them, watched or not."""
    settings = {"federation.count": 3, "workload.0.count": 6}
    for run in (witness.run, running.run):
        story = telling.tell(run("deceived", seed=3, mode="fast", settings=settings))

        assert {story.lanes[one.lane].group == one.group for one in story.events} == {True}
        assert {case.group for case in story.cases} == {0, 1, 2}


def test_a_failure_is_told_first(cuts: running.Result) -> None:
    """The invariant that failed, its sentence and what led to it, each time leading there."""
    events = ("d2 04:11:07.204 owner vetoes claim 0", "d2 04:11:45.310 guardian 4 releases claim 0")
    said = "guardian 4 released claim 0 38 s after storing a veto"
    broken = replace(cuts, violations=[Violation("S6", said, 187_905_310, events)])

    page = report.render(broken)

    assert 'class="verdict safety"' in page
    assert page.index(said) < page.index("What happened")
    assert 'data-at="187867204">d2 04:11:07.204</button> owner vetoes claim 0' in page
    assert re.search(r'<li class="failed"><b>.*?S6', page)
    assert "holdfast simulate shrink" in page


def test_what_was_not_looked_at_is_not_said_to_hold(cut_off: running.Result) -> None:
    """Bytes are not made in fast mode, and a run cut short says nothing about its end."""
    short = replace(cut_off, exhausted=True)

    states = {rule.id: rule.state for rule in telling.tell(short).rules}

    assert states["S1"] == "held"
    assert states["S10"] == states["L1"] == "not checked"


class Outward(HTMLParser):
    """Collects whatever could make a browser ask for something else."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("link", "img", "iframe", "object", "embed", "base", "form"):
            self.found.append(tag)
        self.found += [f"{tag} {name}" for name, _ in attrs
                       if name in ("src", "href", "style") or name.startswith("on")]  # fmt: skip


def test_the_page_needs_nothing_else(cut_off: running.Result) -> None:
    """No address is in the page, and its policy allows its own script and style only."""
    page = report.render(cut_off)
    outward = Outward()
    outward.feed(page)
    script = page[page.rindex("<script>") + 8 : page.rindex("</script>")]
    digest = b64encode(sha256(script.encode()).digest()).decode()

    assert not outward.found
    assert re.findall(r"https?://[^\"' ]+", page) == ["http://www.w3.org/2000/svg"]
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_words_of_a_run_cannot_act() -> None:
    """A name that looks like markup, or like a place in the template, is shown as it is."""
    nasty = "</script><img src=x onerror=alert(1)>{{data}}"
    story = replace(crowd(3, 2), title=nasty, shows=nasty, facts=((nasty, nasty),),
                    events=[Event(HOUR, 0, "note", nasty)])  # fmt: skip

    page = report.render(story)
    outward = Outward()
    outward.feed(page)

    assert not outward.found
    assert data_of(page)["events"][0][3] == nasty


def test_a_large_federation_is_folded() -> None:
    """Of 500 guardians every lane is in one strip, and the page stays small."""
    story = crowd(500, 300)

    found = strips(story)
    data = payload(story)

    assert sorted(lane for one in found for lane in one.lanes) == list(range(500))
    assert len(found) == 20
    assert data["folded"]
    assert sum(len(one[3]) for one in data["messages"]) <= ARRIVALS_MAX
    assert len(report.render(story)) < 2_000_000


def test_of_very_many_federations_some_are_heat_only() -> None:
    """What does not fit as events is counted: nothing is lost without a word."""
    groups, each = 60, 300
    lanes = [Lane("guardian 0", "g0", group) for group in range(groups)]
    events = [Event(HOUR + step, group, "approve", "an approval", group)
              for group in range(groups) for step in range(each)]  # fmt: skip
    story = replace(crowd(1, 0), groups=[str(group) for group in range(groups)], lanes=lanes,
                    events=events, messages=[], bands=[], cases=[])  # fmt: skip

    data = payload(story)
    counted = sum(sum(bin_[1:]) for bins in data["heat"].values() for bin_ in bins)

    assert len(data["events"]) <= EVENTS_MAX
    assert len(data["events"]) + counted == groups * each
    assert data["left"]["events"] == counted


def test_an_empty_run_has_a_page() -> None:
    """A run in which nothing happened is a page, too."""
    story = replace(crowd(3, 0), events=[], messages=[], bands=[], cases=[])

    assert data_of(report.render(story))["events"] == []


def test_the_same_run_gives_the_same_page(cut_off: running.Result, tmp_path: Path) -> None:
    """Two reports of one run differ in nothing."""
    report.write_report(cut_off, tmp_path / "one.html")
    report.write_report(cut_off, tmp_path / "two.html")

    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_a_run_is_drawn_from_its_folder(
    cut_off: running.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a run is enough; a run that went another way since is said to have."""
    from simulations import artefacts

    artefacts.write(cut_off, tmp_path)
    assert command.run([str(tmp_path)]) == 0
    assert data_of((tmp_path / "report.html").read_text())["messages"]

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "trace": "another"}))
    assert command.run([str(tmp_path)]) == 13
    assert "another run" in capsys.readouterr().err
