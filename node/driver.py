"""The one task that owns the core and writes the store.

It takes everything that waits, opens one transaction on the store thread, calls `handle` for
each event there, and applies each `Persist` at once, so that the core's ledger shows changes
not yet committed. After the commit the other effects are performed on the loop, in order.
Rules:

1. No effect of a batch is performed unless the batch is durable.
2. Whatever goes wrong voids the batch and the core: a new one is built from the ledger, the
   links it should know are announced to it, and the events are tried singly. An event that
   fails alone is given up, and the world outside told.
3. The driver never waits for a link. People and timers have a lane of their own, so that
   nobody waits behind gossip.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import structlog
import trio

from node.ports import Clock, Entropy, Store, StoreFailed, StoreFull, Transaction, Workers
from protocol.contract import (
    Answer,
    Core,
    Effect,
    Event,
    Ledger,
    LinkDown,
    LinkId,
    LinkUp,
    Moment,
    Persist,
    PutEntry,
    Rebuild,
    Seat,
    Told,
)
from protocol.errors import NotYet

# Statements in one transaction. A thousand spread the cost of a flush to nothing and are
# decided in a tenth of a second, which is how long a person may have to wait.
BATCH_MAX: Final = 1024
SEED_BYTES: Final = 32
STARTED_ANEW: Final = "this guardian's node had to start anew before it could answer"

Step: TypeAlias = Callable[[str], None]

log = structlog.get_logger("node.driver")


class World(Protocol):
    """What the driver tells the rest of the node. Every call returns at once."""

    def restarted(self) -> None:
        """The core is new: forget the timers, jobs, transfers and tickets of the former."""
        ...

    def seat_of(self, link: LinkId) -> Seat | None: ...
    def committed(self, entries: Sequence[PutEntry]) -> None: ...
    def act(self, effect: Effect) -> None: ...
    def failed(self, event: Event, error: Exception) -> None:
        """The event cannot be handled and was given up."""
        ...


@dataclass(slots=True)
class Item:
    """An event that waits. `weight` counts its statements; `taken` gives back their credit."""

    event: Event
    weight: int = 1
    taken: Callable[[], None] | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a batch: effects to perform, entries written, and how far it got."""

    effects: list[Effect] = field(default_factory=list)
    entries: list[PutEntry] = field(default_factory=list)
    handled: int = 0
    rebuild: bool = False

    def add(self, effects: Iterable[Effect], transaction: Transaction) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                transaction.apply(effect.change)
                if isinstance(effect.change, PutEntry):
                    self.entries.append(effect.change)
            elif isinstance(effect, Rebuild):
                self.rebuild = True
            else:
                self.effects.append(effect)


class Driver:
    """Feed one core from two lanes, and see to what it wants done."""

    def __init__(
        self,
        make_core: Callable[[Ledger], Core],
        store: Store,
        clock: Clock,
        entropy: Entropy,
        workers: Workers,
        world: World,
        step: Step = lambda name: None,
    ) -> None:
        """`step` is called at 'persisted', 'committed' and 'acted', for tests of crashes.

        To stop the node there, let it raise a BaseException that is no Exception.
        """
        self._make_core = make_core
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._workers = workers
        self._world = world
        self._step = step
        self._core: Core
        self._people: deque[Item] = deque()
        self._gossip: deque[Item] = deque()
        self._again: deque[Item] = deque()  # before everything else: what a rebuild put off
        self._links: dict[LinkId, None] = {}  # those the core has been told of
        self._told: dict[int, None] = {}  # commands the core has heard and not answered yet
        self._last = 0
        self._stale = False  # somebody asked for a new core
        self._busy = False
        self._work = trio.lowlevel.ParkingLot()
        self._rest = trio.lowlevel.ParkingLot()
        self.commits = 0
        self.events = 0

    # --- what others call --------------------------------------------------------------

    def put(self, event: Event, weight: int = 1, taken: Callable[[], None] | None = None) -> None:
        """Queue what a link brought. Whoever calls has a limit on what it may leave here."""
        self._gossip.append(Item(event, weight, taken))
        self._work.unpark_all()

    def put_first(self, event: Event) -> None:
        """Queue what a person or a timer brought, ahead of every link."""
        self._people.append(Item(event))
        self._work.unpark_all()

    async def rebuild(self) -> None:
        """Have a new core built, as after a restart, and return when it decides."""
        self._stale = True
        self._work.unpark_all()
        while self._stale:
            await self._rest.park()

    async def drained(self) -> None:
        """Return when nothing waits and everything decided has been performed."""
        while self._busy or self._waiting():
            await self._rest.park()

    async def start(self) -> None:
        """Build the first core. Raises what the store or the core raises."""
        await self._build()

    async def run(self) -> None:
        """Drive until cancelled. Raises when the store fails or no core can be built."""
        while True:
            while not (self._stale or self._waiting()):
                self._busy = False
                self._rest.unpark_all()
                await self._work.park()
            self._busy = True
            if self._stale:
                await self._build()
                self._stale = False
                self._rest.unpark_all()
            if batch := self._take():
                await self._decide(batch)

    # --- one batch ---------------------------------------------------------------------

    def _waiting(self) -> bool:
        return bool(self._again or self._people or self._gossip)

    def _take(self) -> list[Item]:
        batch: list[Item] = []
        weight = 0
        for lane in (self._again, self._people, self._gossip):
            while lane and weight < BATCH_MAX:
                item = lane.popleft()
                weight += item.weight
                batch.append(item)
                if item.taken is not None:
                    item.taken()
                    item.taken = None
        return batch

    async def _decide(self, batch: list[Item]) -> None:
        try:
            outcome = await self._transact(batch)
        except Exception:
            log.exception("events voided", events=len(batch))
            await self._singly(batch)
        else:
            await self._perform(batch, outcome)

    async def _singly(self, batch: list[Item]) -> None:
        """Try the events of a voided batch one by one, each in a transaction of its own."""
        self._again.extendleft(reversed(batch))
        await self._build()
        for _ in range(len(self._again)):
            item = self._again.popleft()
            try:
                outcome = await self._transact([item])
            except Exception as error:
                if isinstance(error, StoreFailed) and not isinstance(error, StoreFull):
                    raise  # the disk's fault, not the event's: nothing can be decided now
                log.exception("event given up", event_type=type(item.event).__name__)
                self._forget(item.event)
                self._world.failed(item.event, error)
                await self._build()
                return  # what is left stands in front of the lanes
            await self._perform([item], outcome)

    def _forget(self, event: Event) -> None:
        if isinstance(event, (LinkUp, LinkDown)):
            self._links.pop(event.link, None)

    async def _transact(self, batch: Sequence[Item]) -> Outcome:
        stamped = [(self._moment(), item.event) for item in batch]

        def work(transaction: Transaction) -> Outcome:
            outcome = Outcome()
            for moment, event in stamped:
                outcome.add(self._core.handle(moment, event), transaction)
                outcome.handled += 1
                if outcome.rebuild:
                    break
            self._step("persisted")
            return outcome

        return await self._workers.store(lambda: self._store.transact(work))

    async def _perform(self, batch: Sequence[Item], outcome: Outcome) -> None:
        self.commits += 1
        self.events += outcome.handled
        for item in batch[: outcome.handled]:
            match item.event:
                case LinkUp(link):
                    self._links[link] = None
                case LinkDown(link):
                    self._links.pop(link, None)
                case Told(ticket):
                    self._told[ticket] = None
        self._again.extendleft(reversed(batch[outcome.handled :]))
        self._act(outcome)
        if outcome.rebuild:
            await self._build()

    def _act(self, outcome: Outcome) -> None:
        self._world.committed(outcome.entries)
        self._step("committed")
        for effect in outcome.effects:
            if isinstance(effect, Answer):
                self._told.pop(effect.ticket, None)
            self._world.act(effect)
        self._step("acted")

    # --- a new core --------------------------------------------------------------------

    async def _build(self) -> None:
        """Build the core, have it resume, and put the links it must know in front."""
        moment = self._moment()

        def work(transaction: Transaction) -> tuple[Core, Outcome]:
            core, outcome = self._make_core(transaction.ledger), Outcome()
            outcome.add(core.resume(moment), transaction)
            self._step("persisted")
            return core, outcome

        self._core, outcome = await self._workers.store(lambda: self._store.transact(work))
        self._world.restarted()
        for ticket in self._told:
            self._world.act(Answer(ticket, refusal=NotYet(STARTED_ANEW, hint="ask once more")))
        self._told.clear()
        self._act(outcome)
        known = [Item(LinkUp(link, self._world.seat_of(link))) for link in self._links]
        self._links.clear()
        self._again.extendleft(reversed(known))

    def _moment(self) -> Moment:
        self._last = max(self._last, self._clock.now())
        return Moment(self._last, self._entropy.draw(SEED_BYTES))
