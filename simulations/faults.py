"""What goes wrong: faults as workloads, expanded into a plain list before a world begins.

A fault of a scenario becomes one or more *atoms*, each with a key of its own from which all
its draws are made. So an atom taken away moves no other, a failing list can be shrunk, and
what is left can be written down as a scenario again. Which guardians may lie, be lost or
rot is held against the budget before anything starts: within it every invariant is owed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocol.contract import Seat
from protocol.errors import Malformed
from protocol.limits import MINUTE
from simulations.chances import Stream
from simulations.federation import Federation
from simulations.quantities import show_duration
from simulations.scenario import Scenario

LONGEST: Final = 30 * MINUTE  # between two changes of a link that flaps, when nothing is said


class Machines(ABC):
    """What faults can do to one federation; times in virtual ms since the world began."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.dead: dict[Seat, bool] = {}

    @abstractmethod
    def at(self, ms: int, fn: Callable[[], None]) -> None: ...
    @abstractmethod
    def crash(self, seat: Seat, restart_after: int, why: str = "power cut") -> None:
        """Cut the power; 0 leaves it off."""

    @abstractmethod
    def start(self, seat: Seat) -> None: ...
    @abstractmethod
    def arm(self, seat: Seat, write: int, step: str, restart_after: int) -> None:
        """Cut the power at the n-th write from now, or at a step such as vote.persisted."""

    @abstractmethod
    def cut(self, source: Seat, target: Seat) -> None: ...
    @abstractmethod
    def heal(self, source: Seat, target: Seat) -> None: ...
    @abstractmethod
    def reset(self, a: Seat, b: Seat) -> None: ...
    @abstractmethod
    def clog(self, a: Seat, b: Seat, ms: int) -> None:
        """Let everything on a link take longer by `ms`; 0 ends it."""

    @abstractmethod
    def skew(self, seat: Seat, ms: int) -> None: ...
    @abstractmethod
    def fail_writes(self, seat: Seat, times: int) -> None: ...
    @abstractmethod
    def fill(self, seat: Seat, full: bool) -> None: ...
    @abstractmethod
    def exhaust(self, seat: Seat, full: bool) -> None: ...
    @abstractmethod
    def lie(self, seat: Seat, chance: int) -> None:
        """From now on the disk forgets synced writes at a crash, with that chance each."""

    @abstractmethod
    def rot(self, seat: Seat) -> None: ...
    @abstractmethod
    def snapshot(self, seat: Seat) -> None: ...
    @abstractmethod
    def roll_back(self, seat: Seat, restart_after: int) -> None: ...
    @abstractmethod
    def slow_disk(self, seat: Seat, ms: int) -> None: ...

    def others(self, seat: Seat) -> list[Seat]:
        return [other for other in range(self.federation.scenario.guardians) if other != seat]

    def heal_all(self, seat: Seat) -> None:
        for other in self.others(seat):
            self.heal(seat, other)
            self.heal(other, seat)


@dataclass(frozen=True)
class Atom:
    """One thing that goes wrong. `at` and `lasts` in ms; `how` is the rest of its table."""

    kind: str
    key: str
    seats: tuple[Seat, ...]
    at: int
    lasts: int
    how: Mapping[str, Any]

    def to_map(self) -> dict[str, Any]:
        """The same as a `[[fault]]` of a scenario."""
        table: dict[str, Any] = {
            "kind": self.kind, "key": self.key, "select": list(self.seats),
            "at": show_duration(self.at), "for": show_duration(self.lasts),
        }  # fmt: skip
        for name in ("strategy", "at-step", "at-write", "shape", "behind"):
            if self.how[name]:
                table[name] = self.how[name]
        for name in ("restart-after", "delay", "skew", "every"):
            if self.how[name]:
                table[name] = show_duration(self.how[name])
        if self.kind == "eio":
            table["times"] = self.how["times"]
        if self.how["chance"]:
            table["chance"] = self.how["chance"] / 1_000_000
        return table


Striker = Callable[[Machines, Atom, Stream], None]
KINDS: Final[dict[str, Striker]] = {}
SHOWN: Final[dict[str, str]] = {}
LOSES: Final = ("death", "lock", "rot")  # whoever it strikes can give no piece any more
CHARGES: Final = ("byzantine", "lying-disk", "rollback")  # and may do anything


def register(kind: str) -> Callable[[Striker], Striker]:
    """Make a function known as a kind of fault; its docstring's first line is what it shows."""

    def keep(striker: Striker) -> Striker:
        KINDS[kind] = striker
        SHOWN[kind] = (striker.__doc__ or "").splitlines()[0]
        return striker

    return keep


def expand(scenario: Scenario, federation: Federation, seed: int) -> list[Atom]:
    """Every atom of a scenario, in the order of its table."""
    atoms = []
    for index, table in enumerate(scenario.fault):
        kind = str(table["kind"])
        if kind not in KINDS:
            raise Malformed(f"fault {index + 1}: no fault is called {kind}; "
                            f"there are {', '.join(sorted(KINDS))}")  # fmt: skip
        key = table["key"] or f"fault{index}"
        times = 1 if kind == "eio" else int(table["times"])
        for nth in range(times):
            name = key if times == 1 else f"{key}.{nth}"
            stream = Stream(seed, "fault", federation.number, name)
            at = table["at"] + nth * table["every"] * (kind not in ("flapping", "reset"))
            at += stream.below(table["within"]) if table["within"] else 0
            seats = tuple(federation.select(table["select"], f"fault {name}"))
            lasts = max(0, min(int(table["for"]), scenario.length - at))
            if at < scenario.length or kind == "byzantine":
                atoms.append(Atom(kind, name, seats, at, lasts, table))
    return atoms


def affordable(atoms: list[Atom], scenario: Scenario) -> list[Atom]:
    """Those within the budget: fewer liars than the threshold, and enough left to give back."""
    if scenario.check["budget"] == "exceed":
        return atoms
    liars: dict[Seat, bool] = {}
    away: dict[Seat, bool] = {}
    kept = []
    for atom in atoms:
        more = dict.fromkeys(atom.seats, True)
        new_liars = {**liars, **more} if atom.kind in CHARGES else liars
        new_away = {**away, **more} if atom.kind in (*CHARGES, *LOSES) else away
        if len(new_liars) < scenario.threshold and (
            len(new_away) <= scenario.guardians - scenario.threshold
        ):
            liars, away = new_liars, new_away
            kept.append(atom)
    return kept


def schedule(machines: Machines, scenario: Scenario, seed: int) -> list[Atom]:
    """Put all faults of a scenario on a federation's timeline, and their end."""
    federation = machines.federation
    atoms = affordable(expand(scenario, federation, seed), scenario)
    federation.truth.troubles = len(atoms)
    for person in federation.people:
        for at, kind in ((person.dies, "death"), (person.loses, "lock")):
            if at >= 0:
                atoms.append(_atom(kind, f"{kind} of {person.seat}", person.seat, at))
    for atom in atoms:
        stream = Stream(seed, "strike", federation.number, atom.key)
        for seat in atom.seats:
            if atom.kind in CHARGES:
                federation.truth.charge(seat, atom.how["strategy"] or atom.kind)
            elif atom.kind in LOSES:
                federation.truth.lost[seat] = atom.kind
        if atom.kind == "byzantine" or not atom.at:
            KINDS[atom.kind](machines, atom, stream)
        else:
            machines.at(atom.at, _striking(machines, atom, stream))
    machines.at(scenario.length, lambda: _mend(machines))
    return atoms


def _atom(kind: str, key: str, seat: Seat, at: int) -> Atom:
    from simulations.scenario import read_scenario

    table = read_scenario({"fault": [{"kind": kind}]}).fault[0]
    return Atom(kind, key, (seat,), at, 0, table)


def _striking(machines: Machines, atom: Atom, stream: Stream) -> Callable[[], None]:
    def strike() -> None:
        machines.federation.truth.tell(f"fault {atom.kind} on {list(atom.seats)}")
        KINDS[atom.kind](machines, atom, stream)

    return strike


def _mend(machines: Machines) -> None:
    """Faults are over: who can run runs, and every link is whole."""
    scenario = machines.federation.scenario
    for seat in range(scenario.guardians):
        machines.arm(seat, 0, "", 0)
        machines.fail_writes(seat, 0)
        machines.fill(seat, False)
        machines.exhaust(seat, False)
        machines.skew(seat, 0)
        machines.slow_disk(seat, 0)
        for other in machines.others(seat):
            machines.clog(seat, other, 0)
        if seat not in machines.dead:
            machines.start(seat)


def _ended(machines: Machines, what: str) -> None:
    machines.federation.truth.last_fault = machines.federation.truth.now()
    machines.federation.truth.tell(what)


# --- the kinds -------------------------------------------------------------------------


@register("crash")
def crash(machines: Machines, atom: Atom, stream: Stream) -> None:
    """The power goes: at a time, at the n-th write, or at a named step such as vote.persisted."""
    write, step = int(atom.how["at-write"]), str(atom.how["at-step"])
    for seat in atom.seats:
        if write or step:
            machines.arm(seat, write, step, int(atom.how["restart-after"]))
        else:
            machines.crash(seat, int(atom.how["restart-after"]))


@register("outage")
def outage(machines: Machines, atom: Atom, stream: Stream) -> None:
    """Several nodes are without power for a while, as in one town."""
    for seat in atom.seats:
        machines.crash(seat, max(1, atom.lasts), "outage")


@register("death")
def death(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A guardian dies, and some time later nobody keeps the node running."""
    for seat in atom.seats:
        machines.dead[seat] = True
        machines.federation.silent[seat] = "dead"
        machines.federation.truth.lost[seat] = "death"
        machines.crash(seat, 0, "nobody keeps it running")


@register("lock")
def lock(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A guardian has forgotten the passphrase: the node relays and signs nothing."""
    for seat in atom.seats:
        machines.federation.locked[seat] = True
        machines.federation.silent[seat] = "locked"
        machines.crash(seat, 1_000, "restarted without its passphrase")


@register("silent")
def silent(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A guardian's node runs, and nobody looks at it."""
    for seat in atom.seats:
        machines.federation.silent[seat] = "silent"
        machines.federation.truth.lost[seat] = "silent"


@register("partition")
def partition(machines: Machines, atom: Atom, stream: Stream) -> None:
    """Links are cut: one side from the other, a ring, a bridge, or one way only."""
    pairs = _shape(machines, atom)
    for source, target in pairs:
        machines.cut(source, target)

    def heal() -> None:
        for source, target in pairs:
            machines.heal(source, target)
        _ended(machines, "the partition is healed")

    machines.at(atom.at + atom.lasts, heal)


def _shape(machines: Machines, atom: Atom) -> list[tuple[Seat, Seat]]:
    everyone = list(range(machines.federation.scenario.guardians))
    side = list(atom.seats)
    other = [seat for seat in everyone if seat not in side]
    shape = atom.how["shape"]
    if shape == "ring":
        n = len(everyone)
        return [
            (a, b) for a in everyone for b in everyone if a != b and (a - b) % n not in (1, n - 1)
        ]
    if shape == "bridge":
        rest = [seat for seat in everyone if seat != side[0]]
        left, right = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        return [pair for a in left for b in right for pair in ((a, b), (b, a))]
    ways = [(a, b) for a in side for b in other]
    return ways if shape == "one-way" else ways + [(b, a) for a, b in ways]


@register("eclipse")
def eclipse(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A guardian sees only the guardians that lie."""
    honest = machines.federation.truth.honest
    pairs = [(seat, other) for seat in atom.seats for other in machines.others(seat)
             if honest(other)]  # fmt: skip
    pairs += [(b, a) for a, b in pairs]
    for pair in pairs:
        machines.cut(*pair)

    def heal() -> None:
        for pair in pairs:
            machines.heal(*pair)
        _ended(machines, "the eclipse is over")

    machines.at(atom.at + atom.lasts, heal)


@register("flapping")
def flapping(machines: Machines, atom: Atom, stream: Stream) -> None:
    """Links come and go, every so often on average."""
    every = int(atom.how["every"]) or LONGEST
    at, broken = atom.at, False
    pairs = [(a, b) for a in atom.seats for b in machines.others(a)]

    def change(breaks: bool) -> Callable[[], None]:
        def act() -> None:
            for a, b in pairs:
                (machines.cut if breaks else machines.heal)(a, b)
                (machines.cut if breaks else machines.heal)(b, a)

        return act

    while at < atom.at + atom.lasts:
        broken = not broken
        machines.at(at, change(broken))
        at += 1 + stream.exponential(every)
    if broken:
        machines.at(atom.at + atom.lasts, change(False))
    machines.at(atom.at + atom.lasts, lambda: _ended(machines, "the links are steady"))


@register("swizzle")
def swizzle(machines: Machines, atom: Atom, stream: Stream) -> None:
    """Guardians are cut off one after another, and come back in another order."""
    half = max(1, atom.lasts // 2)
    for seat in atom.seats:
        machines.at(atom.at + stream.below(half), _cutting(machines, seat, True))
        machines.at(atom.at + half + stream.below(half), _cutting(machines, seat, False))
    machines.at(atom.at + atom.lasts, lambda: _ended(machines, "the links are whole"))


def _cutting(machines: Machines, seat: Seat, breaks: bool) -> Callable[[], None]:
    def act() -> None:
        for other in machines.others(seat):
            (machines.cut if breaks else machines.heal)(seat, other)
            (machines.cut if breaks else machines.heal)(other, seat)

    return act


@register("clog")
def clog(machines: Machines, atom: Atom, stream: Stream) -> None:
    """Everything to and from a guardian takes longer."""

    def set_to(ms: int) -> None:
        for seat in atom.seats:
            for other in machines.others(seat):
                machines.clog(seat, other, ms)

    set_to(int(atom.how["delay"]))
    machines.at(atom.at + atom.lasts, lambda: set_to(0))


@register("reset")
def reset(machines: Machines, atom: Atom, stream: Stream) -> None:
    """Connections of a guardian break, again and again."""
    every, at = int(atom.how["every"]) or LONGEST, atom.at
    while at <= atom.at + atom.lasts:
        machines.at(at, _resetting(machines, atom.seats))
        at += 1 + stream.exponential(every)


def _resetting(machines: Machines, seats: tuple[Seat, ...]) -> Callable[[], None]:
    def act() -> None:
        for seat in seats:
            for other in machines.others(seat):
                machines.reset(seat, other)

    return act


@register("skew")
def skew(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A clock is wrong by so much, for a while."""
    off = int(atom.how["skew"]) * (-1 if atom.how["behind"] else 1)
    for seat in atom.seats:
        known = machines.federation.truth.skewed
        known[seat] = max(known.get(seat, 0), abs(off))
        machines.skew(seat, off)
        if atom.lasts:
            machines.at(atom.at + atom.lasts, lambda seat=seat: machines.skew(seat, 0))  # type: ignore[misc]


@register("eio")
def eio(machines: Machines, atom: Atom, stream: Stream) -> None:
    """The next writes to a disk fail."""
    for seat in atom.seats:
        machines.fail_writes(seat, int(atom.how["times"]))


@register("full-disk")
def full_disk(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A disk has no room left for deposits, only for votes and releases, for a while."""
    for seat in atom.seats:
        machines.fill(seat, True)
        machines.at(atom.at + atom.lasts, lambda seat=seat: machines.fill(seat, False))  # type: ignore[misc]


@register("exhausted-disk")
def exhausted_disk(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A disk refuses every write that needs more room, votes too, for a while."""
    for seat in atom.seats:
        machines.exhaust(seat, True)
        machines.at(atom.at + atom.lasts, lambda seat=seat: machines.exhaust(seat, False))  # type: ignore[misc]


@register("slow-disk")
def slow_disk(machines: Machines, atom: Atom, stream: Stream) -> None:
    """Every write takes longer, for a while."""
    for seat in atom.seats:
        machines.slow_disk(seat, int(atom.how["delay"]))
        machines.at(atom.at + atom.lasts, lambda seat=seat: machines.slow_disk(seat, 0))  # type: ignore[misc]


@register("lying-disk")
def lying_disk(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A disk says that writes are durable and forgets them when the power goes."""
    for seat in atom.seats:
        machines.lie(seat, int(atom.how["chance"]) or 500_000)


@register("rot")
def rot(machines: Machines, atom: Atom, stream: Stream) -> None:
    """What a disk holds changes by itself."""
    for seat in atom.seats:
        machines.rot(seat)


@register("rollback")
def rollback(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A machine is set back to a copy made earlier, without being told."""
    for seat in atom.seats:
        machines.snapshot(seat)
        machines.at(
            atom.at + atom.lasts,
            lambda seat=seat: machines.roll_back(seat, int(atom.how["restart-after"])),  # type: ignore[misc]
        )


@register("byzantine")
def byzantine(machines: Machines, atom: Atom, stream: Stream) -> None:
    """A guardian keeps to the protocol but for one thing, named by its strategy."""
    from simulations.byzantine import opener

    for seat in atom.seats:
        machines.federation.openers[seat] = opener(
            str(atom.how["strategy"]), machines.federation, seat
        )
        if atom.how["strategy"] in ("withhold-vote", "selective"):
            machines.federation.silent[seat] = str(atom.how["strategy"])
