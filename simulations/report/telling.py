"""From what a run left to the story of it.

With a witness (`witness.run`) the story has every message and knows which of many
federations an event belongs to; without, it is told from the tables of the result alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from protocol.contract import Id
from simulations.quantities import duration
from simulations.report import judging, messages
from simulations.report.story import NONE, PERSON, WORLD, Band, Case, Event, Lane, Message, Story
from simulations.report.witness import Witness
from simulations.running import Result
from simulations.truth import Claimed, Truth

CLAIMANTS_MAX: Final = 8  # lanes of their own in a federation; more share one
FAMILY: Final = {
    "partition": "network", "eclipse": "network", "flapping": "network", "swizzle": "network",
    "clog": "network", "reset": "network",
    "eio": "disk", "full-disk": "disk", "exhausted-disk": "disk", "slow-disk": "disk",
    "lying-disk": "disk", "rot": "disk", "rollback": "disk",
    "skew": "clock",
    "death": "person", "lock": "person", "silent": "person",
    "byzantine": "liar",
}  # fmt: skip
EVER: Final = ("death", "lock", "silent", "rot", "lying-disk", "byzantine")  # end with the run

# What the record tells in words, and what that is.
SAID: Final = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("claim", r"\w+ claims, claim (?P<claim>\d+)"),
        ("approve", r"guardian (?P<seat>\d+) approves claim (?P<claim>\d+)"),
        ("release", r"guardian (?P<seat>\d+) releases claim (?P<claim>\d+)"),
        ("veto", r"owner vetoes claim (?P<claim>\d+)"),
        ("recovered", r"\w+ has the secret of claim (?P<claim>\d+)"),
        ("down", r"guardian (?P<seat>\d+) down: .*"),
        ("back", r"guardian (?P<seat>\d+) back"),
        ("fault", r"fault \S+ on \[(?P<seats>[\d, ]*)\]"),
        ("note", r".*\bguardian (?P<seat>\d+)\b.*"),
    )
)


def tell(result: Result) -> Story:
    """The story of a run."""
    return _Teller(result).story()


class _Teller:
    """Gives everybody a lane and every claim a case, then tells one federation at a time."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.scenario = result.scenario
        self.count = int(self.scenario.federation["count"])
        self.seats = self.scenario.guardians
        self.witness: Witness | None = getattr(result, "witness", None)
        self.truths: Sequence[Truth | None] = [None] * self.count
        self.quorum = self.scenario.threshold
        if self.witness is not None and self.witness.federations:
            self.truths = [one.truth for one in self.witness.federations]
            self.quorum = self.witness.federations[0].safety.quorum
        self.lanes: list[Lane] = []
        self.first: list[int] = []  # the lane of seat 0, by federation
        self.world: list[int] = []  # the lane of what happens to nobody alone, by federation
        self.cases: list[Case] = []
        self.case_of: dict[tuple[int, int], int] = {}  # by federation and number of the claim
        self.claimant: dict[int, int] = {}  # the lane of whoever made a case's claim

    def story(self) -> Story:
        result, scenario = self.result, self.scenario
        claims, votes = _grouped(result.claims), _grouped(result.votes)
        for number in range(self.count):
            self._people(number, claims[number])
            self._claims(number, claims[number], votes[number])
        events = [one for number in range(self.count) for one in self._events(number)]
        bands = [one for number in range(self.count) for one in self._bands(number)]
        return Story(
            title=scenario.name, shows=str(scenario.top["shows"]), verdict=result.verdict,
            length=scenario.end, calm=scenario.length,
            groups=[f"federation {number}" for number in range(self.count)],
            lanes=self.lanes, events=sorted(events, key=lambda one: one.at),
            messages=self._messages(), bands=bands, cases=self.cases,
            rules=judging.rules(result), findings=judging.findings(result),
            goals=judging.goals(result), failures=tuple(result.failures),
            facts=judging.facts(result), commands=judging.commands(result),
        )  # fmt: skip

    # --- who -------------------------------------------------------------------------

    def _people(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.first.append(len(self.lanes))
        for seat in range(self.seats):
            note = self._note(number, seat)
            self.lanes.append(Lane(f"guardian {seat}", f"g{seat}", number, note=note))
        together = len(rows) > CLAIMANTS_MAX
        if together:
            self.lanes.append(Lane("claimants", "all", number, PERSON))
        for row in rows:
            if not together:
                by, claim = row["by"], row["claim"]
                self.lanes.append(Lane(f"{by}, claim {claim}", f"{by} {claim}", number, PERSON))
            case = len(self.case_of)
            self.case_of[number, row["claim"]] = case
            self.claimant[case] = len(self.lanes) - 1
        self.world.append(len(self.lanes))
        self.lanes.append(Lane("the world", "world", number, WORLD))

    def _note(self, number: int, seat: int) -> str:
        truth = self.truths[number]
        if truth is not None and seat in truth.charged:
            return f"lies: {truth.charged[seat]}"
        if truth is not None:
            return f"lost: {truth.lost[seat]}" if seat in truth.lost else ""
        for fault in self.result.faults if self.count == 1 else ():
            if seat in fault["select"] and FAMILY.get(fault["kind"]) == "liar":
                return f"lies: {fault.get('strategy', fault['kind'])}"
        return ""

    def _claims(
        self, number: int, rows: Sequence[Mapping[str, Any]], votes: Sequence[Mapping[str, Any]]
    ) -> None:
        first, truth = self.first[number], self.truths[number]
        by_claim: dict[int, list[tuple[int, int, bool]]] = defaultdict(list)
        for vote in votes:
            step = (vote["at"], first + vote["seat"], bool(vote["deceived"]))
            by_claim[vote["claim"]].append(step)
        released: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for one in self._known(truth).values():
            released[one.number] += [(at, first + seat) for seat, at in one.released.items()]
            if one.number not in by_claim:  # the tables have no votes of what was forgotten
                by_claim[one.number] = [
                    (at, first + seat, seat in one.deceived) for seat, at in one.approved.items()
                ]
        for row in rows:
            claim = row["claim"]
            self.cases.append(
                Case(
                    name=f"claim {claim}", group=number, by=row["by"], outcome=row["outcome"],
                    made=row["made"], quorum=self.quorum,
                    waiting=int(self.scenario.policy["waiting"]),
                    approvals=tuple(sorted(by_claim[claim])),
                    releases=tuple(sorted(released[claim])),
                    vetoed=row["vetoed"] or 0, recovered=row["recovered"] or 0,
                )
            )  # fmt: skip

    def _known(self, truth: Truth | None) -> Mapping[Id, Claimed]:
        if self.witness is None or truth is None:
            return {}
        return self.witness.claims.get(truth, {})

    # --- what happened -----------------------------------------------------------------

    def _events(self, number: int) -> Iterator[Event]:
        truth = self.truths[number]
        told = truth.events if truth is not None else self.result.told
        if truth is None and self.count > 1:
            # Nobody knows whose these are; the tables do say which federation.
            yield from self._from_tables(number)
            return
        for at, text in told:
            yield self._event(number, at, text)

    def _event(self, number: int, at: int, text: str) -> Event:
        for kind, pattern in SAID:
            found = pattern.fullmatch(text)
            if found is None:
                continue
            said = found.groupdict()
            case = self.case_of.get((number, int(said.get("claim") or -1)), NONE)
            lane = self.world[number]
            if said.get("seat") and int(said["seat"]) < self.seats:
                lane = self.first[number] + int(said["seat"])
            elif case != NONE:
                lane = self.claimant[case]
            if kind == "approve" and self._fooled(case, lane):
                return Event(at, lane, "deceived", f"{text}, deceived", number, case)
            return Event(at, lane, kind, text, number, case)
        return Event(at, self.world[number], "note", text, number)

    def _fooled(self, case: int, lane: int) -> bool:
        steps = self.cases[case].approvals if case != NONE else ()
        return any(deceived and who == lane for _, who, deceived in steps)

    def _from_tables(self, number: int) -> Iterator[Event]:
        for index, case in enumerate(self.cases):
            if case.group != number:
                continue
            who = self.claimant[index]
            yield Event(case.made, who, "claim", f"{case.by} makes {case.name}", number, index)
            for at, lane, deceived in case.approvals:
                kind = "deceived" if deceived else "approve"
                text = f"{self.lanes[lane].name} approves {case.name}"
                yield Event(at, lane, kind, text, number, index)
            if case.vetoed:
                yield Event(case.vetoed, who, "veto", f"vetoes {case.name}", number, index)
            if case.recovered:
                text = f"{case.by} has the secret of {case.name}"
                yield Event(case.recovered, who, "recovered", text, number, index)

    # --- what went wrong ----------------------------------------------------------------

    def _bands(self, number: int) -> Iterator[Band]:
        yield from self._nights(number)
        struck = {(at, text) for at, text in self._told(number)}
        for fault in self.result.faults:
            family = FAMILY.get(fault["kind"])
            at, lasts = duration(fault["at"]), duration(fault["for"])
            told = (at, f"fault {fault['kind']} on {fault['select']}")
            # Faults do not say whose they are; with many federations the record does.
            if family is None or (self.count > 1 and told not in struck):
                continue
            if not lasts and fault["kind"] not in (*EVER, "skew"):
                continue
            end = at + lasts if lasts else NONE
            if fault["kind"] == "skew" and not lasts:
                end = self.scenario.length
            lanes = tuple(self.first[number] + seat for seat in self._touched(fault))
            yield Band(family, lanes, at, end, _says(fault))

    def _told(self, number: int) -> Sequence[tuple[int, str]]:
        truth = self.truths[number]
        if truth is not None:
            return truth.events
        return self.result.told if self.count == 1 else ()

    def _touched(self, fault: Mapping[str, Any]) -> Sequence[int]:
        if fault["kind"] == "partition" and fault.get("shape") in ("ring", "bridge"):
            return range(self.seats)
        return [seat for seat in fault["select"] if seat < self.seats]

    def _nights(self, number: int) -> Iterator[Band]:
        """While a node was down, from the word that it was to the word that it is back."""
        since: dict[int, tuple[int, str]] = {}
        for at, text in self._told(number):
            event = self._event(number, at, text)
            if event.kind == "down":
                since.setdefault(event.lane, (at, text.partition(": ")[2]))
            elif event.kind == "back" and event.lane in since:
                begin, why = since.pop(event.lane)
                yield Band("off", (event.lane,), begin, at, f"down: {why}")
        for lane, (begin, why) in since.items():
            yield Band("off", (lane,), begin, NONE, f"down: {why}")

    # --- what was sent -------------------------------------------------------------------

    def _messages(self) -> Sequence[Message]:
        if self.witness is None:
            return ()
        found: list[Message] = []
        for number, truth in enumerate(self.truths):
            if truth is None:
                continue
            places = messages.Places(
                self.first[number],
                {id_: self.case_of.get((number, one.number), NONE)
                 for id_, one in self._known(truth).items()},
                self.claimant,
            )  # fmt: skip
            seen = self.witness.seen.get(truth, {})
            found += messages.statements(seen.values(), places, self.cases)
            found += messages.openings(self._known(truth), places, self.cases)
        return sorted(found, key=lambda one: one.sent)


def _grouped(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    groups: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["federation"]].append(row)
    return groups


def _says(fault: Mapping[str, Any]) -> str:
    if fault["kind"] == "byzantine":
        return f"lies: {fault.get('strategy', '')}"
    how = [str(value) if name == "shape" else f"{name} {value}" for name, value in _ways(fault)]
    return f"{fault['kind']}: {', '.join(how)}" if how else str(fault["kind"])


def _ways(fault: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    # What a kind of fault does not use still has its default in the table.
    uses = {
        "partition": ("shape",), "skew": ("skew", "behind"), "clog": ("delay",),
        "slow-disk": ("delay",), "flapping": ("every",), "reset": ("every",),
        "lying-disk": ("chance",),
    }  # fmt: skip
    for name in uses.get(fault["kind"], ()):
        if fault.get(name):
            yield name, fault[name]
