"""Keep a link to every neighbour that the core names, and to no one else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from node.links import Links
from node.ports import Clock, Entropy, Transport
from protocol.contract import Millis, Peer, Seat
from protocol.errors import HoldfastError
from protocol.limits import SECOND

RETRY_MIN_S: Final = 0.2  # after a first failure: a restart takes about as long
RETRY_MAX_S: Final = 30.0  # a guardian who comes back is found within this
SETTLED_S: Final = 10.0  # a link that stood so long was a good one: dial soon when it ends
JITTER_BYTES: Final = 2

log = structlog.get_logger("node.dialer")


@dataclass(frozen=True, slots=True)
class Missing:
    """A neighbour we have no link to: since when (ms), and what happened at the last try."""

    seat: Seat | None
    address: str
    since: Millis
    reason: str


class Dialer:
    """One task for each neighbour."""

    def __init__(self, transport: Transport, links: Links, clock: Clock, entropy: Entropy) -> None:
        self._transport = transport
        self._links = links
        self._clock = clock
        self._entropy = entropy
        self._tasks: dict[Peer, trio.CancelScope] = {}
        self._peers: tuple[Peer, ...] = ()
        self._missing: dict[Peer, Missing] = {}
        self._news = trio.lowlevel.ParkingLot()

    def set(self, peers: Sequence[Peer]) -> None:
        """Keep links to these from now on."""
        self._peers = tuple(peers)
        self._news.unpark_all()

    def missing(self) -> list[Missing]:
        """Whom we cannot reach just now, in the order in which the core named them."""
        return [self._missing[peer] for peer in self._peers if peer in self._missing]

    async def run(self) -> None:
        """Dial until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                for peer in [each for each in self._tasks if each not in self._peers]:
                    self._give_up(peer)
                for peer in self._peers:
                    if peer not in self._tasks:
                        self._tasks[peer] = trio.CancelScope()
                        nursery.start_soon(self._keep, peer, self._tasks[peer], nursery)
                await self._news.park()

    def _give_up(self, peer: Peer) -> None:
        self._tasks.pop(peer).cancel()
        self._missing.pop(peer, None)
        if all(each.key != peer.key for each in self._peers):
            self._links.end_with(peer.key, "we are no longer neighbours")

    async def _keep(self, peer: Peer, scope: trio.CancelScope, nursery: trio.Nursery) -> None:
        """Dial one neighbour again and again; the links themselves are not in this scope."""
        pause = RETRY_MIN_S
        with scope:
            while True:
                since = trio.current_time()
                while self._links.stands(peer.key):
                    self._missing.pop(peer, None)
                    await self._links.changed()
                if trio.current_time() - since >= SETTLED_S:
                    pause = RETRY_MIN_S
                await trio.sleep(peer.patience / SECOND)
                if self._links.stands(peer.key):
                    continue
                reason = await self._dial(peer, nursery)
                if not self._links.stands(peer.key):
                    self._note(peer, reason)
                await trio.sleep(pause * self._jitter())
                pause = min(2 * pause, RETRY_MAX_S)

    async def _dial(self, peer: Peer, nursery: trio.Nursery) -> str:
        """Dial once; return when a link stands, or why there is none."""
        try:
            stream = await self._transport.dial(peer.address, peer.key, peer.seat is not None)
        except (OSError, HoldfastError, trio.BrokenResourceError) as error:
            return str(error)
        outcome: list[str] = []
        settled = trio.Event()

        async def serve() -> None:
            outcome.append(await self._links.serve(stream, peer.key, settled.set))
            settled.set()

        # In the nursery, so that a neighbour who is no longer named loses the link by our
        # word and not by cancellation, of which no core would hear.
        nursery.start_soon(serve)
        await settled.wait()
        return outcome[0] if outcome else "the link ended at once"

    def _note(self, peer: Peer, reason: str) -> None:
        known = self._missing.get(peer)
        since = self._clock.now() if known is None else known.since
        if known is None or known.reason != reason:
            log.info("no link", address=peer.address, seat=peer.seat, reason=reason)
        self._missing[peer] = Missing(peer.seat, peer.address, since, reason)

    def _jitter(self) -> float:
        """From 0.5 to 1.5, so that neighbours of a node that restarts do not call in step."""
        draw = int.from_bytes(self._entropy.draw(JITTER_BYTES), "big")
        return 0.5 + draw / 256**JITTER_BYTES
