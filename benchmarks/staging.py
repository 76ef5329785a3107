"""Federations made for measuring: keys from numbers, rows written straight into a store.

Nodes are those that people run, with sockets, threads and a disk. Only what is not measured
is made short: nobody is asked for a signature, and names are stretched at a toy's cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from node.certificate import certificate_signature
from node.clock import SystemClock, SystemEntropy
from node.machine import Node
from node.ports import Transaction
from node.store import SqliteStore
from node.transport import Tls
from node.workers import ThreadWorkers
from protocol.contract import Change, Core, Id, Ledger, Notify, PutRow, Stretch, Table, Verified
from protocol.custody import Settings
from protocol.encoding import hash256
from protocol.federation import Roster, Signed, draft, introduce, sign_roster
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.guardian import Keys, open_core
from protocol.keys import SealingKey, SigningKey
from protocol.sealing import Cost
from protocol.statements import Codec
from protocol.verbs import codes
from protocol.wallet.drawing import Draws

STORE: Final = "guardian.db"
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True)
class Seat:
    """One guardian with all keys."""

    number: int
    keys: Keys
    transport: SigningKey
    introduction: Verified

    @property
    def trusted(self) -> tuple[bytes, bytes]:
        return self.transport.public, certificate_signature(self.transport)


@dataclass(frozen=True)
class Stage:
    """A founded federation."""

    seats: tuple[Seat, ...]
    roster: Roster
    signed: bytes

    @property
    def codec(self) -> Codec:
        return Codec(self.roster.id)

    def rows(self) -> list[PutRow]:
        """What a node of it holds from its founding."""
        return [
            PutRow(Table.META, ROSTER_KEY, self.signed),
            PutRow(Table.META, FEDERATION_KEY, self.roster.id),
        ]


def seed(*about: object) -> bytes:
    """32 bytes that are the same in every run."""
    return hash256("hf/benchmark", repr(about).encode())


def draws(*about: object) -> Draws:
    return Draws(seed(*about))


def found(count: int, threshold: int, *, waiting: int, addresses: Sequence[str] = ()) -> Stage:
    """Found a federation. Guardians without an address only dial out."""
    now = SystemClock().now()
    listening = [*addresses, *[""] * (count - len(addresses))]
    seats = tuple(seat(number, listening[number], now) for number in range(count))
    roster = draft(
        "Elm Street",
        threshold,
        [seat.introduction for seat in seats],
        now=now,
        nonce=bytes(16),
        waiting_default=waiting,
    )
    signatures = (sign_roster(seat.keys.identity, roster).raw[-64:] for seat in seats)
    return Stage(seats, roster, Signed(roster, tuple(signatures)).to_bytes())


def seat(number: int, address: str = "", now: int = 0) -> Seat:
    """The guardian of that number; its keys are the same in every process."""
    identity, transport = SigningKey(seed("identity", number)), SigningKey(seed("link", number))
    sealing = SealingKey(seed("sealing", number))
    introduction = introduce(
        identity,
        name=f"guardian {number}",
        sealing=sealing.public,
        transport=transport.public,
        certificate=certificate_signature(transport),
        address=address,
        contact="",
        languages=["en"],
        hours="",
        now=now,
    )
    return Seat(number, Keys(identity, (sealing,)), transport, introduction)


def write(store: SqliteStore, changes: Iterable[Change]) -> None:
    """Put rows and entries into a store, in one transaction."""

    def work(transaction: Transaction) -> None:
        for change in changes:
            transaction.apply(change)

    store.transact(work)


class Nobody:
    """Fill the Human port."""

    def changed(self, topic: str, id: Id) -> None:
        pass

    async def notify(self, notice: Notify) -> None:
        pass


def quick_codes(job: Stretch) -> Any:
    """Codes at a toy's cost: what Argon2id costs is chosen, and not measured here."""
    return codes(job, Cost.TOY)


@dataclass
class Running:
    """A node with its core at hand."""

    node: Node
    transport: Tls
    core: Core | None = None

    @property
    def address(self) -> str:
        return self.transport.bound[0]


def make_node(own: Seat, store: SqliteStore, *, listen: str = f"{LOOPBACK}:0") -> Running:
    """The node of a seat, as `node.daemon` composes it."""
    transport = Tls(own.transport, listen=listen)

    def make_core(ledger: Ledger) -> Core:
        running.core = open_core(ledger, own.introduction, own.keys, Settings())
        return running.core

    node = Node(
        make_core,
        store=store,
        transport=transport,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        workers=ThreadWorkers(),
        human=Nobody(),
        jobs={Stretch: quick_codes},
        software="holdfast benchmark",
    )
    running = Running(node, transport)
    return running


def open_store(folder: Path) -> SqliteStore:
    return SqliteStore(str(folder / STORE))


async def until(holds: Callable[[], bool], every: float = 0.005) -> None:
    """Return when something holds; looked at so seldom that it costs nothing."""
    while not holds():
        await trio.sleep(every)
