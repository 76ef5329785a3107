"""The outside world of a node, as six ports and the store behind one of them.

Production fills them with sockets, a disk, threads and a clock (`node.transport`,
`node.store`, `node.workers`, `node.clock`); a simulation with a world made from one seed.
Nothing inside a node reaches around them: what is not declared here, a node cannot do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import trio

from protocol.contract import Change, Id, Ledger, Millis, Notify, Place, Seat, Verified
from protocol.errors import HoldfastError

T = TypeVar("T")
A = TypeVar("A")

Handler: TypeAlias = Callable[[trio.abc.Stream, bytes | None], Awaitable[None]]
Trusted: TypeAlias = Sequence[tuple[bytes, bytes]]  # transport key, certificate signature


class StoreFailed(HoldfastError):
    """A write did not become durable, and nothing of it remains. The disk is to blame."""


class StoreFull(StoreFailed):
    """There is no room for this write. Smaller or more urgent ones may still succeed."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One erasure-coded piece of a version: its number, bytes and Merkle path to the root."""

    index: int
    data: bytes
    path: tuple[bytes, ...]


class Transaction(Protocol):
    """Changes that become durable together. Valid only while `Store.transact` runs."""

    @property
    def ledger(self) -> Ledger: ...
    def apply(self, change: Change) -> None:
        """Make a change; the ledger shows it at once."""
        ...


class Store(Protocol):
    """What a node keeps. Every call blocks: make it through `Workers.store` only."""

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Do the work in one transaction, durable when this returns.

        On any exception nothing of it remains. Raises `StoreFailed` when the disk fails,
        `StoreFull` when it has no room, and whatever the work raises.
        """
        ...

    def read(self, work: Callable[[Ledger], T]) -> T: ...
    def heads(self) -> list[Place]:
        """The last entry of every log, in the order of seat and incarnation."""
        ...

    def stream_entries(
        self, seat: Seat, incarnation: int, first: int, last: int, bytes_max: int
    ) -> list[bytes]:
        """Entries from `first` on without a gap, as many as fit, and at least one if held."""
        ...

    def put_fragments(self, version: Id, items: Sequence[Fragment]) -> None:
        """Keep fragments, durable when this returns; those already held are replaced."""
        ...

    def fragments(self, version: Id, first: int, limit: int) -> list[Fragment]: ...
    def fragment_count(self, version: Id) -> int: ...
    def checkpoint(self) -> None: ...
    def close(self) -> None: ...


class Workers(Protocol):
    """Where work runs that would hold up the loop. Work once begun is never abandoned."""

    async def store(self, work: Callable[[], T]) -> T:
        """Run on the one thread that touches the store, one call at a time, in order."""
        ...

    async def each(self, work: Callable[[Sequence[A]], list[T]], items: Sequence[A]) -> list[T]:
        """Run over the items, split among threads; the results keep the order of the items."""
        ...

    async def compute(self, work: Callable[[], T]) -> T:
        """Run one long computation."""
        ...


class Clock(Protocol):
    """The time people mean: UTC, in milliseconds. It may jump; a core never sees it go back."""

    def now(self) -> Millis: ...
    async def sleep_until(self, at: Millis) -> None: ...


class Entropy(Protocol):
    def draw(self, size: int) -> bytes:
        """Fresh random bytes, fit for keys."""
        ...


class Transport(Protocol):
    """Streams to and from other machines, the far end's key already checked."""

    async def dial(self, address: str, key: bytes, present: bool) -> trio.abc.Stream:
        """Reach the holder of `key`; `present` shows our own certificate, as guardians do.

        Raises `OSError` or a `HoldfastError` when nobody, or somebody else, is there.
        """
        ...

    async def serve(
        self, handler: Handler, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Call the handler for every stream that comes in, with the key at its far end.

        The key is None for whoever shows no certificate: a wallet. The stream ends with
        the handler. Runs until cancelled.
        """
        ...

    def retrust(self, trusted: Trusted) -> None:
        """Accept these guardians' certificates from now on, and no others."""
        ...


class Human(Protocol):
    """Outward only: what people decide comes in through `Node.ask`."""

    def changed(self, topic: str, id: Id) -> None:
        """Say that something people look at has changed. Returns at once."""
        ...

    async def notify(self, notice: Notify) -> None: ...


class Verifier(Protocol):
    """What a node needs of `protocol.statements.Codec`."""

    def verify(self, raw: bytes, *types: str) -> Verified: ...
