"""Count what travels in a run: messages and bytes by kind, and the first of them one by one.

Bytes are those of the frames that the node writes: length and msgpack, without TLS. In the
fast engine nothing is framed; a message is packed here to see how long its frame would be.
In the full one the node's own frames are counted as they are made, and what is kept one by
one are the pieces in which connections carry them. Counting changes nothing in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from node.framing import FRAME_BYTES_MAX, pack
from protocol.contract import Message

KEPT: Final = 50_000  # messages one by one: some 10 MB, and more arrows than a picture can show
GREETING: Final = "ping"  # its number is the scenario's heartbeat, not the protocol's doing


@dataclass
class Traffic:
    """What travelled in one run. Times in virtual ms since the world began.

    `totals` counts everything, by federation, by whom it lies between ("guardians", or
    "wallets" and a guardian) and kind: how many, and how many bytes. `rows` are single ones.
    """

    keep: int = KEPT
    totals: dict[tuple[int, str, str], list[int]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, federation: int, between: str, kind: str, size: int) -> None:
        total = self.totals.setdefault((federation, between, kind), [0, 0])
        total[0] += 1
        total[1] += size

    def show(self, federation: int, times: tuple[int, int], source: str, target: str,
             kind: str, size: int) -> None:  # fmt: skip
        if len(self.rows) < self.keep:
            self.rows.append({
                "federation": federation, "at": times[0], "arrives": times[1], "source": source,
                "target": target, "kind": kind, "bytes": size,
            })  # fmt: skip

    def table(self) -> list[dict[str, Any]]:
        """The totals as rows, ordered."""
        return [
            {"federation": federation, "between": between, "kind": kind, "messages": count,
             "bytes": size}
            for (federation, between, kind), (count, size) in sorted(self.totals.items())
        ]  # fmt: skip

    def sums(self, between: str = "guardians") -> tuple[int, int]:
        """Messages and bytes, without greetings."""
        counted = [
            total for (_, among, kind), total in self.totals.items()
            if among == between and kind != GREETING
        ]  # fmt: skip
        return sum(one[0] for one in counted), sum(one[1] for one in counted)


def frame_bytes(message: Message) -> int:
    """How many bytes a message takes in its frame, or in several if it exceeds one."""
    try:
        return len(pack([message.kind, dict(message.fields)]))
    except ValueError:
        sizes = sum(len(raw) for raw in message.fields.get("raws", ()))
        return max(sizes, FRAME_BYTES_MAX)


@contextmanager
def metered(keep: int = KEPT) -> Iterator[Traffic]:
    """Count the traffic of every run inside, in either engine. Does not nest, nor for threads."""
    traffic = Traffic(keep)
    with ExitStack() as undo:
        _meter_fast(undo, traffic)
        _meter_full(undo, traffic)
        yield traffic


def _wrap(undo: ExitStack, owner: Any, name: str, made: Callable[[Any], Any]) -> None:
    real = getattr(owner, name)
    undo.callback(setattr, owner, name, real)
    setattr(owner, name, made(real))


def _meter_fast(undo: ExitStack, traffic: Traffic) -> None:
    from simulations.hosts.fast import MS, FastFederation, Node

    def carrying(real: Callable[..., None]) -> Callable[..., None]:
        def carry(world: FastFederation, source: Node, wire: Any, message: Message) -> None:
            real(world, source, wire, message)
            number, size = world.federation.number, frame_bytes(message)
            traffic.add(number, "guardians", message.kind, size)
            if message.kind != GREETING:
                target = wire.far(source).seat
                times = world.engine.now // MS, wire.due[target] // MS
                traffic.show(number, times, f"guardian{source.seat}", f"guardian{target}",
                             message.kind, size)  # fmt: skip

        return carry

    def sending(real: Callable[..., None]) -> Callable[..., None]:
        def send(node: Node, link: int, message: Message) -> None:
            if link in node.wallets:
                traffic.add(node.world.federation.number, "wallets", message.kind,
                            frame_bytes(message))  # fmt: skip
            real(node, link, message)

        return send

    def asking(real: Callable[..., Any]) -> Callable[..., Any]:
        async def exchange(
            world: FastFederation, place: str, seat: int, kind: str,
            fields: Mapping[str, Any], linger: int,
        ) -> Sequence[Message]:  # fmt: skip
            size = frame_bytes(Message(kind, {**fields, "request": 1}))
            traffic.add(world.federation.number, "wallets", kind, size)
            heard: Sequence[Message] = await real(world, place, seat, kind, fields, linger)
            return heard

        return exchange

    _wrap(undo, FastFederation, "carry", carrying)
    _wrap(undo, FastFederation, "exchange", asking)
    _wrap(undo, Node, "_send", sending)


def _meter_full(undo: ExitStack, traffic: Traffic) -> None:
    import node.outbox
    import simulations.hosts.full
    from simulations.connection import Flow

    def packing(between: str) -> Callable[[Any], Any]:
        def made(real: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
            def counted(message: Any) -> bytes:
                frame = real(message)
                # A node answers a wallet's request over an outbox like any other.
                answers = "request" in message[1] or message[0] in ("release", "case")
                traffic.add(0, "wallets" if answers else between, message[0], len(frame))
                return frame

            return counted

        return made

    def flowing(real: Callable[..., None]) -> Callable[..., None]:
        def send(flow: Any, piece: bytes) -> None:
            real(flow, piece)
            at, due = int(flow._network.kernel.now * 1000), int(flow._last_due * 1000)
            traffic.show(0, (at, due), flow.source, flow.target, "piece", len(piece))

        return send

    _wrap(undo, node.outbox, "pack", packing("guardians"))
    _wrap(undo, simulations.hosts.full, "pack", packing("wallets"))
    _wrap(undo, Flow, "send", flowing)
