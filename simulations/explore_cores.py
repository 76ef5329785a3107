"""Guardians' cores as states in a table: what the explorer steps through.

A core is deterministic, so one that is in a known state and handles a known event needs to
run only once: its next state, and what it sends, are remembered. A run of the explorer then
is a walk over small numbers, and millions of interleavings cost thousands of calls.

1. Two states are one when all is equal: every attribute of every part of the core, its
   ledger, timers and clock, and what the oracle remembers.
2. The order in which entries of different logs arrived is left out, because cases fold over
   sets; in return every order met is loaded into a new core, which must know the same.
3. Every event of one guardian draws the same randomness, so that equal work gives equal bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from protocol.contract import (
    Answer,
    Done,
    DropLink,
    Effect,
    Event,
    Heard,
    LinkDown,
    LinkUp,
    Message,
    Moment,
    Persist,
    Place,
    Received,
    Run,
    Seat,
    Send,
    SetTimer,
    Stream,
    Table,
    TimerFired,
    Verified,
)
from protocol.custody import Settings
from protocol.federation import Roster
from protocol.guardian import GuardianCore, Keys
from protocol.sealing import Cost
from protocol.statements import Codec, place_of
from protocol.verbs import codes
from simulations.explore_memory import Part, copied, freeze, is_fixed, layout, reach
from simulations.hosts.memory import MemoryLedger

Step: TypeAlias = tuple[str, Any]  # what happens to one guardian: a word and what it is about
Packet: TypeAlias = Heard | Received  # in flight; the link is filled in on arrival
Mutation: TypeAlias = Callable[[GuardianCore], None]

LIVE_MAX: Final = 30_000  # cores kept alive, about 25 KB each; others are played again
WALLET: Final = 1_000  # the link that every wallet's request comes over; replies go nowhere


class Remembering(Codec):
    """A codec that reads and verifies each statement once."""

    def __init__(self, federation: bytes) -> None:
        super().__init__(federation)
        self._known: dict[bytes, Verified] = {}

    def verify(self, raw: bytes, *types: str) -> Verified:
        known = self._known.get(raw)
        if known is None or (types and known.type not in types):
            known = self._known[raw] = super().verify(raw, *types)
        return known

    def read(self, raw: bytes) -> Verified:
        known = self._known.get(raw)
        return super().read(raw) if known is None else known


# --- replicas --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """Who a guardian is: what its core is built from, besides its ledger."""

    seat: Seat
    introduction: Verified
    keys: Keys


@dataclass
class Replica:
    """One guardian's core in a world of its own, with all that must be equal to be the same.

    `notes` is what the oracle remembers of this guardian's past; `before` the ledger before
    the last event, kept only where a mutant loses it.
    """

    member: Member
    core: GuardianCore
    ledger: MemoryLedger
    now: int
    timers: dict[str, int]
    notes: Any
    before: MemoryLedger | None = None

    @property
    def seat(self) -> Seat:
        return self.member.seat

    def own(self) -> dict[Place, bytes]:
        return {place: raw for place, raw in self.ledger.entries() if place.seat == self.seat}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step of one guardian leads to: its next state, what it sends, what is wrong."""

    state: int
    sent: tuple[tuple[Seat, int], ...]  # to whom, which packet
    faults: tuple[str, ...] = ()


class Judge(Protocol):
    """Looks at every step of every guardian. `judge` may write to the replica's notes."""

    def first(self, replica: Replica) -> Any: ...
    def judge(self, replica: Replica, step: Step, new: list[Verified]) -> list[str]: ...


class Refusal(Exception):
    """The node refused what a person or a wallet asked: this step does not exist."""


class Cores:
    """The table of states of all guardians, filled as the explorer asks for steps."""

    def __init__(
        self,
        roster: Roster,
        signed: bytes,
        codec: Remembering,
        judge: Judge,
        asks: Callable[[Seat, str], Event],
        lies: Callable[[str], tuple[Verified, ...]],
        *,
        mutation: Mutation | None = None,
        loses_last: bool = False,
        reload: bool = True,
    ) -> None:
        self.reload = reload
        self._roster = roster
        self._signed = signed
        self._codec = codec
        self._judge = judge
        self._asks = asks
        self._lies = lies
        self._mutation = mutation
        self._loses_last = loses_last
        self._layout: tuple[Part, ...] = ()
        self.packets: list[Packet] = []
        self.pings: set[int] = set()
        self.talk: set[int] = set()  # everything but entries: clocks, digests, pings
        self._packet_ids: dict[Any, int] = {}
        self._ids: dict[Any, int] = {}
        self._came: list[tuple[int, Step] | None] = []
        self._roots: dict[int, Replica] = {}
        self._live: OrderedDict[int, Replica] = OrderedDict()
        self._outcomes: dict[tuple[int, Step], Outcome | None] = {}
        self._orders: dict[tuple[Any, ...], bool] = {}
        self.calls = 0  # of cores, replays not counted
        self.replays = 0

    def __len__(self) -> int:
        return len(self._came)

    # --- states -----------------------------------------------------------------------

    def start(self, member: Member, ledger: MemoryLedger, now: int) -> Outcome:
        """Switch a guardian on with a ledger, linked to all others."""
        replica = Replica(member, self._build(member, ledger), ledger, now, {}, None)
        replica.notes = self._judge.first(replica)
        sent: list[tuple[Seat, int]] = []
        self._switch_on(replica, sent)
        state = self._intern(replica, None)
        self._roots[state] = replica
        return Outcome(state, tuple(sent))

    def look(self, state: int) -> Replica:
        """A guardian in a state, to be looked at and not touched."""
        live = self._live.get(state)
        if live is None:
            live = self._remake(state)
            self._keep(state, live)
        return live

    def _build(self, member: Member, ledger: MemoryLedger) -> GuardianCore:
        core = GuardianCore(
            ledger, member.introduction, member.keys, Settings(), self._roster, self._signed
        )
        if not self._layout:
            self._layout = layout(core)
        for part in self._layout:
            for name in part.has_codec:
                setattr(reach(core, part), name, self._codec)
        if self._mutation is not None:
            self._mutation(core)
        return core

    def _fork(self, state: int) -> Replica:
        old = self.look(state)
        ledger = old.ledger.copy()
        core = self._build(old.member, ledger)
        for part in self._layout:
            before, after = vars(reach(old.core, part)), vars(reach(core, part))
            for name in part.names:
                after[name] = copied(before[name])
        return Replica(old.member, core, ledger, old.now, dict(old.timers), old.notes, old.before)

    def _remake(self, state: int) -> Replica:
        """Play again what led to a state whose core was let go."""
        steps: list[Step] = []
        at = state
        while at not in self._live and at not in self._roots:
            came = self._came[at]
            assert came is not None
            at, step = came
            steps.append(step)
        if at in self._roots and at not in self._live:
            self._keep(at, self._roots[at])
        replica = self._fork(at) if steps else self._roots[state]
        for step in reversed(steps):
            self.replays += 1
            held = replica.own()
            self._play(replica, step)
            self._judge.judge(replica, step, self._new(replica, held))
        return replica

    def _keep(self, state: int, replica: Replica) -> None:
        self._live[state] = replica
        self._live.move_to_end(state)
        while len(self._live) > LIVE_MAX:
            self._live.popitem(last=False)

    def _memory(self, core: GuardianCore, part: Part) -> tuple[Any, ...]:
        held = vars(reach(core, part))
        return tuple([freeze(held[name]) for name in part.names])

    def _intern(self, replica: Replica, came: tuple[int, Step] | None) -> int:
        key = (
            replica.seat,
            replica.now,
            tuple(self._memory(replica.core, part) for part in self._layout),
            tuple(tuple(replica.ledger.scan(table)) for table in Table),
            frozenset(replica.ledger.entries()),
            frozenset(replica.timers.items()),
            replica.notes,
            frozenset(replica.before.entries()) if replica.before is not None else None,
        )
        state = self._ids.setdefault(key, len(self._came))
        if state == len(self._came):
            self._came.append(came)
            self._keep(state, replica)
        return state

    # --- steps ------------------------------------------------------------------------

    def step(self, state: int, step: Step) -> Outcome | None:
        """What a step leads to, or None where the guardian's node refuses it."""
        key = (state, step)
        if key not in self._outcomes:
            self._outcomes[key] = self._take(state, step)
        return self._outcomes[key]

    def _take(self, state: int, step: Step) -> Outcome | None:
        replica = self._fork(state)
        held = replica.own()
        self.calls += 1
        try:
            sent = self._play(replica, step)
        except Refusal:
            return None
        except Exception as error:  # whatever a core raises ends its guardian's node
            return Outcome(state, (), (f"crash: its core fails on {step[0]}: {error!r}",))
        faults = self._judge.judge(replica, step, self._new(replica, held))
        after = self._intern(replica, (state, step))
        order = (after, *(place for place, _ in replica.ledger.entries()))
        if self.reload and order not in self._orders:
            self._orders[order] = True
            faults += self._remembers(replica)
        return Outcome(after, tuple(sent), tuple(faults))

    def _new(self, replica: Replica, held: dict[Place, bytes]) -> list[Verified]:
        """What a guardian wrote into its own log since."""
        return [self._codec.read(raw) for place, raw in replica.own().items() if place not in held]

    def _remembers(self, replica: Replica) -> list[str]:
        """Whether a core that loads this ledger knows what the living one knows."""
        ledger = replica.ledger.copy()
        core = self._build(replica.member, ledger)
        core.resume(Moment(replica.now, bytes(32)))
        if _knowledge(core) == _knowledge(replica.core):
            return []
        return ["memory: after a restart the node would know something else than before"]

    def _play(self, replica: Replica, step: Step) -> list[tuple[Seat, int]]:
        sent: list[tuple[Seat, int]] = []
        kind, about = step
        last, replica.before = replica.before, replica.ledger.copy() if self._loses_last else None
        match kind:
            case "hear":
                peer, packet = about
                self._hear(replica, peer, self.packets[packet], sent)
            case "lie":
                entries = self._lies(about)
                self._drive(replica, Heard(entries[0].body["seat"], entries), sent)
            case "act":
                self._drive(replica, self._asks(replica.seat, about), sent)
            case "boot":
                replica.ledger = last if last is not None else replica.ledger
                replica.core = self._build(replica.member, replica.ledger)
                self._switch_on(replica, sent)
            case "relink":
                self._drive(replica, LinkDown(about), sent)
                self._drive(replica, LinkUp(about, about), sent)
            case "compare":
                self._compare(replica, about, sent)
            case "tick":
                replica.now += about
                self._fire_due(replica, sent)
            case "ping":
                self._drive(replica, TimerFired("ping"), sent)
        return sent

    def _switch_on(self, replica: Replica, sent: list[tuple[Seat, int]]) -> None:
        replica.timers.clear()
        effects = replica.core.resume(Moment(replica.now, bytes(32)))
        for event in self._perform(replica, effects, sent):
            self._drive(replica, event, sent)
        for seat in self._roster.seats:
            if seat != replica.seat:
                self._drive(replica, LinkUp(seat, seat), sent)

    def _hear(
        self, replica: Replica, peer: Seat, packet: Packet, sent: list[tuple[Seat, int]]
    ) -> None:
        if isinstance(packet, Heard):
            self._drive(replica, Heard(peer, packet.entries, packet.check), sent)
        else:
            self._drive(replica, Received(peer, packet.message), sent)

    def _compare(self, replica: Replica, peer: Seat, sent: list[tuple[Seat, int]]) -> None:
        """Send the digest that is due, to a neighbour of our choice."""
        timers = sorted(name for name in replica.timers if name.startswith("digest"))
        if not timers:
            raise Refusal
        links = sorted(replica.core.gossip.neighbours)
        del replica.timers[timers[0]]
        seed = links.index(peer).to_bytes(4, "big") + bytes(28)
        self._drive(replica, TimerFired(timers[0]), sent, seed)

    def _fire_due(self, replica: Replica, sent: list[tuple[Seat, int]]) -> None:
        """Fire what is due but gossip's timers, which are steps of their own."""
        while True:
            due = sorted(
                (at, name)
                for name, at in replica.timers.items()
                if at <= replica.now and not name.startswith(("digest", "ping"))
            )
            if not due:
                return
            del replica.timers[due[0][1]]
            self._drive(replica, TimerFired(due[0][1]), sent)

    def _drive(
        self,
        replica: Replica,
        event: Event,
        sent: list[tuple[Seat, int]],
        seed: bytes = bytes(32),
    ) -> None:
        effects = replica.core.handle(Moment(replica.now, seed), event)
        for done in self._perform(replica, effects, sent):
            self._drive(replica, done, sent)

    # --- effects ----------------------------------------------------------------------

    def _perform(
        self, replica: Replica, effects: Iterable[Effect], sent: list[tuple[Seat, int]]
    ) -> list[Done]:
        """Do what a core wants; jobs are done at once, since they touch nothing else."""
        done: list[Done] = []
        for effect in effects:
            match effect:
                case Persist(change):
                    replica.ledger.apply(change)
                case Send(_, Message("refusal")) | Answer(refusal=Exception()):
                    raise Refusal
                case Send(link, message) if link != WALLET:
                    sent.append((link, self._packet(Received(0, message))))
                case Stream():
                    sent.append((effect.link, self._packet(self._entries(replica, effect))))
                case SetTimer(timer, None):
                    replica.timers.pop(timer, None)
                case SetTimer(timer, at) if at is not None:
                    replica.timers[timer] = at
                case Run(id_, job):
                    done.append(Done(id_, codes(job, Cost.TOY)))
                case DropLink(link, reason):
                    raise ValueError(f"it drops the link of guardian {link}: {reason}")
        return done

    def _entries(self, replica: Replica, effect: Stream) -> Heard:
        entries = []
        for seq in range(effect.first, effect.last + 1):
            raw = replica.ledger.entry(Place(effect.seat, effect.incarnation, seq))
            if raw is None:
                raise ValueError("it streams an entry that is not in its ledger")
            entries.append(self._codec.verify(raw))
        return Heard(0, tuple(entries), effect.check)

    def _packet(self, packet: Packet) -> int:
        if isinstance(packet, Heard):
            key: Any = (tuple(entry.id for entry in packet.entries), packet.check)
        else:
            key = (packet.message.kind, freeze(packet.message.fields))
        number = self._packet_ids.setdefault(key, len(self.packets))
        if number == len(self.packets):
            self.packets.append(packet)
            if isinstance(packet, Received):
                self.talk.add(number)
                if packet.message.kind == "ping":
                    self.pings.add(number)
        return number


def _knowledge(core: GuardianCore) -> Any:
    """What a core must know whichever way it came to know it."""
    return freeze(
        [
            {n: value for n, value in vars(core.casework.docket).items() if not is_fixed(value)},
            core.gossip.heads,
            sorted([*core.gossip.proven, *core.gossip.suspects]),
            core.casework.admitted,
            core.service.addresses,
        ]
    )


def said(packet: Packet) -> str:
    """A packet in a few words."""
    if isinstance(packet, Received):
        return packet.message.kind
    names = [f"{place_of(e).seat}.{place_of(e).seq} {e.type}" for e in packet.entries]
    return ("side by side " if packet.check else "") + ", ".join(names)
