"""The fast engine: bare cores on one heap of whole nanoseconds, without trio.

Time, links, timers, crashes and people, as in the full engine; left out are bytes, files
and tasks. What a node does around its core is a page here: apply what is to be kept, then
perform the rest. A crash cuts that page at one of its two seams.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from types import coroutine
from typing import Any, Final

from node.intake import read_batch, verify_all
from protocol.contract import (
    Answer,
    Command,
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
    PutEntry,
    Rebuild,
    Received,
    Run,
    Seat,
    Send,
    SetTimer,
    Stream,
    Table,
    TimerFired,
    Told,
)
from protocol.errors import Malformed, NotYet
from protocol.founding import ROSTER_KEY
from protocol.sealing import Cost
from protocol.verbs import codes
from simulations.chances import Stream as Draw
from simulations.federation import Federation
from simulations.hosts.memory import MemoryLedger
from simulations.hosts.stage import Dark, Refusal
from simulations.kernel import START_MS
from simulations.trace import Trace

MS: Final = 1_000_000  # nanoseconds
GIVE_UP: Final = 120_000 * MS  # a link without progress ends, as in the full engine
REDIAL: Final = 3_000 * MS  # at most, until a link that may stand again does
BANNED: Final = 60_000 * MS  # before one dials again who was hung up on
COMPUTES: Final = 60 * MS  # a code: Argon2id
TIMEOUT: Final = 10_000 * MS  # of a dial into the dark


class Engine:
    """The heap of what is due, in whole nanoseconds."""

    def __init__(self, trace: Trace) -> None:
        self.now = 0
        self.events = 0
        self.trace = trace
        self._heap: list[tuple[int, int, Callable[[Any], object], Any]] = []
        self._order = 0

    def at(self, time: int, fn: Callable[[Any], object], about: Any = None) -> None:
        """Call `fn(about)` at a time; a past one is now, after what is due before."""
        self._order += 1
        heapq.heappush(self._heap, (max(time, self.now), self._order, fn, about))

    def run(self, until: int, events_max: int) -> bool:
        """Perform what is due up to a time. False when there were too many events."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= until:
            self.now, _, fn, about = pop(heap)
            fn(about)
            self.events += 1
            if self.events >= events_max:
                return False
        self.now = until
        return True


# --- people as coroutines --------------------------------------------------------------


@coroutine
def _park(arrange: Callable[[Task], None]) -> Generator[Callable[[Task], None], Any, Any]:
    return (yield arrange)


class Task:
    """One script, resumed with a value or an error."""

    def __init__(self, script: Coroutine[Any, Any, None], name: str) -> None:
        self._script = script
        self.name = name

    def step(self, value: Any) -> None:
        try:
            if isinstance(value, BaseException):
                arrange = self._script.throw(value)
            else:
                arrange = self._script.send(value)
        except StopIteration:
            return
        arrange(self)

    def close(self) -> None:
        self._script.close()


class Wire:
    """One link between two nodes: its two ends, and what waits while it is cut."""

    __slots__ = ("a", "b", "draw", "due", "ends", "held")

    def __init__(self, a: Node, b: Node, ends: tuple[int, int], draw: Draw) -> None:
        self.a = a
        self.b = b
        self.ends = ends
        self.draw = draw
        self.due = {a.seat: 0, b.seat: 0}  # when the last thing sent to that seat arrives
        self.held: list[tuple[Node, Any]] = []

    def far(self, node: Node) -> Node:
        return self.b if node is self.a else self.a

    def end_at(self, node: Node) -> int:
        return self.ends[0] if node is self.a else self.ends[1]


class Node:
    """What runs around one core."""

    def __init__(self, world: FastFederation, seat: Seat) -> None:
        self.world = world
        self.engine = world.engine
        self.seat = seat
        self.ledger = MemoryLedger()
        self.on = False
        self.skew = 0
        self.life = 0
        self.links: dict[int, Wire] = {}
        self.wallets: dict[int, list[Message]] = {}
        self.timers: dict[str, int] = {}
        self.heads: dict[tuple[int, int], int] = {}
        self.waiting: dict[int, Task | None] = {}
        self.answers: dict[int, Answer] = {}
        self.write = 0  # transactions so far
        self.cut_at = 0  # the transaction at which the power goes
        self.cut_step = ""  # or the step of a decision, such as vote.persisted
        self.fails = 0  # writes that are to fail
        self.snapshot: MemoryLedger | None = None
        self.restart_after = 0
        self._last = 0
        self._entropy = Draw(world.federation.seed, "entropy", world.federation.number, seat)

    # --- on and off -------------------------------------------------------------------

    def start(self, _: Any = None) -> None:
        if self.on:
            return
        self.on = True
        self.life += 1
        federation = self.world.federation
        if self.ledger.get(Table.META, ROSTER_KEY) is None:
            federation.found(self.ledger.apply)
        self.heads = {}
        for place, _raw in self.ledger.entries():
            log = (place.seat, place.incarnation)
            self.heads[log] = max(self.heads.get(log, 0), place.seq)
        federation.truth.came_back(self.seat)
        self._build()
        self.world.linkable(self)

    def stop(self, why: str) -> None:
        """The power goes: links, timers and what people wait for are gone."""
        if not self.on:
            return
        self.on = False
        self.timers.clear()
        self.world.federation.cores.pop(self.seat, None)
        self.world.federation.truth.went_off(self.seat, why)
        for link in list(self.links):
            self.world.unlink(self.links[link])
        self.wallets.clear()
        for task in self.waiting.values():
            if task is not None:
                self.engine.at(self.engine.now, task.step, Dark())
        self.waiting.clear()
        if self.restart_after:
            self.engine.at(self.engine.now + self.restart_after * MS, self.start)

    def _build(self) -> None:
        self.core = self.world.federation.core(self.seat, self.ledger)
        self.timers.clear()
        self._keep_and_act(self.core.resume(self._moment()))

    def rebuild(self) -> None:
        """A new core from the ledger; the links that stand are announced to it."""
        self._build()
        for link, wire in list(self.links.items()):
            self.handle(LinkUp(link, wire.far(self).seat))

    # --- deciding ---------------------------------------------------------------------

    def clock(self) -> int:
        return START_MS + self.engine.now // MS + self.skew

    def _moment(self) -> Moment:
        self._last = max(self._last, self.clock())
        return Moment(self._last, self._entropy.octets(32))

    def handle(self, event: Event) -> None:
        if not self.on:
            return
        try:
            effects = self.core.handle(self._moment(), event)
        except Exception:
            # A bug of the core, noted by who watches it: the node gives the event up.
            self._given_up(event)
            return
        self.engine.trace("core", self.engine.now, self.seat, type(event).__name__, len(effects))
        self._keep_and_act(effects, event)

    def _keep_and_act(self, effects: Sequence[Effect], event: Event | None = None) -> None:
        changes = [effect.change for effect in effects if type(effect) is Persist]
        if changes:
            self.write += 1
            entries = [change for change in changes if type(change) is PutEntry]
            if self._dies_at("persisted", entries):
                return
            if self.fails > 0:
                self.fails -= 1
                self._failed(event)
                return
            for change in changes:
                self.ledger.apply(change)
            for put in entries:
                self.heads[put.place.seat, put.place.incarnation] = put.place.seq
            self.world.federation.safety.committed(self.seat, entries)
            if self._dies_at("committed", entries):
                return
        for effect in effects:
            if type(effect) is not Persist:
                self._act(effect)

    def _dies_at(self, step: str, entries: Sequence[PutEntry]) -> bool:
        truth = self.world.federation.truth
        hit = False
        if self.cut_step.endswith("." + step):
            wanted = self.cut_step.partition(".")[0]
            own = [self.world.federation.codec.read(put.raw).type for put in entries
                   if put.place.seat == self.seat]  # fmt: skip
            hit = wanted in own
        if not hit and self.cut_at and self.write >= self.cut_at:
            # Odd transactions die before they are durable, even ones after.
            hit = (self.cut_at % 2 == 1) == (step == "persisted")
        if hit:
            self.cut_at, self.cut_step = 0, ""
            before = step == "persisted"
            truth.meet("crash-before-commit" if before else "crash-after-commit")
            self.stop(f"power cut, {'before' if before else 'after'} a write was durable")
        return hit

    def _failed(self, event: Event | None) -> None:
        self.world.federation.truth.meet("write-failed")
        self._given_up(event)

    def _given_up(self, event: Event | None) -> None:
        match event:
            case Told(ticket):
                self._answer(Answer(ticket, refusal=NotYet("the disk has failed")))
            case Heard(link) | Received(link) if link in self.links:
                self.world.unlink(self.links[link])
        self.rebuild()

    # --- effects ----------------------------------------------------------------------

    def _act(self, effect: Effect) -> None:
        match effect:
            case Send(link, message):
                self._send(link, message)
            case Stream():
                self._stream(effect)
            case SetTimer(timer, None):
                self.timers.pop(timer, None)
            case SetTimer(timer, at) if at is not None:
                self.timers[timer] = at
                due = (at - START_MS - self.skew) * MS
                self.engine.at(due, self._fire, (timer, at, self.life))
            case Answer():
                self._answer(effect)
            case Run(id_, job):
                done = Done(id_, codes(job, Cost.TOY))
                self.engine.at(self.engine.now + COMPUTES, self._computed, (done, self.life))
            case DropLink(link):
                self._drop(link)
            case Rebuild():
                self.rebuild()

    def _fire(self, about: tuple[str, int, int]) -> None:
        timer, at, life = about
        if life == self.life and self.timers.get(timer) == at:
            if self.clock() < at:  # the clock was set back meanwhile
                self.engine.at((at - START_MS - self.skew) * MS, self._fire, about)
                return
            del self.timers[timer]
            self.handle(TimerFired(timer))

    def _computed(self, about: tuple[Done, int]) -> None:
        if about[1] == self.life:
            self.handle(about[0])

    def _answer(self, answer: Answer) -> None:
        if answer.ticket not in self.waiting:
            return
        task = self.waiting.pop(answer.ticket)
        if task is None:
            self.answers[answer.ticket] = answer
        else:
            value = answer.refusal if answer.refusal is not None else answer.body
            self.engine.at(self.engine.now, task.step, value)

    def _send(self, link: int, message: Message) -> None:
        if link in self.wallets:
            self.wallets[link].append(message)
        elif link in self.links:
            self.world.carry(self, self.links[link], message)

    def _stream(self, effect: Stream) -> None:
        if effect.link not in self.links:
            return
        raws = []
        for seq in range(effect.first, effect.last + 1):
            raw = self.ledger.entry(Place(effect.seat, effect.incarnation, seq))
            if raw is None:
                break
            raws.append(raw)
        fields = {"seat": effect.seat, "incarnation": effect.incarnation, "first": effect.first,
                  "raws": raws, "check": effect.check}  # fmt: skip
        self.world.carry(self, self.links[effect.link], Message("entries", fields))

    def _drop(self, link: int) -> None:
        if link in self.links:
            self.world.unlink(self.links[link], BANNED)
        elif self.wallets.pop(link, None) is not None:
            self.handle(LinkDown(link))

    # --- what arrives -----------------------------------------------------------------

    def receive(self, wire: Wire, message: Message) -> None:
        link = wire.end_at(self)
        if link not in self.links:
            return
        if message.kind != "entries":
            self.handle(Received(link, message))
            return
        try:
            batch = read_batch(message.fields)
            batch = batch.after(self.heads.get(batch.log, 0))
            good: list[Any] = []
            for read in verify_all(self.world.verifier, batch.raws):
                if isinstance(read, Malformed):
                    raise read
                good.append(read)
        except Malformed:
            self.world.unlink(wire, BANNED)
            return
        if good:
            self.handle(Heard(link, tuple(good), batch.check))


class FastFederation:
    """One federation on an engine: nodes, links, and the stage of its people."""

    def __init__(self, engine: Engine, federation: Federation) -> None:
        self.engine = engine
        self.federation = federation
        self.network = federation.scenario.network
        self.cuts: dict[tuple[Seat, Seat], int] = {}
        self.slow: dict[tuple[Seat, Seat], int] = {}  # ms on top, by link
        self.verifier: Any = federation.codec
        if federation.scenario.federation["suite"] == "shared":
            self.verifier = SharedVerifier(federation.codec)
        self.nodes = [Node(self, seat) for seat in range(federation.scenario.guardians)]
        self.links = 0
        self._latency: dict[tuple[Any, Any], int] = {}
        self._tickets = 0
        self._dials: dict[tuple[Seat, Seat], int] = {}
        self._requests: dict[tuple[str, Seat], int] = {}
        self.tasks: list[Task] = []
        federation.stage = self

    # --- links ------------------------------------------------------------------------

    def latency(self, a: Seat | str, b: Seat | str) -> int:
        """Nanoseconds one way, the same for both."""
        key = (a, b) if str(a) < str(b) else (b, a)
        if key not in self._latency:
            median, sigma = self.network["latency"]
            drawn = Draw(self.federation.seed, "latency", self.federation.number, *key)
            self._latency[key] = drawn.lognormal(median * MS, sigma)
        return self._latency[key]

    def linkable(self, node: Node) -> None:
        for other in self.nodes:
            if other is not node:
                self._dial(node.seat, other.seat)

    def _dial(self, a: Seat, b: Seat, wait: int = 0) -> None:
        pair = (min(a, b), max(a, b))
        nth = self._dials[pair] = self._dials.get(pair, 0) + 1
        draw = Draw(self.federation.seed, "wire", self.federation.number, *pair, nth)
        due = self.engine.now + wait + 4 * self.latency(a, b) + draw.below(REDIAL)
        self.engine.at(due, self._link, (*pair, nth, draw))

    def _link(self, about: tuple[Seat, Seat, int, Draw]) -> None:
        one, other, nth, draw = about
        a, b = self.nodes[one], self.nodes[other]
        stands = any(wire.far(a) is b for wire in a.links.values())
        stale = self._dials[one, other] != nth
        if stale or stands or not (a.on and b.on) or self.severed(one, other):
            return
        if self.severed(other, one):
            return
        self.links += 2
        wire = Wire(a, b, (self.links - 1, self.links), draw)
        a.links[wire.ends[0]] = b.links[wire.ends[1]] = wire
        a.handle(LinkUp(wire.ends[0], other))
        b.handle(LinkUp(wire.ends[1], one))

    def unlink(self, wire: Wire, wait: int = 0) -> None:
        """End a link at both ends; they dial again after a while."""
        for node in (wire.a, wire.b):
            link = wire.end_at(node)
            if node.links.pop(link, None) is not None and node.on:
                node.handle(LinkDown(link))
        self._dial(wire.a.seat, wire.b.seat, wait)

    def severed(self, source: Seat, target: Seat) -> bool:
        return (source, target) in self.cuts

    def carry(self, source: Node, wire: Wire, message: Message) -> None:
        """Put a message on its way; what one side sends arrives in order."""
        self.federation.truth.messages += message.kind != "ping"
        target = wire.far(source)
        base = self.latency(source.seat, target.seat)
        delay = base + base * wire.draw.exponential(1 << 16) * self.network["jitter"] // (
            1_000_000 << 16
        )
        delay += self.slow.get((source.seat, target.seat), 0) * MS
        if self.network["loss"] and wire.draw.chance(self.network["loss"]):
            delay += max(200 * MS, 2 * base) << wire.draw.below(3)  # sent again, a while later
        if self.network["straggler"] and wire.draw.chance(self.network["straggler"]):
            delay += wire.draw.below(self.network["straggler-takes"] * MS + 1)
        due = max(self.engine.now + delay, wire.due[target.seat] + 1)
        wire.due[target.seat] = due
        self.engine.at(due, self._arrive, (wire, target, message))

    def _arrive(self, about: tuple[Wire, Node, Message]) -> None:
        wire, target, message = about
        if wire.held or self.severed(wire.far(target).seat, target.seat):
            if not wire.held:
                self.engine.at(self.engine.now + GIVE_UP, self._give_up, wire)
            wire.held.append((target, message))
            return
        target.receive(wire, message)

    def _give_up(self, wire: Wire) -> None:
        if wire.held:
            wire.held.clear()
            self.unlink(wire)

    # --- what faults do ---------------------------------------------------------------

    def cut(self, source: Seat, target: Seat) -> None:
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1

    def heal(self, source: Seat, target: Seat) -> None:
        left = self.cuts.pop((source, target), 0) - 1
        if left > 0:
            self.cuts[source, target] = left
            return
        a, b = self.nodes[source], self.nodes[target]
        for wire in list(a.links.values()):
            if wire.far(a) is b:
                held, wire.held = wire.held, []
                for node, message in held:
                    self.engine.at(self.engine.now, self._arrive, (wire, node, message))
                return
        self._dial(source, target)

    def reset(self, a: Seat, b: Seat) -> None:
        for wire in list(self.nodes[a].links.values()):
            if wire.far(self.nodes[a]) is self.nodes[b]:
                self.unlink(wire)

    # --- the stage --------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.engine.now // MS

    async def until(self, at: int) -> None:
        engine = self.engine
        await _park(lambda task: engine.at(at * MS, task.step, None))

    async def tell(self, seat: Seat, verb: str, args: Mapping[str, Any]) -> Any:
        node = self.nodes[seat]
        if not node.on:
            raise Dark
        self._tickets += 1
        ticket = self._tickets
        node.waiting[ticket] = None
        node.handle(Told(ticket, Command(verb, args)))
        if ticket in node.answers:
            answer = node.answers.pop(ticket)
            if answer.refusal is not None:
                raise answer.refusal
            return answer.body
        if ticket not in node.waiting:
            raise Dark  # the power went while it was deciding

        def wait(task: Task) -> None:
            node.waiting[ticket] = task

        return await _park(wait)

    async def exchange(
        self, place: str, seat: Seat, kind: str, fields: Mapping[str, Any], linger: int
    ) -> Sequence[Message]:
        engine, node = self.engine, self.nodes[seat]
        way = self.latency(place, seat)
        await self._sleep(5 * way)
        if not node.on:
            await self._sleep(TIMEOUT)
            raise Dark
        self.links += 1
        link, life, heard = self.links, node.life, list[Message]()
        node.wallets[link] = heard
        node.handle(LinkUp(link, None))
        node.handle(Received(link, Message(kind, {**fields, "request": 1})))
        await self._sleep(way + linger * MS)
        if node.life == life and node.wallets.pop(link, None) is not None:
            node.handle(LinkDown(link))
        engine.trace("wallet", engine.now, place, seat, kind, len(heard))
        return _answered(heard)

    async def _sleep(self, span: int) -> None:
        engine = self.engine
        due = engine.now + span
        await _park(lambda task: engine.at(due, task.step, None))

    def start(self, script: Coroutine[Any, Any, None], name: str) -> None:
        task = Task(script, name)
        self.engine.at(self.engine.now, task.step, None)


def _answered(heard: Sequence[Message]) -> Sequence[Message]:
    for index, message in enumerate(heard):
        if message.kind == "reply":
            return [message, *heard[:index], *heard[index + 1 :]]
        if message.kind == "refusal":
            raise Refusal(str(message.fields["sentence"]), str(message.fields["kind"]))
    raise Dark


class SharedVerifier:
    """Verify each statement once for the whole federation: same answer, a tenth of the time."""

    def __init__(self, codec: Any, keep: int = 4096) -> None:
        self._codec = codec
        self._keep = keep
        self._known: dict[bytes, Any] = {}

    def verify(self, raw: bytes) -> Any:
        known = self._known.get(raw)
        if known is None:
            known = self._codec.verify(raw)
            if len(self._known) >= self._keep:
                del self._known[next(iter(self._known))]
            self._known[raw] = known
        return known
