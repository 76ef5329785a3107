"""A story as the page's script reads it: small lists, and no more of them than a page can draw.

Lanes come in strips. A federation is one strip; one of hundreds of guardians is cut into
several. Strips that are told in full can be opened into their lanes; of the others, when
there are too many, the page has a heat strip only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from simulations.report.story import GUARDIAN, NONE, PERSON, Event, Message, Story

STRIP_LANES_MAX: Final = 40  # as many as fit a screen, side by side
FOLDED_LANES: Final = 25  # in each strip of a larger federation
EVENTS_MAX: Final = 12_000  # drawn one by one; about 1 MB of page
ARRIVALS_MAX: Final = 40_000
STATEMENTS_TOLD_MAX: Final = 3_000  # with all their fields, to be read after a click
BINS: Final = 480  # of a heat strip: no screen shows more of them apart
CASES_MAX: Final = 2_000  # in the page; the table of cases has them all
WARM: Final = {"approve": 0, "deceived": 0, "claim": 0, "release": 1, "recovered": 1}
TROUBLE: Final = 2


@dataclass(frozen=True)
class Strip:
    """Neighbouring lanes of one group."""

    name: str
    short: str  # where there is little room
    group: int
    lanes: tuple[int, ...]


def strips(story: Story) -> list[Strip]:
    """Every group in strips that fit a screen; claimants first."""
    by_group: dict[int, list[int]] = defaultdict(list)
    for index, lane in enumerate(story.lanes):
        by_group[lane.group].append(index)
    busy = {event.lane for event in story.events}
    found = []
    for group, name in enumerate(story.groups):
        lanes = by_group[group]
        people = [
            one for one in lanes if story.lanes[one].kind != GUARDIAN
            and (one in busy or story.lanes[one].kind == PERSON)
        ]  # fmt: skip
        rest = [one for one in lanes if story.lanes[one].kind == GUARDIAN]
        if len(rest) <= STRIP_LANES_MAX:
            found.append(Strip(name, f"fed {group}", group, (*people, *rest)))
            continue
        if people:
            found.append(Strip("claimants", "claims", group, tuple(people)))
        for start in range(0, len(rest), FOLDED_LANES):
            part = rest[start : start + FOLDED_LANES]
            last = start + len(part) - 1
            name = f"guardians {start} to {last}"
            found.append(Strip(name, f"g{start}–{last}", group, tuple(part)))
    return found


def payload(story: Story) -> dict[str, Any]:
    """Everything that the page's script draws."""
    cut = strips(story)
    strip_of = {lane: index for index, strip in enumerate(cut) for lane in strip.lanes}
    events, full = _told_in_full(story)
    first, last = _busy(story)
    shown = [index for index, case in enumerate(story.cases) if case.group in full]
    shown = sorted({*shown[:CASES_MAX], *range(min(len(story.cases), CASES_MAX))})
    case_at = {case: place for place, case in enumerate(shown)}
    messages = [one for one in story.messages if story.lanes[one.source].group in full]
    folded = sum(len(one.arrivals) for one in messages) > ARRIVALS_MAX
    if folded:
        messages = _few(messages, cut, strip_of)
    return {
        "length": story.length,
        "calm": story.calm,
        "busy": [first, last],
        "bins": BINS,
        "strips": [
            {
                "name": strip.name, "short": strip.short, "group": strip.group,
                "lanes": strip.lanes, "full": strip.group in full,
            }
            for strip in cut
        ],
        "heat": _heat(story, strip_of, full, first, last),
        "lanes": [[one.name, one.short, one.kind, one.note] for one in story.lanes],
        "events": [
            [one.at, one.lane, one.kind, one.text, case_at.get(one.case, NONE), one.group,
             one.facts]
            for one in events
        ],
        "folded": folded,
        "messages": [_message(one, number, case_at) for number, one in enumerate(messages)],
        "bands": [
            [one.family, one.lanes, one.begin, one.end, one.text]
            for one in story.bands if story.lanes[one.lanes[0]].group in full
        ],
        "cases": [_case(story, index) for index in shown],
        "findings": [[one.id, one.at, one.statement] for one in story.findings],
        "left": {
            "groups": len(story.groups) - len(full),
            "events": len(story.events) - len(events),
            "cases": len(story.cases) - len(shown),
        },
    }  # fmt: skip


def _message(one: Message, number: int, case_at: dict[int, int]) -> list[Any]:
    facts = one.facts if number < STATEMENTS_TOLD_MAX else ()
    case = case_at.get(one.case, NONE)
    return [one.kind, one.source, one.sent, one.arrivals, one.text, case, facts]


def _case(story: Story, index: int) -> dict[str, Any]:
    case = story.cases[index]
    return {
        "name": case.name, "group": case.group, "by": case.by, "outcome": case.outcome,
        "made": case.made, "quorum": case.quorum, "waiting": case.waiting,
        "approvals": [[at, lane, int(deceived)] for at, lane, deceived in case.approvals],
        "releases": case.releases, "vetoed": case.vetoed, "recovered": case.recovered,
    }  # fmt: skip


def _told_in_full(story: Story) -> tuple[list[Event], set[int]]:
    """The groups that fit, what strangers got and what broke first, and their events."""
    counts: dict[int, int] = defaultdict(int)
    trouble: dict[int, int] = defaultdict(int)
    for event in story.events:
        counts[event.group] += 1
        trouble[event.group] += event.kind == "deceived"
    for band in story.bands:
        trouble[story.lanes[band.lanes[0]].group] += 1
    for case in story.cases:
        trouble[case.group] += 100 * (case.by == "thief" and bool(case.recovered))
    groups = sorted(range(len(story.groups)), key=lambda group: (-trouble[group], group))
    full: set[int] = set()
    left = EVENTS_MAX
    for group in groups:
        if full and counts[group] > left:
            break
        left -= counts[group]
        full.add(group)
    return [event for event in story.events if event.group in full], full


def _busy(story: Story) -> tuple[int, int]:
    """From the first thing that happened to the last, and a little to either side."""
    times = [event.at for event in story.events]
    times += [one.at for one in story.findings]
    if not times:
        return 0, max(1, story.length)
    first, last = min(times), max(times)
    margin = max(1_000, (last - first) // 25)
    return max(0, first - margin), min(story.length, last + margin)


def _heat(
    story: Story, strip_of: dict[int, int], full: set[int], first: int, last: int
) -> dict[int, list[list[int]]]:
    """Per strip that is not told in full: bin, and how much of each sort happened in it."""
    bins: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0]))
    width = max(1, last - first)
    for event in story.events:
        if event.group in full or event.lane == NONE:
            continue
        place = min(BINS - 1, (event.at - first) * BINS // width)
        bins[strip_of[event.lane]][place][WARM.get(event.kind, TROUBLE)] += 1
    return {
        strip: [[place, *counts] for place, counts in sorted(places.items())]
        for strip, places in sorted(bins.items())
    }


def _few(
    messages: Sequence[Message], cut: Sequence[Strip], strip_of: dict[int, int]
) -> list[Message]:
    """As many of the messages as fit with one arrival for each strip, its last."""
    found, left = [], ARRIVALS_MAX
    for one in messages:
        arrivals = tuple(_by_strip(one.arrivals, cut, strip_of))
        left -= len(arrivals)
        if left < 0:
            break
        found.append(Message(one.kind, one.source, one.sent, arrivals, one.text, one.case,
                             one.facts))  # fmt: skip
    return found


def _by_strip(
    arrivals: Iterable[tuple[int, int]], cut: Sequence[Strip], strip_of: dict[int, int]
) -> Iterable[tuple[int, int]]:
    latest: dict[int, int] = defaultdict(int)
    for lane, at in arrivals:
        latest[strip_of[lane]] = max(latest[strip_of[lane]], at)
    for strip, at in sorted(latest.items()):
        yield cut[strip].lanes[len(cut[strip].lanes) // 2], at
