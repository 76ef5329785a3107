"""Votes verified, written durably and acted on, for each second of a processor.

One node with six neighbours, each of which sends the votes of its own log over a TLS link
of its own as fast as it is taken. Every vote is about a case that is open and a vault that
is held; a waiting period of a day keeps releases, which are measured elsewhere, out of it.
The floor is one bare Ed25519 verification for each vote, over the same bytes. Measured a
second time beside a task that spins on the node's own loop; its own time does not count.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nacl.bindings
import trio

from benchmarks import staging
from benchmarks.measuring import ROUNDS, Figure, Size, alternate, tuned
from benchmarks.processes import start
from benchmarks.staging import STORE
from node.framing import pack
from node.outbox import Tail
from node.store import SqliteStore
from protocol import policy, vault
from protocol.cases import Facts
from protocol.casework import CARRIED_KEY
from protocol.contract import Change, Place, PutEntry, PutRow, Table, Verified
from protocol.custody import DealRow, VaultRow
from protocol.guardian import GuardianCore
from protocol.keys import SealingKey, SigningKey
from protocol.limits import DAY
from protocol.statements import NOTHING, Codec
from protocol.wallet import recovering

GOAL: Final = 0.55
SEATS: Final = 7
THRESHOLD: Final = 5
SPIN_S: Final = 0.001  # of one turn of the task that spins


# --- what is sent ----------------------------------------------------------------------


class Log:
    """One guardian's log as it grows."""

    def __init__(self, codec: Codec, seat: staging.Seat) -> None:
        self._codec = codec
        self._seat = seat
        self._seq = 0
        self._prev = NOTHING

    def write(self, type_: str, fields: dict[str, Any]) -> tuple[Place, Verified]:
        self._seq += 1
        place = {"epoch": 0, "seat": self._seat.number, "incarnation": 0, "seq": self._seq}
        entry = self._codec.sign(
            self._seat.keys.identity, type_, {**place, "prev": self._prev, **fields}
        )
        self._prev = entry.id
        return Place(self._seat.number, 0, self._seq), entry


@dataclass(frozen=True)
class Case:
    claim: bytes
    vault: bytes
    deal: bytes


class Workload:
    """A store with open cases, and the votes on them, as frames in files."""

    def __init__(self, folder: Path, cases: int) -> None:
        self.folder = folder
        self.stage = staging.found(SEATS, THRESHOLD, waiting=DAY)
        self._codec = self.stage.codec
        logs = [Log(self._codec, seat) for seat in self.stage.seats]
        store = SqliteStore(str(folder / STORE))
        staging.write(store, self.stage.rows())
        made: list[Case] = []

        def changes() -> Iterator[Change]:
            for number in range(cases):
                yield from self._open(number, logs[1], made)

        staging.write(store, changes())
        store.checkpoint()
        store.close()
        self.votes: list[Verified] = []
        for seat in range(1, SEATS):
            self._vote(seat, logs[seat], made)
        self.heads = {(seat, 0): (cases if seat > 1 else 2 * cases) for seat in range(1, SEATS)}
        (folder / "federation").write_bytes(self.stage.roster.id)

    def _open(self, number: int, log: Log, made: list[Case]) -> Iterator[Change]:
        """A vault that is held, and the claim on it, opened by the guardian of seat 1."""
        now = int(time.time() * 1000)
        owner = SigningKey(staging.seed("owner", number))
        roster = self.stage.roster
        dealt = vault.make_deal(
            self._codec,
            owner,
            roster,
            vault.Label(f"Rosa Keller {number}"),
            policy.usual_policy(roster.bounds, SEATS),
            first=owner.public,
            salt=bytes(16),
            number=1,
            now=now,
            entropy=staging.draws("deal", number).draw(vault.deal_entropy(THRESHOLD)),
        )
        deal, vault_id = dealt.deal, dealt.deal.body["vault"]
        row = VaultRow(owner.public, owner.public, now, now, deal.id, settled=SEATS)
        yield PutRow(Table.VAULT, vault_id, row.to_bytes())
        box = bytes(400)  # sealed to this node, and not opened before a release
        yield PutRow(Table.DEAL, vault_id + deal.id, DealRow(deal.raw, box, now).to_bytes())
        device = recovering.Device(
            SigningKey(staging.seed("device", number)), SealingKey(staging.seed("box", number))
        )
        claim = recovering.make_claim(
            self._codec, roster, device, "Rosa Keller", now=now, draws=staging.draws(number)
        )
        place, entry = log.write("carry", {"raw": claim.raw})
        yield PutEntry(place, entry.raw)
        carried = now.to_bytes(8, "big") + place.seat.to_bytes(2, "big")
        yield PutRow(Table.META, CARRIED_KEY + claim.id, carried)
        facts = Facts(opened=now, code=str(number).zfill(15))
        yield PutRow(Table.CASE, claim.id, facts.to_bytes())
        made.append(Case(claim.id, vault_id, deal.id))

    def _vote(self, seat: int, log: Log, made: list[Case]) -> None:
        raws: list[bytes] = []
        for case in made:
            fields = {
                "claim": case.claim,
                "vault": case.vault,
                "deal": case.deal,
                "verdict": "approve",
                "how": "in person",
                "words": "we met at the market",
                "revision": 0,
                "veto": NOTHING,
                "at": int(time.time() * 1000),
            }
            _, entry = log.write("vote", fields)
            raws.append(entry.raw)
            self.votes.append(entry)
        first = 1 + (len(made) if seat == 1 else 0)
        tail = Tail(bytes_max=2**40)
        for seq, raw in enumerate(raws, first):
            tail.add(Place(seat, 0, seq), raw)
        with (self.folder / f"{seat}.frames").open("wb") as file:
            while part := tail.slice((seat, 0), first, first + len(raws)):
                fields = {"seat": seat, "incarnation": 0, "first": first, "check": False}
                file.write(pack(["entries", {**fields, "raws": part}]))
                first += len(part)

    def messages(self, count: int) -> list[tuple[bytes, bytes]]:
        """As many bytes as some votes have, signed by their signers, and the signers' keys."""
        keys = {seat.keys.identity.public: seat.keys.identity for seat in self.stage.seats}
        return [(keys[vote.by].sign(vote.raw) + vote.raw, vote.by) for vote in self.votes[:count]]


# --- the node --------------------------------------------------------------------------


class Spinner:
    """A task that leaves the loop nothing but its turns."""

    def __init__(self) -> None:
        self.used = 0.0  # seconds of a processor

    async def run(self) -> None:
        while True:
            begun = now = time.thread_time()
            while now - begun < SPIN_S:
                now = time.thread_time()
            self.used += now - begun
            await trio.lowlevel.checkpoint()


async def _ingest(workload: Workload, spins: bool) -> float:
    """Run a node until it has taken every vote; microseconds of a processor for each."""
    with tempfile.TemporaryDirectory(dir=workload.folder) as folder:
        shutil.copy(workload.folder / STORE, folder)
        store = staging.open_store(Path(folder))
        running = staging.make_node(workload.stage.seats[0], store)
        async with trio.open_nursery() as nursery:
            await nursery.start(running.node.run)
            spinner = Spinner()
            used = await _feed(workload, running, nursery, spinner if spins else None)
            nursery.cancel_scope.cancel()
        store.close()
    return used / len(workload.votes) * 1e6


async def _feed(
    workload: Workload, running: staging.Running, nursery: trio.Nursery, spinner: Spinner | None
) -> float:
    far = await start("benchmarks.feeder", running.address, str(workload.folder))
    core = running.core
    assert isinstance(core, GuardianCore)
    await far.line()
    await staging.until(lambda: len(core.gossip.neighbours) == SEATS - 1)
    if spinner is not None:
        nursery.start_soon(spinner.run)
    before, spun = time.process_time(), spinner.used if spinner else 0.0
    await far.say(b"go")
    await staging.until(lambda: _has_all(core, workload.heads))
    cases = core.casework.docket.cases
    await staging.until(lambda: all(case.facts and case.facts.since for case in cases.values()))
    await running.node.ask("federation")  # answered when all of it is durable
    used = time.process_time() - before - (spinner.used - spun if spinner else 0.0)
    await far.leave()
    return used


def _has_all(core: GuardianCore, heads: dict[tuple[int, int], int]) -> bool:
    return all(core.gossip.heads.get(log, (0, b""))[0] >= seq for log, seq in heads.items())


def measure(size: Size, rounds: int = ROUNDS) -> Figure:
    """Measure both, beside one floor."""
    cases = size.pick(30, 1000, 3000)
    with tempfile.TemporaryDirectory() as folder:
        workload = Workload(Path(folder), cases)
        messages = workload.messages(size.pick(100, 3000, 3000))

        def bare() -> float:
            begun = time.process_time()
            for message, key in messages:
                nacl.bindings.crypto_sign_open(message, key)
            return (time.process_time() - begun) / len(messages) * 1e6

        with tuned():
            floor, alone, spinning = alternate(
                rounds,
                bare,
                lambda: trio.run(_ingest, workload, False),
                lambda: trio.run(_ingest, workload, True),
            )
    spun = _figure("vote_ingest beside a task that spins", floor, spinning)
    return _figure("vote_ingest", floor, alone, votes=len(workload.votes), parts=(spun,))


def _figure(
    name: str, floor: float, micros: float, parts: tuple[Figure, ...] = (), **more: Any
) -> Figure:
    more |= {"floor_us": round(floor, 1), "measured_us": round(micros, 1)}
    unit = "votes per CPU second"
    return Figure(name, 1e6 / micros, 1e6 / floor, unit, GOAL, more=more, parts=parts)
