"""A federation in a world made from one seed: the unchanged node over simulated parts.

Everything is real but the wires, the disks, the clock and the people: framing, signatures,
the production store. TLS is left out. Whatever happens goes into a trace whose hash must be
the same for the same seed, on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import apsw
import structlog
import trio

from node.framing import FrameReader, pack
from node.greeting import Hello
from node.machine import Node
from node.store import SqliteStore
from node.transport import Unreachable
from protocol.cases import CODE_SALT, claim_code
from protocol.contract import Id, Ledger, Notify, PutRow, Stretch, Table
from protocol.custody import Settings
from protocol.errors import HoldfastError
from protocol.federation import Signed, draft, sign_roster
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.guardian import open_core
from protocol.keys import SealingKey, SigningKey
from protocol.names import normalise
from protocol.sealing import Cost, stretch
from protocol.statements import Codec
from protocol.vault import Payload
from protocol.verbs import codes
from protocol.wallet import backing_up, recovering
from protocol.wallet.drawing import Draws
from simulations.connection import CALM, Weather
from simulations.disk import Disk, PowerCut, silent_power_cuts
from simulations.hosts.bare import Host, make_host
from simulations.kernel import (
    START_MS,
    InlineWorkers,
    Kernel,
    SimClock,
    SimEntropy,
    draws,
    run,
)
from simulations.network import Network, SimTransport
from simulations.trace import Trace

MEMBERS: Final = ("Rosa Keller", "Omar Haddad", "Nguyễn Văn Minh", "Μαρία Παππά", "Ivan Petrov")
ASK_S: Final = 20.0  # a wallet's patience with one answer
NAMES: Final = ("ada", "ben", "cleo", "dev", "eve", "finn", "gita", "hugo", "ines", "jon")


@dataclass(frozen=True)
class Plan:
    """What happens in a world. Times in seconds of virtual time."""

    guardians: int = 5
    threshold: int = 3
    members: int = 2
    lives: int = 3  # power cuts of each guardian, at most
    life_operations: tuple[int, int] = (40, 250)  # disk operations from a start to its cut
    waiting_ms: int = 0
    seconds: float = 300.0
    weather: Weather = CALM


@dataclass
class Outcome:
    """What came of a world."""

    trace: str
    events: int
    recovered: int
    crashes: int
    commits: int
    heads: int  # how many different clocks the guardians ended with
    disks: str
    caught: list[str] = field(default_factory=list)


class World:
    """One federation, its members, and its bad luck."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.plan = plan
        self.trace = Trace()
        self.hosts = [
            make_host(name, number, START_MS) for number, name in enumerate(NAMES[: plan.guardians])
        ]
        self.roster = draft(
            "Elm Street",
            plan.threshold,
            [host.introduction for host in self.hosts],
            now=START_MS,
            nonce=bytes(16),
            waiting_default=plan.waiting_ms,
        )
        self.codec = Codec(self.roster.id)
        signatures = [sign_roster(host.keys.identity, self.roster) for host in self.hosts]
        self.signed = Signed(self.roster, tuple(one.raw[-64:] for one in signatures)).to_bytes()
        self.disks = [
            Disk(f"g{number}", draws(seed, "disk", number), trace=self.trace)
            for number in range(plan.guardians)
        ]
        self.nodes: dict[int, Node] = {}
        self.codes: dict[str, str] = {}  # claim, hex: code, as the person would read it out
        self.recovered = 0
        self.crashes = 0
        self.commits = 0

    async def main(self, kernel: Kernel) -> Outcome:
        self.kernel = kernel
        self.network = Network(kernel, self.seed, self.trace, self.plan.weather)
        heads: dict[tuple[Any, ...], bool] = {}
        async with trio.open_nursery() as nursery:
            for number in range(self.plan.guardians):
                nursery.start_soon(self._guardian, number)
            for number in range(self.plan.members):
                nursery.start_soon(Person(self, number).live)
            await trio.sleep(self.plan.seconds)
            for number, node in sorted(self.nodes.items()):
                status = await node.ask("status")
                clock = tuple(guardian["entries"] for guardian in status["guardians"])
                self.note("end", number, *clock)
                heads[clock] = True
            for disk in self.disks:
                disk.cut_power()
            nursery.cancel_scope.cancel()
        return Outcome(
            trace=self.trace.hexdigest(),
            events=self.trace.count,
            recovered=self.recovered,
            crashes=self.crashes,
            commits=self.commits,
            heads=len(heads),
            disks=b"".join(disk.content_hash() for disk in self.disks).hex()[:32],
        )

    def note(self, what: str, *fields: int | str | bytes | None) -> None:
        self.trace("world", self.kernel.now_ns, what, *fields)

    # --- guardians --------------------------------------------------------------------

    async def _guardian(self, number: int) -> None:
        """Run a guardian's node, life after life."""
        rng = draws(self.seed, "crash", number)
        disk = self.disks[number]
        for life in range(10**6):
            if life < self.plan.lives:
                disk.cut_at = disk.ops + rng.randrange(*self.plan.life_operations)
            try:
                await self._life(number, life)
            except* (PowerCut, apsw.Error):
                self.note("cut", number, disk.ops)
            self.crashes += 1
            self.nodes.pop(number, None)
            self.network.power_cut(self.hosts[number].introduction.body["address"])
            disk.cut_power()
            disk.crash()
            await trio.sleep(1 + rng.random() * 10)

    async def _life(self, number: int, life: int) -> None:
        host = self.hosts[number]
        body = host.introduction.body
        rng = draws(self.seed, "workers", number, life)
        store = SqliteStore("guardian.db", vfs=self.disks[number].vfs_name)
        store.transact(self._found)
        node = Node(
            partial(self._make_core, host),
            store=store,
            transport=SimTransport(self.network, body["address"], body["transport"]),
            clock=SimClock(self.kernel),
            entropy=SimEntropy(draws(self.seed, "entropy", number, life)),
            workers=InlineWorkers(rng),
            human=Silent(),
            jobs={Stretch: partial(codes, cost=Cost.TOY)},
            software="holdfast simulated",
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            self.nodes[number] = node
            nursery.start_soon(self._person, number, node)
            try:
                await trio.sleep_forever()
            finally:
                self.commits += node.commits

    def _found(self, transaction: Any) -> None:
        if transaction.ledger.get(Table.META, ROSTER_KEY) is None:
            transaction.apply(PutRow(Table.META, ROSTER_KEY, self.signed))
            transaction.apply(PutRow(Table.META, FEDERATION_KEY, self.roster.id))

    def _make_core(self, host: Host, ledger: Ledger) -> Any:
        return open_core(ledger, host.introduction, host.keys, Settings())

    async def _person(self, number: int, node: Node) -> None:
        """A guardian who meets everyone that claims, and approves after a while."""
        rng = draws(self.seed, "person", number)
        while True:
            await trio.sleep(2 + rng.random() * 10)
            with trio.move_on_after(ASK_S):
                try:
                    await self._decide(number, node)
                except HoldfastError as error:
                    self.note("refused", number, str(error))

    async def _decide(self, number: int, node: Node) -> None:
        listed = {case["claim"]: case for case in (await node.ask("claims"))["cases"]}
        for claim, code in sorted(self.codes.items()):
            if claim not in listed:
                await node.ask("open", code=code)
            elif listed[claim]["my_vote"] != "approve":
                vault = (await node.ask("show", case=code))["vaults"][0]["vault"]
                await node.ask("approve", code=code, how="in person", vault=vault)
                self.note("approved", number, claim)


class Silent:
    """People look by themselves here; nobody needs to be rung."""

    def changed(self, topic: str, id: Id) -> None:
        pass

    async def notify(self, notice: Notify) -> None:
        await trio.lowlevel.checkpoint()


# --- members ---------------------------------------------------------------------------


class Person:
    """A member: backs up, loses the phone, claims on a new one, and recovers."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.name = MEMBERS[number % len(MEMBERS)]
        self.rng = draws(world.seed, "member", number)
        self.secret = self.rng.randbytes(32)
        self.transport = SimTransport(world.network, f"member{number}", b"")

    async def live(self) -> None:
        await trio.sleep(5 + self.rng.random() * 20)
        await self._back_up()
        await trio.sleep(self.rng.random() * 20)
        await self._recover()

    # Backing up.

    async def _back_up(self) -> None:
        world, draw = self.world, Draws(self.rng.randbytes(32))
        owner = SigningKey(self.rng.randbytes(32))
        dealt = backing_up.deal(
            world.codec, world.roster, owner, backing_up.make_label(self.name),
            backing_up.policy_for(world.roster), now=self._now(), draws=draw,
        )  # fmt: skip
        spellings = (normalise(self.name),)
        stretched = backing_up.stretch_names(spellings, None, backing_up.pepper_of(dealt), Cost.TOY)
        payload = Payload(owner.seed, "raw", self.secret, "", spellings)
        backup, sealed = backing_up.seal(
            world.codec, world.roster, owner, dealt, payload, stretched,
            title="", passphrase=False, now=self._now(), draws=draw,
        )  # fmt: skip
        for seat, deposit in backing_up.deposits(world.codec, backup, sealed.segments).items():
            fields = {"deal": deposit.deal, "version": deposit.version,
                      "box": deposit.box, "whole": deposit.whole}  # fmt: skip
            answer = await self._ask(seat, "deposit", fields)
            backing_up.take_receipt(world.codec, world.roster, backup, seat, answer["receipt"])
            world.note("receipt", self.number, seat)

    def _now(self) -> int:
        return START_MS + int(self.world.kernel.now * 1000)

    async def _ask(self, seat: int, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Ask one guardian until it answers."""
        while True:
            with trio.move_on_after(ASK_S):
                try:
                    line = await self._dial(seat)
                    await line.send(kind, {**fields, "request": 1})
                    while (heard := await line.hear()) is not None:
                        if heard[0] == "reply":
                            await line.stream.aclose()
                            return heard[1]
                        if heard[0] in ("refusal", "bye"):
                            self.world.note("no", self.number, seat, str(sorted(heard[1])))
                            break
                except (OSError, Unreachable, trio.BrokenResourceError, HoldfastError):
                    self.world.note("unreachable", self.number, seat)
            await trio.sleep(1 + self.rng.random() * 5)

    async def _dial(self, seat: int) -> Line:
        guardian = self.world.roster.guardians[seat]
        stream = await self.transport.dial(guardian.address, guardian.transport, False)
        line = Line(stream)
        await stream.send_all(Hello("wallet", self.world.roster.id, "wallet").to_frame())
        return line

    # Recovering.

    async def _recover(self) -> None:
        world = self.world
        device = recovering.Device(
            SigningKey(self.rng.randbytes(32)), SealingKey(self.rng.randbytes(32))
        )
        claim = recovering.make_claim(
            world.codec, world.roster, device, self.name,
            now=self._now(), draws=Draws(self.rng.randbytes(32)),
        )  # fmt: skip
        code = claim_code(stretch(claim.id, CODE_SALT, Cost.TOY))
        for seat in world.roster.seats:
            await self._ask(seat, "claim", {"raw": claim.raw, "code": code})
        world.codes[claim.id.hex()] = code
        heard = recovering.Recovery(world.codec, world.roster, claim, device)
        while not heard.candidates():
            await self._follow(heard, claim.id)
        candidate = heard.candidates()[0]
        name = backing_up.stretch_names((normalise(self.name),), None, candidate.pepper, Cost.TOY)
        name_key = recovering.unlock_name(candidate, name[0])
        assert name_key is not None, "the right name opens the wrap"
        recovered = recovering.decrypt(candidate, name_key, [candidate.whole])
        assert recovered.payload.secret == self.secret, "a wrong secret came back"
        world.recovered += 1
        world.note("recovered", self.number)

    async def _follow(self, heard: recovering.Recovery, claim: bytes) -> None:
        """Listen to one guardian for a while, whichever it is."""
        seat = self.rng.randrange(self.world.plan.guardians)
        with trio.move_on_after(ASK_S):
            try:
                line = await self._dial(seat)
                await line.send("follow", {"claim": claim, "request": 1})
                while (message := await line.hear()) is not None and not heard.candidates():
                    if message[0] == "release":
                        heard.take_release(message[1]["raw"])
                await line.stream.aclose()
            except (OSError, Unreachable, trio.BrokenResourceError, HoldfastError):
                pass
        await trio.sleep(0.5)


class Line:
    """A wallet's end of a link."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._reader = FrameReader(stream)

    async def send(self, kind: str, fields: dict[str, Any]) -> None:
        await self.stream.send_all(pack([kind, fields]))

    async def hear(self) -> tuple[str, dict[str, Any]] | None:
        value = await self._reader.read()
        return None if value is None else (value[0], value[1])


def simulate(seed: int, plan: Plan | None = None) -> Outcome:
    """Run one world to its end."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    world = World(seed, plan or Plan())
    try:
        with silent_power_cuts():
            return run(world.main, seed=seed)
    finally:
        for disk in world.disks:
            disk.close()
