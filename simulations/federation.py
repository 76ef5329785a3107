"""One federation of a world: its guardians, their people, its members, and what is true of it.

The same whatever engine runs it. The engine sets `stage`, and builds each core with `core`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

from protocol.contract import (
    Core,
    Effect,
    Event,
    Heard,
    Id,
    Ledger,
    Moment,
    Persist,
    PutEntry,
    PutRow,
    Seat,
    Table,
)
from protocol.custody import Settings
from protocol.federation import Signed, draft, sign_roster
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.guardian import open_core
from protocol.statements import Codec
from simulations.chances import Stream
from simulations.checkers import Liveness, Safety
from simulations.hosts.bare import Host, make_host
from simulations.hosts.stage import Stage
from simulations.kernel import START_MS
from simulations.members import Member
from simulations.people import Person, make_people
from simulations.scenario import Scenario
from simulations.truth import Truth

CLAIMS_PER_MEMBER: Final = 2_000  # numbers set apart, so that nobody's depend on who was first

Opener = Callable[[Ledger, Any, Any, Settings], Core]


class Federation:
    """Federation `number` of a world, before any of it runs."""

    def __init__(self, scenario: Scenario, seed: int, number: int, now: Callable[[], int]) -> None:
        self.scenario = scenario
        self.seed = seed
        self.number = number
        self.waiting = int(scenario.policy["waiting"])
        self.hosts = [make_host(f"guardian{seat}", seat, START_MS) for seat in self._seats()]
        nonce = Stream(seed, "federation", number).octets(16)
        self.roster = draft(
            "Elm Street", scenario.threshold, [host.introduction for host in self.hosts],
            now=START_MS, nonce=nonce, waiting_default=self.waiting,
        )  # fmt: skip
        self.codec = Codec(self.roster.id)
        signatures = [sign_roster(host.keys.identity, self.roster) for host in self.hosts]
        self.signed = Signed(self.roster, tuple(one.raw[-64:] for one in signatures)).to_bytes()
        self.truth = Truth(self.codec, scenario.guardians, scenario.threshold, now)
        self.truth.keys = {seat: host.introduction.by for seat, host in enumerate(self.hosts)}
        self.safety = Safety(self.truth, self.roster.bounds.quorum_floor, self.waiting)
        heartbeat = int(scenario.federation["heartbeat"])
        self.liveness = Liveness(self.safety, heartbeat, scenario.end)
        self.silent: dict[Seat, str] = {}  # whose people never vote, and why
        self.locked: dict[Seat, bool] = {}  # who has lost the passphrase
        self.openers: dict[Seat, Opener] = {}
        self.cores: dict[Seat, WatchedCore] = {}
        self.failures: list[str] = []  # errors of a core: bugs, never the world's fault
        self.people: list[Person] = make_people(self, seed, scenario.length)
        self.members: list[Member] = []
        self.rows: list[dict[str, Any]] = []  # of cases whose story is told
        self.stage: Stage

    def _seats(self) -> range:
        return range(self.scenario.guardians)

    def enrol(self, work: Mapping[str, Any], count_: int, first: int) -> None:
        """Add members, whose numbers begin with `first`."""
        self.members += [Member(self, first + index, work) for index in range(count_)]

    def begin(self) -> None:
        """Start everybody's story."""
        for member in self.members:
            self.stage.start(member.live(), f"member{member.number}")
        for person in self.people:
            if person.dies >= 0:
                self.truth.lost[person.seat] = "dies"
            if person.loses >= 0:
                self.truth.lost[person.seat] = "loses the passphrase"

    def finished(self, member: Member) -> None:
        """A member's story is told. Of very many, only a row each is kept."""
        if self.scenario.federation["count"] > 1:
            mine = [one for one in self.truth.claims.values() if one.case == member.number]
            self.rows += [one.to_map(self.number) for one in mine]
            self.truth.forget(member.number)
            self.members.remove(member)

    def settled(self) -> None:
        """The world is at its end: check what must have happened by now."""
        seats = range(self.scenario.guardians)
        self.liveness.check(
            {seat: self.heads(seat) for seat in seats},
            {seat: self._open_claims(seat) for seat in seats},
        )

    def _open_claims(self, seat: Seat) -> list[Id]:
        core = self.cores.get(seat)
        if core is None:
            return []
        cases = core.inner.casework.docket.cases  # type: ignore[attr-defined]
        return [id_ for id_, case in sorted(cases.items()) if case.is_open]

    # --- draws ------------------------------------------------------------------------

    def select(self, wanted: Any, purpose: str) -> list[Seat]:
        """The seats that a scenario's `select` means; the draw belongs to its purpose."""
        seats = list(self._seats())
        if isinstance(wanted, list):
            return [seat for seat in wanted if seat < len(seats)]
        if wanted == "all":
            return seats
        size = wanted if isinstance(wanted, int) else self._size(str(wanted))
        return Stream(self.seed, "select", self.number, purpose).sample(seats, size)

    def _size(self, word: str) -> int:
        n, t = self.scenario.guardians, self.scenario.threshold
        sizes = {"one": 1, "minority": (n - 1) // 2, "majority": n // 2 + 1, "beyond": t}
        return sizes[word]

    def claim_numbers(self, member: Member) -> Iterator[int]:
        return count(member.number * CLAIMS_PER_MEMBER)

    # --- cores ------------------------------------------------------------------------

    def found(self, apply: Callable[[PutRow], None]) -> None:
        """Write what a node of a founded federation holds into an empty store."""
        apply(PutRow(Table.META, ROSTER_KEY, self.signed))
        apply(PutRow(Table.META, FEDERATION_KEY, self.roster.id))

    def core(self, seat: Seat, ledger: Ledger) -> Core:
        """Build the core of a seat, watched."""
        host: Host = self.hosts[seat]
        keys = None if self.locked.get(seat) else host.keys
        opener = self.openers.get(seat, open_core)
        made = WatchedCore(opener(ledger, host.introduction, keys, Settings()), self, seat)
        self.cores[seat] = made
        return made

    def heads(self, seat: Seat) -> Any:
        """What a seat holds of the logs of everyone who is honest; None without a core."""
        core = self.cores.get(seat)
        if core is None:
            return None
        heads = core.inner.gossip.heads  # type: ignore[attr-defined]
        return [
            (log, seq, head.hex()[:8])
            for log, (seq, head) in sorted(heads.items())
            if self.truth.honest(log[0])
        ]


class WatchedCore:
    """A core whose events and decisions are shown to the checkers as they pass."""

    def __init__(self, inner: Core, federation: Federation, seat: Seat) -> None:
        self.inner = inner
        self._federation = federation
        self._safety = federation.safety
        self._seat = seat
        self.authored: list[str] = []  # types of own entries decided on lately

    def resume(self, at: Moment) -> Sequence[Effect]:
        return self._show(self._call(lambda: self.inner.resume(at)))

    def handle(self, at: Moment, event: Event) -> Sequence[Effect]:
        if type(event) is Heard:
            self._safety.heard(self._seat, event)
        return self._show(self._call(lambda: self.inner.handle(at, event)))

    def _call(self, decide: Callable[[], Sequence[Effect]]) -> Sequence[Effect]:
        try:
            return decide()
        except Exception as error:
            # The driver survives this; it is a bug of the core all the same.
            federation = self._federation
            text = f"guardian {self._seat}: {type(error).__name__}: {error}"
            if len(federation.failures) < 10:
                federation.failures.append(text)
            raise

    def _show(self, effects: Sequence[Effect]) -> Sequence[Effect]:
        self.authored[:0] = [
            self._federation.codec.read(effect.change.raw).type
            for effect in effects
            if type(effect) is Persist
            and type(effect.change) is PutEntry
            and effect.change.place.seat == self._seat
        ]
        del self.authored[64:]
        self._safety.decided(self._seat, effects)
        return effects
