"""One node, whatever world it runs in: a core, its store, its links, its timers and people.

Nothing here decides anything. Events go to the driver, effects come back from it and are
handed to whoever performs them. The composition root gives it ports made of sockets, files
and threads; a simulation, ports made of one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog
import trio

from node.dialer import Dialer, Missing
from node.driver import Driver, Step
from node.greeting import Hello
from node.links import Links
from node.ports import Clock, Entropy, Human, Store, StoreFull, Transport, Verifier, Workers
from node.timers import Timers
from protocol.contract import (
    Answer,
    Changed,
    Command,
    Core,
    Deliver,
    Dial,
    Done,
    DropLink,
    Effect,
    Event,
    Heard,
    Job,
    Ledger,
    LinkId,
    LinkUp,
    Notify,
    PutEntry,
    Receive,
    Received,
    Run,
    Seat,
    Send,
    SetTimer,
    Stream,
    Table,
    TimerFired,
    Told,
    Trust,
)
from protocol.errors import HoldfastError, NotYet
from protocol.limits import MINUTE
from protocol.statements import NOWHERE, Codec

FEDERATION: Final = b"federation"  # the row of META that holds the federation's id
ASKS_MAX: Final = 64  # commands without an answer: several people's browsers, and a script
NOTICES_MAX: Final = 64  # rings that wait for the network: beyond, a person knows already
JOBS_MAX: Final = 64  # computations under way or waiting: each takes up to a second
TIMER_HELD: Final = 10 * MINUTE  # after a timer's event failed, so that it does not fail at once

Jobs = Mapping[type, Callable[[Any], Any]]

log = structlog.get_logger("node.machine")


class Node:
    """A guardian's node. Run it once; it keeps its store open until it has run."""

    def __init__(
        self,
        make_core: Callable[[Ledger], Core],
        *,
        store: Store,
        transport: Transport,
        clock: Clock,
        entropy: Entropy,
        workers: Workers,
        human: Human,
        jobs: Jobs,
        software: str,
        codec: Callable[[bytes], Verifier] = Codec,
        step: Step = lambda name: None,
    ) -> None:
        """`jobs` computes each type of job; `codec` verifies for the federation of an id.

        `software` is the name and version that other nodes see; `step` as in `Driver`.
        """
        self._make_core = make_core
        self._store = store
        self._transport = transport
        self._clock = clock
        self._workers = workers
        self._human = human
        self._jobs = jobs
        self._software = software
        self._driver = Driver(self._make, store, clock, entropy, workers, self, step)
        self._links = Links(self._driver, store, workers, codec)
        self._dialer = Dialer(transport, self._links, clock, entropy)
        self._timers = Timers(clock, self._fire)
        self._federation: bytes | None = None
        self._asked = 0
        self._answers: dict[int, trio.MemorySendChannel[Answer]] = {}
        self._life = 0  # of the core: results of jobs that a former one wanted are dropped
        self._running = 0
        self._unfit: dict[str, None] = {}  # jobs whose result the core failed on
        self._work: trio.Nursery | None = None
        self._ring, self._rings = trio.open_memory_channel[Notify](NOTICES_MAX)
        self._stopping = trio.Event()
        self._stopped = trio.Event()

    # --- what the composition root calls -----------------------------------------------

    async def run(self, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `stop`, then checkpoint and close the store.

        Starts with what `Transport.serve` started with. Raises when the store fails or holds
        what no core can be built from; cancelled, it leaves everything as a power cut would.
        """
        for head in await self._workers.store(self._store.heads):
            self._links.heads[head.seat, head.incarnation] = head.seq
        async with trio.open_nursery() as nursery:
            self._work = nursery
            await self._driver.start()
            nursery.start_soon(self._driver.run)
            nursery.start_soon(self._timers.run)
            nursery.start_soon(self._notify)
            nursery.start_soon(self._dialer.run)
            bound = await nursery.start(self._transport.serve, self._serve)
            task_status.started(bound)
            await self._stopping.wait()
            self._dialer.set(())
            await self._links.close("this guardian's node is going down")
            await self._driver.drained()
            for ticket in list(self._answers):
                self.act(Answer(ticket, refusal=NotYet("this guardian's node is going down")))
            nursery.cancel_scope.cancel()
        await self._workers.store(self._store.checkpoint)
        await self._workers.store(self._store.close)
        self._stopped.set()

    async def stop(self) -> None:
        """Take no more, finish what has come in, make it durable, and return."""
        self._stopping.set()
        await self._stopped.wait()

    async def ask(self, verb: str, **args: Any) -> Any:
        """Put a person's command to the core; its answer. Raises the refusal it gives."""
        if self._stopping.is_set():
            raise NotYet("this guardian's node is going down")
        if len(self._answers) >= ASKS_MAX:
            raise NotYet(
                f"{ASKS_MAX} commands wait for an answer already", hint="try again in a moment"
            )
        self._asked += 1
        ticket = self._asked
        self._answers[ticket], answered = trio.open_memory_channel[Answer](1)
        try:
            self._driver.put_first(Told(ticket, Command(verb, args)))
            answer = await answered.receive()
        finally:
            self._answers.pop(ticket, None)
        if answer.refusal is not None:
            raise answer.refusal
        return answer.body

    async def rebuild(self) -> None:
        """Build the core anew, with whatever keys `make_core` now uses."""
        await self._driver.rebuild()

    def missing(self) -> list[Missing]:
        """The neighbours we want a link with and have none."""
        return self._dialer.missing()

    @property
    def commits(self) -> int:
        """Transactions so far that had an event in them."""
        return self._driver.commits

    # --- what the driver calls ---------------------------------------------------------

    def _make(self, ledger: Ledger) -> Core:
        """On the store thread. The federation is read here, beside what the core reads."""
        self._federation = ledger.get(Table.META, FEDERATION)
        return self._make_core(ledger)

    def restarted(self) -> None:
        self._life += 1
        self._timers.clear()
        self._links.forget_transfers()
        hello = Hello(self._software, self._federation or NOWHERE)
        self._links.introduce(hello, federated=self._federation is not None)

    def seat_of(self, link: LinkId) -> Seat | None:
        return self._links.seat_of(link)

    def committed(self, entries: Sequence[PutEntry]) -> None:
        for entry in entries:
            self._links.committed(entry.place, entry.raw)

    def act(self, effect: Effect) -> None:
        match effect:
            case Send() | Stream() | Deliver():
                self._send(effect)
            case Answer(ticket):
                if (waiting := self._answers.pop(ticket, None)) is not None:
                    waiting.send_nowait(effect)
            case SetTimer(name, at):
                self._timers.set(name, at)
            case Changed(topic, id):
                self._human.changed(topic, id)
            case Notify():
                self._announce(effect)
            case Run(id, job):
                self._start(id, job)
            case Receive():
                self._links.receive(effect)
            case DropLink():
                self._links.drop(effect)
            case Dial(peers):
                self._dialer.set(peers)
            case Trust(transports):
                self._transport.retrust([(key, sign) for _, key, sign in transports])
                self._links.trust({key: seat for seat, key, _ in transports})
            case _:
                raise TypeError(f"{type(effect).__name__} is not for the world to perform")

    def failed(self, event: Event, error: Exception) -> None:
        full = isinstance(error, StoreFull)
        match event:
            case Told(ticket):
                known = isinstance(error, HoldfastError)
                self.act(Answer(ticket, refusal=error if known else _bug()))
            case Heard(link) | Received(link) | LinkUp(link):
                # A neighbour whose entries found no room sends them again when there is some.
                if not full or self._links.seat_of(link) is None:
                    self._links.drop(DropLink(link, str(error) if full else _FAULT, not full))
            case TimerFired(timer):
                self._timers.hold(timer, self._clock.now() + TIMER_HELD)
            case Done(id):
                self._unfit[id] = None

    # --- effects -----------------------------------------------------------------------

    def _send(self, effect: Send | Stream | Deliver) -> None:
        link = self._links.get(effect.link)
        if link is None:
            return
        fits = True
        match effect:
            case Stream():
                link.out.stream(effect)
            case Deliver():
                fits = link.out.deliver(effect)
            case Send(_, message):
                try:
                    fits = link.out.post(message)
                except (TypeError, ValueError):
                    log.exception("message cannot be sent", kind=message.kind)
        if not fits:
            self._links.drop(
                DropLink(link.id, "the other side does not take what it is sent", True)
            )

    def _announce(self, notice: Notify) -> None:
        try:
            self._ring.send_nowait(notice)
        except trio.WouldBlock:
            log.warning("notice not sent", notice=notice.notice)

    async def _notify(self) -> None:
        async for notice in self._rings:
            try:
                await self._human.notify(notice)
            except Exception:
                log.exception("notice not sent", notice=notice.notice)

    def _start(self, id: str, job: Job) -> None:
        if self._work is None or id in self._unfit:
            log.error("job not begun", job=id)
        elif self._running >= JOBS_MAX:
            self._driver.put_first(Done(id, error="this node has too much to compute just now"))
        else:
            self._running += 1
            self._work.start_soon(self._compute, id, job, self._life)

    async def _compute(self, id: str, job: Job, life: int) -> None:
        try:
            result = await self._workers.compute(partial(self._jobs[type(job)], job))
            done = Done(id, result=result)
        except HoldfastError as error:
            done = Done(id, error=str(error))
        except Exception:
            log.exception("job failed", job=id)
            done = Done(id, error=_FAULT)
        self._running -= 1
        if life == self._life:
            self._driver.put_first(done)

    def _fire(self, timer: str) -> None:
        self._driver.put_first(TimerFired(timer))

    async def _serve(self, stream: trio.abc.Stream, key: bytes | None) -> None:
        await self._links.serve(stream, key)


_FAULT: Final = "something went wrong inside this guardian's node, and nothing was changed"


def _bug() -> RuntimeError:
    return RuntimeError(_FAULT)
