"""Watch a run, and keep of it what a report shows and a `Result` has no room for.

Which statement was durable where, and when: a message is drawn from its author, at the
moment it was durable there, to everyone in whose store it arrived. Watching changes
nothing: the trace of a run that is watched is that of the run that is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from protocol.contract import Id, Place, PutEntry, Seat, Verified
from protocol.errors import HoldfastError
from protocol.statements import place_of
from simulations import running
from simulations.federation import Federation
from simulations.kernel import START_MS
from simulations.quantities import moment
from simulations.scenario import Scenario
from simulations.truth import Claimed, Truth

STATEMENTS_MAX: Final = 20_000  # of one run: 10 MB here, and more than a page can show
CLAIMS_MAX: Final = 20_000
BYTES_SHOWN: Final = 8  # of a key, an id, a sealed box
TIMES: Final = ("at", "since", "created", "expires")  # of the clock of whoever signed
OWN: Final = ("type", "by", "epoch", "seat", "incarnation", "seq", "prev", "raw")


@dataclass
class Seen:
    """One statement: whose log it stands in, when it was durable there, whom it reached when."""

    type: str
    inner: str  # what a carried statement is; "" otherwise
    seat: Seat
    claim: Id | None
    id: Id
    place: Place
    body: Mapping[str, Any]
    sent: int | None = None
    arrivals: dict[Seat, int] = field(default_factory=dict)


@dataclass
class Witness:
    """Everything watched in one run, by the record of the federation it happened in."""

    federations: Sequence[Federation] = ()
    seen: dict[Truth, dict[Id, Seen]] = field(default_factory=dict)
    claims: dict[Truth, dict[Id, Claimed]] = field(default_factory=dict)
    left_off: int = 0

    def claimed(self, truth: Truth, claimed: Claimed) -> None:
        """A claim was made. The record itself forgets it once its story is told."""
        if sum(map(len, self.claims.values())) < CLAIMS_MAX:
            self.claims.setdefault(truth, {})[claimed.claim] = claimed

    def note(self, truth: Truth, seat: Seat, entries: Sequence[Verified]) -> None:
        """Entries have become durable at a seat."""
        known = self.seen.setdefault(truth, {})
        for entry in entries:
            one = known.get(entry.id)
            if one is None:
                if sum(map(len, self.seen.values())) >= STATEMENTS_MAX:
                    self.left_off += 1
                    continue
                one = known[entry.id] = _read(truth, entry)
            if seat == one.seat:
                one.sent = truth.now() if one.sent is None else one.sent
            else:
                one.arrivals.setdefault(seat, truth.now())


def _read(truth: Truth, entry: Verified) -> Seen:
    place, body, inner = place_of(entry), entry.body, ""
    if entry.type == "carry":
        try:
            carried = truth.codec.read(body["raw"])
        except (HoldfastError, KeyError):
            carried = entry
        inner, body = carried.type, carried.body
        claim = carried.id if carried.type == "claim" else body.get("claim")
    else:
        claim = body.get("claim")
    return Seen(entry.type, inner, place.seat, claim, entry.id, place, body)


def shown(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields of a statement as people read them; of bytes only the first few."""
    return [
        (name, moment(value - START_MS) if name in TIMES and value >= START_MS else _plain(value))
        for name, value in body.items()
        if name not in OWN and value not in ("", None)
    ]


def _plain(value: Any) -> str:
    if isinstance(value, bytes) and not any(value):
        return "none"
    if isinstance(value, bytes):
        more = f"… ({len(value)} bytes)" if len(value) > BYTES_SHOWN else ""
        return value[:BYTES_SHOWN].hex() + more
    if isinstance(value, list | tuple):
        return ", ".join(_plain(one) for one in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    return str(value)


@contextmanager
def witnessing() -> Iterator[Witness]:
    """Watch every run made within; meant for one. Not for two threads at once."""
    witness = Witness()
    kept, claimed, gather = Truth.kept, Truth.claimed, running.gather

    def watched(self: Truth, seat: Seat, entries: Sequence[PutEntry]) -> list[Verified]:
        read = kept(self, seat, entries)
        witness.note(self, seat, read)
        return read

    def claims(self: Truth, one: Claimed) -> None:
        claimed(self, one)
        witness.claimed(self, one)

    def gathered(
        scenario: Scenario, seed: int, mode: str, ended: running.Ended, wall: float
    ) -> running.Result:
        witness.federations = ended.federations
        return gather(scenario, seed, mode, ended, wall)

    changes: tuple[tuple[Any, str, Any, Any], ...] = (
        (Truth, "kept", watched, kept), (Truth, "claimed", claims, claimed),
        (running, "gather", gathered, gather),
    )  # fmt: skip
    for place, name, new, _ in changes:
        setattr(place, name, new)
    try:
        yield witness
    finally:
        for place, name, _, old in changes:
            setattr(place, name, old)


def run(
    scenario: Scenario | str | Path,
    *,
    seed: int | None = None,
    mode: str | None = None,
    settings: Mapping[str, Any] | None = None,
    keep: int = 0,
) -> running.Result:
    """Run a scenario as `simulations.running.run` does, and keep its messages for a report."""
    with witnessing() as witness:
        result = running.run(scenario, seed=seed, mode=mode, settings=settings, keep=keep)
    result.__dict__["witness"] = witness
    return result
