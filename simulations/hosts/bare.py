"""Bare cores that talk through a queue: conversations between machines, without sockets.

Time moves only when told. What is in flight can be shuffled, doubled and dropped by a
seeded generator, and any core can crash and come back from its ledger at any event.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol.contract import (
    Answer,
    Command,
    Core,
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
    PutRow,
    Rebuild,
    Received,
    Run,
    Send,
    SetTimer,
    Stream,
    Table,
    TimerFired,
    Told,
    Verified,
)
from protocol.custody import Settings
from protocol.federation import Signed, draft, introduce, sign_roster
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.guardian import GuardianCore, Keys, open_core
from protocol.keys import SealingKey, SigningKey
from protocol.sealing import Cost
from protocol.statements import Codec
from protocol.verbs import codes
from simulations.hosts.memory import MemoryLedger

START = 1_800_000_000_000  # ms; any moment will do


@dataclass
class Host:
    """One guardian: its keys, its ledger, its core, its links."""

    name: str
    introduction: Verified
    keys: Keys
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    core: Core | None = None
    links: dict[int, tuple[int, int]] = field(default_factory=dict)  # link -> host, its link
    timers: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)

    @property
    def guardian(self) -> GuardianCore:
        assert isinstance(self.core, GuardianCore)
        return self.core


def make_host(name: str, number: int, now: int = START) -> Host:
    """A guardian with keys derived from its number."""
    seeds = [bytes([kind, number]) * 16 for kind in range(3)]
    identity, transport = SigningKey(seeds[0]), SigningKey(seeds[2])
    sealing = SealingKey(seeds[1])
    introduction = introduce(
        identity,
        name=name,
        sealing=sealing.public,
        transport=transport.public,
        certificate=transport.sign(b"certificate"),
        address=f"{name}.example:7001",
        contact="",
        languages=["en"],
        hours="",
        now=now,
    )
    return Host(name, introduction, Keys(identity, (sealing,)))


class Bare:
    """A federation of bare cores, founded at once, in one thread."""

    def __init__(
        self,
        names: tuple[str, ...] = ("ada", "ben", "cleo", "dev", "eve"),
        threshold: int = 3,
        *,
        seed: int = 0,
        settings: Settings | None = None,
        waiting: int = 0,
    ) -> None:
        self.rng = random.Random(seed)
        self.now = START
        self.settings = settings or Settings()
        self.hosts = [make_host(name, number) for number, name in enumerate(names)]
        self.roster = draft(
            "Elm Street",
            threshold,
            [host.introduction for host in self.hosts],
            now=START,
            nonce=bytes(16),
            waiting_default=waiting,
        )
        self.codec = Codec(self.roster.id)
        signatures = [sign_roster(host.keys.identity, self.roster) for host in self.hosts]
        self.signed = Signed(self.roster, tuple(one.raw[-64:] for one in signatures))
        self.queue: list[tuple[int, Event]] = []
        self.answers: dict[int, Answer] = {}
        self.heard: dict[int, list[Message]] = {}  # by a wallet's link
        self.notices: list[tuple[str, Any]] = []
        self.wallets: dict[int, int] = {}
        self._numbered = 0
        for host in self.hosts:
            host.ledger.apply(PutRow(Table.META, ROSTER_KEY, self.signed.to_bytes()))
            host.ledger.apply(PutRow(Table.META, FEDERATION_KEY, self.roster.id))
        for number in range(len(self.hosts)):
            self.boot(number)

    # --- cores and links --------------------------------------------------------------

    def boot(self, number: int, *, locked: bool = False) -> None:
        """Build a core from its ledger, as after a crash; its links are gone."""
        host = self.hosts[number]
        for link, (other, theirs) in list(host.links.items()):
            self._unlink(other, theirs)
            host.links.pop(link)
        host.timers.clear()
        self.queue = [(to, event) for to, event in self.queue if to != number]
        keys = None if locked else host.keys
        host.core = open_core(host.ledger, host.introduction, keys, self.settings)
        self._perform(number, list(host.core.resume(self._moment())))

    def kill(self, number: int) -> None:
        """Take a node off for good."""
        self.boot(number)
        self.hosts[number].core = None
        self.hosts[number].timers.clear()

    def _unlink(self, number: int, link: int) -> None:
        if self.hosts[number].links.pop(link, None) is not None:
            self.queue.append((number, LinkDown(link)))

    def link(self, one: int, other: int) -> None:
        """Bring up a link between two guardians."""
        self._numbered += 2
        here, there = self._numbered, self._numbered + 1
        self.hosts[one].links[here] = (other, there)
        self.hosts[other].links[there] = (one, here)
        self.queue.append((one, LinkUp(here, other)))
        self.queue.append((other, LinkUp(there, one)))

    def mesh(self) -> None:
        """Link everyone who is on to everyone."""
        alive = [number for number, host in enumerate(self.hosts) if host.core is not None]
        for one in alive:
            for other in alive:
                linked = [peer for peer, _ in self.hosts[one].links.values()]
                if one < other and other not in linked:
                    self.link(one, other)

    def wallet(self, number: int) -> int:
        """A wallet's link to a guardian; its number."""
        self._numbered += 2
        link = self._numbered
        self.wallets[link] = number
        self.heard[link] = []
        self.queue.append((number, LinkUp(link, None)))
        return link

    def request(self, link: int, kind: str, /, **fields: Any) -> Mapping[str, Any]:
        """Send a request over a wallet's link, run, and return the last answer to it."""
        self._numbered += 1
        message = Message(kind, {**fields, "request": self._numbered})
        self.queue.append((self.wallets[link], Received(link, message)))
        self.run()
        answers = [
            heard
            for heard in self.heard[link]
            if heard.kind in ("reply", "refusal") and heard.fields["request"] == self._numbered
        ]
        return {"kind": answers[-1].kind, **answers[-1].fields}

    def tell(self, number: int, verb: str, /, **args: Any) -> Any:
        """Let a guardian's person say something; the answer, or raises the refusal."""
        self._numbered += 1
        ticket = self._numbered
        self.queue.append((number, Told(ticket, Command(verb, args))))
        self.run()
        answer = self.answers.pop(ticket)
        if answer.refusal is not None:
            raise answer.refusal
        return answer.body

    # --- time -------------------------------------------------------------------------

    def _moment(self) -> Moment:
        return Moment(self.now, self.rng.randbytes(32))

    def run(self, pick: Callable[[int], int] | None = None) -> None:
        """Deliver what is in flight until nothing is; `pick` chooses what comes next."""
        steps = 0
        while self.queue:
            steps += 1
            assert steps < 200_000, "the cores talk without end"
            number, event = self.queue.pop(pick(len(self.queue)) if pick else 0)
            self._step(number, event)

    def _step(self, number: int, event: Event) -> None:
        core = self.hosts[number].core
        if core is not None:
            self._perform(number, list(core.handle(self._moment(), event)))

    def pass_time(self, ms: int) -> None:
        """Let time pass, firing timers in order; of the periodic pings only the last."""
        end = self.now + ms
        while True:
            self.run()
            due = [
                (end if name == "ping" else at, number, name)
                for number, host in enumerate(self.hosts)
                for name, at in host.timers.items()
                if at <= end
            ]
            if not due:
                break
            at, number, name = min(due)
            self.now = max(self.now, at)
            del self.hosts[number].timers[name]
            self._step(number, TimerFired(name))
        self.now = end

    # --- effects ----------------------------------------------------------------------

    def _perform(self, number: int, effects: list[Effect]) -> None:
        host = self.hosts[number]
        for effect in effects:
            match effect:
                case Persist(change):
                    host.ledger.apply(change)
                case Send(link, message):
                    self._send(number, link, message)
                case Stream():
                    self._stream(number, effect)
                case Answer(ticket):
                    self.answers[ticket] = effect
                case SetTimer(timer, None):
                    host.timers.pop(timer, None)
                case SetTimer(timer, at) if at is not None:
                    host.timers[timer] = at
                case Run(id_, job):
                    self.queue.append((number, Done(id_, codes(job, Cost.TOY))))
                case DropLink(link, reason):
                    host.dropped.append(reason)
                    other = host.links.pop(link, None)
                    self.queue.append((number, LinkDown(link)))
                    if other is not None:
                        self._unlink(*other)
                case Rebuild():
                    host.core = open_core(host.ledger, host.introduction, host.keys, self.settings)
                    self._perform(number, list(host.core.resume(self._moment())))
                case _:
                    self.notices.append((host.name, effect))

    def _send(self, number: int, link: int, message: Message) -> None:
        if link in self.heard:
            self.heard[link].append(message)
        elif link in self.hosts[number].links:
            other, theirs = self.hosts[number].links[link]
            self.queue.append((other, Received(theirs, message)))

    def _stream(self, number: int, effect: Stream) -> None:
        host = self.hosts[number]
        if effect.link not in host.links:
            return
        other, theirs = host.links[effect.link]
        entries = []
        for seq in range(effect.first, effect.last + 1):
            raw = host.ledger.entry(Place(effect.seat, effect.incarnation, seq))
            assert raw is not None, "a range was streamed that is not in the ledger"
            entries.append(self.codec.verify(raw))
        self.queue.append((other, Heard(theirs, tuple(entries), effect.check)))
