"""Guardians that lie. Each keeps to the protocol but for one thing, named by its strategy.

A strategy wraps the core of one guardian: it may swallow events, bend effects, and sign what
no honest guardian would, with that guardian's own key. `@strategy("name")` adds one; a
scenario may also name a class as `package.module:Class`.

`python -m simulations.byzantine --home FOLDER --passphrase-file FILE` runs a real node that
releases a false share: what an honest wallet must catch, and name.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from protocol import sharing, vault
from protocol.casework import Casework
from protocol.contract import (
    Core,
    Effect,
    Event,
    Ledger,
    Message,
    Moment,
    Persist,
    Place,
    PutEntry,
    Received,
    Seat,
    Send,
    Stream,
    TimerFired,
    Verified,
)
from protocol.custody import DealRow, Settings
from protocol.encoding import decode
from protocol.errors import HoldfastError, Malformed
from protocol.guardian import GuardianCore, Keys, open_core
from protocol.keys import SigningKey
from protocol.messages import reply
from protocol.policy import policy_of
from protocol.sealing import seal
from protocol.statements import NOTHING

if TYPE_CHECKING:
    from simulations.federation import Federation, Opener

REVISIONS: Final = 8  # as many as count
SPAM: Final = 3  # entries at every greeting: enough to be noticed, not to stop the run


class FalseShare(Casework):
    """Releases a share that is off by one, on every vault but a rehearsal's."""

    def own_piece(self, deal: Verified, row: DealRow) -> vault.Piece | None:
        piece = super().own_piece(deal, row)
        if piece is None or policy_of(deal).rehearsal:
            return piece
        share = (sharing.decode_scalar(piece.share) + 1) % sharing.L
        return replace(piece, share=sharing.encode_scalar(share))


def open_liar(ledger: Ledger, me: Verified, keys: Keys | None, settings: Settings) -> Core:
    """Build the core of a guardian that releases false shares."""
    core = open_core(ledger, me, keys, settings)
    if isinstance(core, GuardianCore):
        core.casework.__class__ = FalseShare
    return core


# --- strategies ------------------------------------------------------------------------


class Liar:
    """An honest core, and what is done to its events and effects. This one does nothing."""

    def __init__(self, core: GuardianCore, federation: Federation, seat: Seat) -> None:
        self.core = core
        self.codec = federation.codec
        self.seat = seat
        self.guardians = federation.scenario.guardians

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def resume(self, at: Moment) -> Sequence[Effect]:
        return self._bend(at, None, self.core.resume(at))

    def handle(self, at: Moment, event: Event) -> Sequence[Effect]:
        instead = self.swallow(event)
        return (
            instead if instead is not None else self._bend(at, event, self.core.handle(at, event))
        )

    def _bend(self, at: Moment, event: Event | None, effects: Sequence[Effect]) -> Sequence[Effect]:
        # The list is the one the core's own ledger looks through, so that more may be signed.
        assert isinstance(effects, list)
        if self.core._identity is not None:
            self.bend(at, event, effects)
        return effects

    def swallow(self, event: Event) -> list[Effect] | None:
        """Effects instead of those of an honest core; None lets it decide."""
        return None

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        """Change what the honest core decided, or add to it."""

    # What strategies share.

    def neighbour(self, link: int) -> Seat | None:
        known = self.core.gossip.neighbours.get(link)
        return None if known is None else known.seat

    def links(self) -> list[int]:
        return sorted(self.core.gossip.neighbours)

    def entries(self, link: int, seat: Seat, first: int, raws: list[bytes]) -> Send:
        fields = {"seat": seat, "incarnation": 0, "first": first, "raws": raws, "check": False}
        return Send(link, Message("entries", fields))


STRATEGIES: Final[dict[str, type[Liar]]] = {}


def strategy(name: str) -> Callable[[type[Liar]], type[Liar]]:
    """Make a class known as a strategy; its docstring says what it does."""

    def keep(made: type[Liar]) -> type[Liar]:
        STRATEGIES[name] = made
        return made

    return keep


@strategy("withhold-vote")
class WithholdVote(Liar):
    """Its person never votes; the node does everything else."""


@strategy("false-share")
class ServeFalseShare(Liar):
    """Releases a share that is off by one."""

    def __init__(self, core: GuardianCore, federation: Federation, seat: Seat) -> None:
        super().__init__(core, federation, seat)
        core.casework.__class__ = FalseShare


@strategy("equivocate")
class Equivocate(Liar):
    """Signs two votes for one place, and shows each to half of the others."""

    def __init__(self, core: GuardianCore, federation: Federation, seat: Seat) -> None:
        super().__init__(core, federation, seat)
        self._forks: dict[int, bytes] = {}

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        for effect in list(out):
            if type(effect) is Persist and type(effect.change) is PutEntry:
                self._fork(effect.change)
        for index, effect in enumerate(out):
            if type(effect) is not Stream or effect.seat != self.seat:
                continue
            if (self.neighbour(effect.link) or 0) % 2:
                raws = [self._entry(effect, seq) for seq in range(effect.first, effect.last + 1)]
                out[index] = self.entries(effect.link, self.seat, effect.first, raws)

    def _entry(self, effect: Stream, seq: int) -> bytes:
        raw = self.core._ledger.entry(Place(effect.seat, effect.incarnation, seq))
        return self._forks.get(seq) or raw or b""

    def _fork(self, put: PutEntry) -> None:
        if put.place.seat != self.seat:
            return
        entry = self.codec.read(put.raw)
        if entry.type == "vote":
            fields = {key: entry.body[key] for key in entry.body if key not in ("type", "by")}
            fields["words"] = "or not"
            assert self.core._identity is not None
            self._forks[put.place.seq] = self.codec.sign(self.core._identity, "vote", fields).raw


@strategy("vote-across-claims")
class VoteAcrossClaims(Liar):
    """Approves every claim that reaches it, whoever made it, without asking for a code."""

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        self._open_all(at, event, out)
        for _, case in sorted(self.core.casework.docket.cases.items()):
            if not case.is_open or len(case.votes.get(self.seat, {})) >= 1:
                continue
            pair = self._deal(case)
            if pair is not None:
                self.core.casework.vote(
                    at, case, pair[0], pair[1], "approve", "in person", "", NOTHING, out
                )

    def _open_all(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        """Tell the federation of claims that wait here for their code."""
        if type(event) is not Received or event.message.kind != "claim":
            return
        claim = self.codec.verify(event.message.fields["raw"], "claim")
        self.core.casework.carry(at, claim, out)

    def _deal(self, case: Any) -> tuple[bytes, bytes] | None:
        try:
            found = self.core.custody.like(self.core.casework.name_of(case.claim))
        except HoldfastError:
            return None
        exact = [(vault_id, row) for likeness, vault_id, _, row in found if likeness == 1000]
        if not exact:
            return None
        return exact[0][0], self.codec.read(exact[0][1].raw).id


@strategy("vote-again")
class VoteAgain(VoteAcrossClaims):
    """Approves every claim as often as a vote may be revised."""

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        for _, case in sorted(self.core.casework.docket.cases.items()):
            votes = case.votes.get(self.seat, {})
            pair = self._deal(case) if case.is_open and len(votes) < REVISIONS else None
            for _ in range(len(votes), REVISIONS if pair else 0):
                assert pair is not None
                self.core.casework.vote(
                    at, case, pair[0], pair[1], "approve", "in person", "", NOTHING, out
                )


@strategy("release-early")
class ReleaseEarly(VoteAcrossClaims):
    """Releases its piece as soon as a claim reaches it."""

    def __init__(self, core: GuardianCore, federation: Federation, seat: Seat) -> None:
        super().__init__(core, federation, seat)
        self._done: dict[bytes, bool] = {}

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        self._open_all(at, event, out)
        for _, case in sorted(self.core.casework.docket.cases.items()):
            if case.is_open and self.seat not in case.releases and case.id not in self._done:
                pair = self._deal(case)
                if pair is not None:
                    self._done[case.id] = True
                    self._release(at, case, pair, out)

    def _release(self, at: Moment, case: Any, pair: tuple[bytes, bytes], out: list[Effect]) -> None:
        held = self.core.custody.deal(*pair)
        piece = self.core.casework.own_piece(*held) if held else None
        if held is None or piece is None:
            return
        versions = [(v.raw, row.whole) for v, row in self.core.custody.versions(pair[1])]
        plain = vault.release_plain(piece, held[0].raw, versions[-3:])
        fields = {
            "claim": case.id, "vault": pair[0], "deal": pair[1],
            "box": seal(case.claim.body["device"], plain, at.seed), "votes": [], "since": at.now,
            "vetoes": [], "at": at.now,
        }  # fmt: skip
        entry = self.core.gossip.author(at, "release", fields, out)
        self.core.casework.fold(at, entry, out)


@strategy("forge")
class Forge(Liar):
    """Sends entries in the names of others, with signatures that do not hold."""

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        if event != TimerFired("ping"):
            return
        heads = self.core.gossip.heads
        for link in self.links():
            for (seat, incarnation), (seq, _) in sorted(heads.items()):
                raw = self._last(seat, incarnation, seq)
                if raw is not None and seat not in (self.seat, self.neighbour(link)):
                    forged = raw[:-1] + bytes((raw[-1] ^ 1,))
                    out.append(self.entries(link, seat, seq + 1, [forged]))
                    break

    def _last(self, seat: Seat, incarnation: int, seq: int) -> bytes | None:
        return self.core._ledger.entry(Place(seat, incarnation, seq))


@strategy("withhold-veto")
class WithholdVeto(Liar):
    """Thanks the owner for a veto, and keeps it to itself."""

    def swallow(self, event: Event) -> list[Effect] | None:
        if type(event) is Received and event.message.kind == "owner":
            return [reply(event.link, event.message.fields["request"], taken=True)]
        return None


@strategy("selective")
class Selective(Liar):
    """Speaks only with the guardians of even seats, and never votes."""

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        out[:] = [
            effect
            for effect in out
            if not (isinstance(effect, Send | Stream) and (self.neighbour(effect.link) or 0) % 2)
        ]


@strategy("spam")
class Spam(Liar):
    """Fills its log with admissions of nobody."""

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        if event == TimerFired("ping"):
            for number in range(SPAM):
                member = bytes((number,)) + at.seed[1:]
                self.core.gossip.author(at, "admit", {"member": member, "at": at.now}, out)


@strategy("replay")
class Replay(Liar):
    """Sends every log from its beginning, again and again."""

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        if event == TimerFired("ping"):
            for link in self.links():
                for (seat, incarnation), (seq, _) in sorted(self.core.gossip.heads.items()):
                    if seq:
                        out.append(Stream(link, seat, incarnation, 1, seq, check=True))


@strategy("frame")
class Frame(Liar):
    """Accuses honest guardians with entries that prove nothing."""

    def __init__(self, core: GuardianCore, federation: Federation, seat: Seat) -> None:
        super().__init__(core, federation, seat)
        self._framed: dict[Seat, bool] = {}

    def bend(self, at: Moment, event: Event | None, out: list[Effect]) -> None:
        if event != TimerFired("ping"):
            return
        for (seat, incarnation), (seq, _) in sorted(self.core.gossip.heads.items()):
            if seat == self.seat or seq < 2 or seat in self._framed:
                continue
            first = self.core._ledger.entry(Place(seat, incarnation, 1))
            second = self.core._ledger.entry(Place(seat, incarnation, 2))
            accused = self.core.roster.at(seat)
            if first is not None and second is not None and accused is not None:
                self._framed[seat] = True
                fields = {"accused": accused.identity, "first": first, "second": second}
                self.core.gossip.author(at, "misbehaviour", fields, out)


class WatchedKey(SigningKey):
    """A liar's key: shows the world's record what it signs, as the key port."""

    def watch(self, seen: Callable[[bytes], None]) -> WatchedKey:
        object.__setattr__(self, "_seen", seen)
        return self

    def sign(self, message: bytes) -> bytes:
        self._seen(message)  # type: ignore[attr-defined]
        return super().sign(message)


def opener(name: str, federation: Federation, seat: Seat) -> Opener:
    """What builds the core of a guardian that follows a strategy. Raises `Malformed`."""
    made = STRATEGIES.get(name) or _imported(name)
    head = len(federation.codec._before)

    def seen(message: bytes) -> None:
        body = decode(decode(message[head:], limit=2**17), limit=2**16)
        if body["type"] == "vote" and body["verdict"] == "approve":
            federation.truth.signed.setdefault((seat, body["claim"]), federation.truth.now())

    def open_it(ledger: Ledger, me: Any, keys: Any, settings: Settings) -> Core:
        if keys is not None:
            keys = Keys(WatchedKey(keys.identity.seed).watch(seen), keys.sealing)
        core = open_core(ledger, me, keys, settings)
        assert isinstance(core, GuardianCore)
        return made(core, federation, seat)

    return open_it


def _imported(name: str) -> type[Liar]:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise Malformed(f"no strategy is called {name}; there are {', '.join(sorted(STRATEGIES))}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise Malformed(f"strategy {name} cannot be found: {error}") from error
    assert isinstance(found, type) and issubclass(found, Liar), "a strategy is a kind of Liar"
    return found


def main() -> None:
    from node.config import read_config
    from node.daemon import CONFIG, Daemon

    parser = argparse.ArgumentParser(description="Run a guardian's node that lies.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--passphrase-file", type=Path, required=True)
    options = parser.parse_args()
    daemon = Daemon(
        options.home, read_config(options.home / CONFIG, flags={}, environment={}),
        open_core=open_liar,
    )  # fmt: skip
    daemon.unlock(options.passphrase_file.read_bytes().rstrip(b"\n"))
    trio.run(daemon.run, sys.stderr)


if __name__ == "__main__":
    main()
