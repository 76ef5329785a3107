"""What a report tells: lanes, events on them, messages between them, faults, cases, verdicts.

Plain data that knows no engine. All times are whole virtual milliseconds since the world
began. Lanes, groups and cases are named by their index in the story's tuples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Facts = tuple[tuple[str, str], ...]

GUARDIAN: Final = "guardian"
PERSON: Final = "person"
WORLD: Final = "world"  # what happens to nobody in particular
NONE: Final = -1  # no lane, no case, no end

# Of an event: what its mark looks like. Anything else is drawn as a note.
EVENTS: Final = (
    "claim", "approve", "deceived", "veto", "release", "recovered",
    "down", "back", "fault", "note",
)  # fmt: skip
MESSAGES: Final = ("vote", "release", "veto", "claim", "other")
# What a fault touches; one look each.
FAMILIES: Final = ("off", "network", "disk", "clock", "person", "liar")

HELD: Final = "held"
FAILED: Final = "failed"
UNCHECKED: Final = "not checked"


@dataclass(frozen=True)
class Lane:
    """Someone to whom things happen. `note` says what is wrong with them all along."""

    name: str
    short: str
    group: int
    kind: str = GUARDIAN
    note: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened at one moment, on a lane or to the whole world."""

    at: int
    lane: int
    kind: str
    text: str
    group: int = 0
    case: int = NONE
    facts: Facts = ()


@dataclass(frozen=True)
class Message:
    """One statement on its way: who it left and when, whom it reached and when."""

    kind: str
    source: int
    sent: int
    arrivals: tuple[tuple[int, int], ...]
    text: str
    case: int = NONE
    facts: Facts = ()


@dataclass(frozen=True)
class Band:
    """Something wrong on some lanes for a while; `end` is NONE when it lasted to the end."""

    family: str
    lanes: tuple[int, ...]
    begin: int
    end: int
    text: str


@dataclass(frozen=True)
class Case:
    """One claim: its votes up to the quorum, the wait, and how it ended. 0 is never."""

    name: str
    group: int
    by: str
    outcome: str
    made: int
    quorum: int
    waiting: int
    approvals: tuple[tuple[int, int, bool], ...] = ()  # when, lane or NONE, deceived
    releases: tuple[tuple[int, int], ...] = ()  # when, lane
    vetoed: int = 0
    recovered: int = 0


@dataclass(frozen=True)
class Rule:
    """An invariant, and whether it was seen to hold."""

    id: str
    statement: str
    state: str
    why: str = ""


@dataclass(frozen=True)
class Finding:
    """One time that an invariant did not hold, and what led to it."""

    id: str
    statement: str
    at: int
    excerpt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Goal:
    """Something that should happen sometimes: how often it did, and whether it was asked for."""

    name: str
    statement: str
    times: int
    wanted: bool


@dataclass(frozen=True)
class Story:
    """A whole run."""

    title: str
    shows: str
    verdict: str
    length: int  # of the run
    calm: int  # when the faults end
    groups: Sequence[str]
    lanes: Sequence[Lane]
    events: Sequence[Event] = ()
    messages: Sequence[Message] = ()
    bands: Sequence[Band] = ()
    cases: Sequence[Case] = ()
    rules: Sequence[Rule] = ()
    findings: Sequence[Finding] = ()
    goals: Sequence[Goal] = ()
    failures: Sequence[str] = ()
    facts: Facts = ()
    commands: Facts = ()  # what to type next
