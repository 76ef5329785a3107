"""A network of machines in virtual time, which loses no byte of a connection but much else.

A connection carries bytes in order, as TCP does, but in pieces of its own choosing and with
a delay drawn from the seed for each link (see `simulations.connection`). What lies on the
wire waits while the link is cut or the far machine is dark. A machine that loses its power
says no goodbye: the far end learns of it when it sends to the machine after that is back,
when it gives up, or never, if it only listens.

Encryption is left out: a stream knows the transport key of its far end as one made by the
production transport does. The trace gets lengths and digests, never the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import trio

from node.ports import Handler, Trusted
from node.transport import Unreachable, WrongPeer
from simulations.chances import MILLION, Stream
from simulations.connection import CALM, Connection, SimStream, Weather
from simulations.determinism import draws
from simulations.kernel import NANOS_PER_S, Kernel
from simulations.trace import Trace

CONNECT_TIMEOUT_S: Final = 10.0  # then a dial into the dark fails, as the production one does
ROUND_TRIPS_TO_CONNECT: Final = 2  # TCP, then TLS 1.3


class Network:
    """All links of one world. Machines are named by their addresses.

    Each link and each connection draws from a stream of its own, so that a machine more or
    a reset less changes nothing on the other links.
    """

    def __init__(self, kernel: Kernel, seed: int, trace: Trace, weather: Weather = CALM) -> None:
        self.kernel = kernel
        self._seed = seed
        self._trace = trace
        self._weather = weather
        self._latency: dict[tuple[str, str], float] = {}
        self._slow: dict[tuple[str, str], float] = {}
        self.tap: Callable[[bytes], None] = lambda piece: None  # sees all that is sent
        self._opened: dict[tuple[str, str], int] = {}  # connections so far
        self._cuts: dict[tuple[str, str], int] = {}  # how many cuts lie on each way
        self._machines: dict[str, SimTransport] = {}
        self._connections: dict[int, Connection] = {}
        self._count = 0

    def latency(self, a: str, b: str) -> float:
        """Return the seconds a byte needs at least from `a` to `b`, the same both ways."""
        link = (min(a, b), max(a, b))
        if link not in self._latency:
            median = round(self._weather.latency_median * NANOS_PER_S)
            sigma = round(self._weather.latency_sigma * MILLION)
            drawn = Stream(self._seed, "latency", *link).lognormal(median, sigma)
            self._latency[link] = drawn / NANOS_PER_S
        return self._latency[link]

    def slowness(self, source: str, target: str) -> float:
        """Return the seconds by which everything from `source` to `target` is late now."""
        return self._slow.get((source, target), 0.0)

    def clog(self, a: str, b: str, seconds: float) -> None:
        """Let everything between two machines take longer; 0 ends it."""
        self._slow[a, b] = self._slow[b, a] = seconds
        self.note("clog", a, b, round(seconds * 1000))

    def cut(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Let nothing through from `a` to `b`, and unless `one_way` nothing back either."""
        for way in ((a, b),) if one_way else ((a, b), (b, a)):
            self._cuts[way] = self._cuts.get(way, 0) + 1
        self.note("cut", a, b, int(one_way))

    def partition(self, side: Sequence[str], other: Sequence[str]) -> None:
        """Cut every link between the two sides."""
        for a in side:
            for b in other:
                self.cut(a, b)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo all cuts, those of `a`, or those between `a` and `b`; what waits travels on."""
        named = [address for address in (a, b) if address is not None]
        self._cuts = {
            pair: cuts
            for pair, cuts in self._cuts.items()
            if not all(address in pair for address in named)
        }
        self.note("heal", *named)
        self._resume()

    def mend(self, a: str, b: str) -> None:
        """Undo one cut of the way from `a` to `b`; what waits travels on."""
        left = self._cuts.pop((a, b), 0) - 1
        if left > 0:
            self._cuts[a, b] = left
        self.note("mend", a, b)
        self._resume()

    def reset(self, a: str, b: str) -> None:
        """Break all connections between `a` and `b` at once, at both ends."""
        self.note("reset all", a, b)
        for connection in list(self._connections.values()):
            if connection.joins(a, b):
                connection.reset()

    def power_cut(self, address: str) -> None:
        """Let a machine vanish without a goodbye; its transport and streams are dead for good.

        The machine is back with the next SimTransport made for its address.
        """
        self.note("power cut", address)
        machine = self._machines.get(address)
        if machine is not None:
            machine.die()
        for connection in list(self._connections.values()):
            connection.lose(address)

    def is_up(self, address: str) -> bool:
        """Tell whether a machine is there and has power."""
        machine = self._machines.get(address)
        return machine is not None and machine.alive

    def severed(self, source: str, target: str) -> bool:
        """Tell whether bytes from `source` cannot reach `target` now."""
        return (source, target) in self._cuts or not self.is_up(target)

    # What transports and connections call.

    def join(self, machine: SimTransport) -> None:
        if self.is_up(machine.address):
            raise ValueError(f"{machine.address} is on the network already; cut its power first")
        self._machines[machine.address] = machine
        self.note("up", machine.address)
        self._resume()

    def machine(self, address: str) -> SimTransport:
        return self._machines[address]

    def connect(self, dialler: str, listener: str) -> tuple[SimStream, SimStream]:
        """Make a connection; the first stream is the dialler's end."""
        nth = self._opened.get((dialler, listener), 0)
        self._opened[dialler, listener] = nth + 1
        self._count += 1
        rng = draws(self._seed, "connection", dialler, listener, nth)
        connection = Connection(self, self._count, dialler, listener, rng, self._weather)
        self._connections[connection.number] = connection
        self.note("connect", connection.number, dialler, listener)
        if rng.random() < self._weather.reset:
            self.kernel.after(rng.random() * self._weather.reset_within, connection.reset)
        return connection.ends

    def forget(self, number: int) -> None:
        self._connections.pop(number, None)

    def show(self, piece: bytes) -> None:
        self.tap(piece)

    def note(self, what: str, *fields: int | str | bytes | None) -> None:
        self._trace("net", self.kernel.now_ns, what, *fields)

    def _resume(self) -> None:
        for connection in list(self._connections.values()):
            connection.resume()


class SimTransport:
    """Fill the Transport port of one machine, from its start to its next power cut.

    `key` is the machine's transport key, 32 bytes. Until `retrust` is called every key that
    is shown is taken.
    """

    def __init__(self, network: Network, address: str, key: bytes) -> None:
        self.address = address
        self.key = key
        self.alive = True
        self._network = network
        self._trusted: frozenset[bytes] | None = None
        self._accept: Callable[[SimStream, bytes | None], None] | None = None
        network.join(self)

    async def dial(self, address: str, key: bytes, present: bool) -> trio.abc.Stream:
        """Return a stream to the machine at `address`, if that holds `key`.

        Fails as the production transport does: WrongPeer when another key is there,
        Unreachable when nobody is, or we are turned away. OSError when this machine itself
        has lost its power.
        """
        await trio.lowlevel.checkpoint()
        self._check_power()
        network = self._network
        network.note("dial", self.address, address)
        await trio.sleep(2 * ROUND_TRIPS_TO_CONNECT * network.latency(self.address, address))
        if network.severed(self.address, address) or network.severed(address, self.address):
            await trio.sleep(CONNECT_TIMEOUT_S)
            raise Unreachable(f"Nobody answered at {address} within {CONNECT_TIMEOUT_S:g} seconds.")
        self._check_power()
        listener = network.machine(address)
        if listener._accept is None:
            raise Unreachable(f"Nobody listens at {address}.")
        if listener.key != key:
            raise WrongPeer(
                f"Somebody else answered at {address}, not the guardian who was called."
            )
        shown = self.key if present else None
        if shown is not None and listener._trusted is not None and shown not in listener._trusted:
            raise Unreachable(
                f"The node at {address} answered and then hung up: it does not know us."
            )
        ours, theirs = network.connect(self.address, address)
        listener._accept(theirs, shown)
        return ours

    async def serve(
        self, handler: Handler, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Call the handler with each stream that comes in and the key its dialler showed.

        The stream ends with its handler. A connection that breaks ends its handler only;
        every other error of a handler is raised. Runs until cancelled.
        """
        self._check_power()
        if self._accept is not None:
            raise OSError(f"somebody listens at {self.address} already")

        async def handle(stream: SimStream, peer_key: bytes | None) -> None:
            try:
                await handler(stream, peer_key)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                stream.close()

        async with trio.open_nursery() as nursery:
            self._accept = lambda stream, key: nursery.start_soon(handle, stream, key)
            try:
                task_status.started((self.address,))
                await trio.sleep_forever()
            finally:
                self._accept = None

    def retrust(self, trusted: Trusted) -> None:
        """Take these guardians' transport keys from now on, and no others."""
        self._trusted = frozenset(key for key, _ in trusted)

    def die(self) -> None:
        self.alive = False
        self._accept = None

    def _check_power(self) -> None:
        if not self.alive:
            raise OSError(f"{self.address} has lost its power")
