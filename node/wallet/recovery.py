"""Recover a secret: claim it, wait with the person, catch false pieces, put it together.

Persisted before anything leaves: the keys of the claim. Persisted as it comes: every vote,
veto and release. So the window may be closed at any point, and `resume` goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from node.wallet.backup import tell_failure
from node.wallet.folder import ClaimRecord
from node.wallet.guardians import BACKOFF_FIRST, BACKOFF_MAX, Link
from node.wallet.session import Wallet, learn_addresses
from protocol import cases, sealing
from protocol.contract import Verified
from protocol.errors import (
    FaultyPiece,
    HoldfastError,
    Malformed,
    NotEnough,
    NotYet,
    Refused,
    WrongSecret,
)
from protocol.keys import SealingKey, SigningKey
from protocol.wallet import recovering
from protocol.wallet.gathering import Gathering
from protocol.wallet.recovering import Candidate, Caught, Device, Recovered, Recovery

SEED_BYTES: Final = 32
LINGER_SECONDS: Final = 3.0
"""How long to wait for the other pieces once enough are here: a false one among them should
be named while its receiver is looking."""
SUCCESSION_TRIES: Final = (
    6  # about fifteen seconds, for guardians that have yet to hear the releases
)
GATHER_SECONDS: Final = 600.0  # for two megabytes over the slowest telephone


async def begin(wallet: Wallet, full_name: str) -> ClaimRecord:
    """Make a claim and write it down with its keys; nothing has been sent yet."""
    signing = wallet.ports.entropy.draw(SEED_BYTES)
    opening = wallet.ports.entropy.draw(SEED_BYTES)
    device = Device(SigningKey(signing), SealingKey(opening))
    now = wallet.now()
    claim = recovering.make_claim(
        wallet.codec, wallet.roster, device, full_name, now=now, draws=wallet.draws()
    )
    stretched = await wallet.ports.workers.compute(
        lambda: sealing.stretch(claim.id, cases.CODE_SALT, wallet.ports.code_cost)
    )
    record = ClaimRecord(
        raw=claim.raw,
        code=cases.claim_code(stretched),
        signing=signing,
        opening=opening,
        name=full_name,
        started=now,
    )
    wallet.folder.state.claims.append(record)
    wallet.folder.save()
    return record


def restore(wallet: Wallet, record: ClaimRecord) -> Recovery:
    """Return what has been heard of a claim so far."""
    claim = wallet.codec.read(record.raw)
    recovery = Recovery(wallet.codec, wallet.roster, claim, record.device)
    recovery.restore(record.heard)
    return recovery


async def announce(wallet: Wallet, record: ClaimRecord) -> dict[int, HoldfastError]:
    """Send the claim to every guardian that can be reached, and return who could not be."""
    return await wallet.each(_claiming(record))


def _claiming(record: ClaimRecord) -> Callable[[int, Link], Any]:
    async def send(seat: int, link: Link) -> None:
        # Repeating it changes nothing, and a guardian may have been restored from a backup.
        await link.ask("claim", {"raw": record.raw, "code": record.code})

    return send


# --- following -------------------------------------------------------------------------


@dataclass
class Watch:
    """One claim being followed: what comes in is judged, kept and told."""

    wallet: Wallet
    record: ClaimRecord
    recovery: Recovery
    news: trio.Event = field(default_factory=trio.Event)
    linked: dict[int, bool] = field(default_factory=dict)
    _shown: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    _silent: dict[int, bool] = field(default_factory=dict)
    _refused: dict[int, Refused] = field(default_factory=dict)

    async def until_enough(self) -> None:
        """Follow the claim with every guardian until enough good pieces are here."""
        guardians = self.wallet.guardians()
        async with trio.open_nursery() as nursery:
            for seat in sorted(guardians.names):
                nursery.start_soon(guardians.keep, seat, self._attend, self._lost)
            nursery.start_soon(self._find_moved, nursery)
            while self.recovery.missing() != 0:
                self._check_refusals(len(guardians.names))
                await self._next()
            with trio.move_on_after(LINGER_SECONDS):
                while not self._all_heard():
                    await self._next()
            nursery.cancel_scope.cancel()

    async def _find_moved(self, nursery: trio.Nursery) -> None:
        """Follow at the new address, too, with whoever has moved."""
        for seat in await learn_addresses(self.wallet, self.wallet.roster.seats):
            nursery.start_soon(self.wallet.guardians().keep, seat, self._attend, self._lost)

    def _check_refusals(self, asked: int) -> None:
        """Stop waiting when everybody who could be asked has said no."""
        if asked and len(self._refused) == asked:
            raise self._refused[min(self._refused)]

    async def _next(self) -> None:
        await self.news.wait()
        self.news = trio.Event()

    def _all_heard(self) -> bool:
        heard = {*self.recovery.good, *(caught.seat for caught in self.recovery.caught)}
        return all(seat in heard for seat, up in self.linked.items() if up)

    async def _attend(self, seat: int, link: Link) -> None:
        await _claiming(self.record)(seat, link)
        if seat in self._silent:
            del self._silent[seat]
            self.wallet.tell({"event": "back", "guardian": link.name})
        self.linked[seat] = True
        link.heard = lambda kind, fields: self._hear(seat, kind, fields)
        await link.follow(self.recovery.claim.id)

    def _lost(self, seat: int, error: HoldfastError) -> None:
        self.linked[seat] = False
        self.news.set()
        if isinstance(error, Refused):
            self._refused[seat] = error
            tell_failure(self.wallet, seat, error)
            return
        if seat not in self._silent:
            self._silent[seat] = True
            name = self.wallet.roster.named(seat)
            self.wallet.tell({"event": "lost", "guardian": name, "why": str(error)})

    def _hear(self, seat: int, kind: str, fields: Mapping[str, Any]) -> None:
        changed = False
        if kind == "case":
            changed = self._hear_case(seat, fields)
        elif kind == "release" and type(fields.get("raw")) is bytes:
            changed = self._hear_release(fields["raw"])
        if changed:
            self.record.heard = self.recovery.kept()
            self.wallet.folder.save()
            self.news.set()

    def _hear_case(self, seat: int, fields: Mapping[str, Any]) -> bool:
        changed = False
        for raw in _raws(fields.get("votes")):
            vote = self.recovery.take_vote(raw)
            if vote is not None:
                changed = True
                event = {"event": "vote", "guardian": vote.guardian, "verdict": vote.verdict}
                self.wallet.tell({**event, "how": vote.how, "words": vote.words})
        for raw in _raws(fields.get("vetoes")):
            words = self.recovery.take_veto(raw)
            if words is not None:
                changed = True
                self.wallet.tell({"event": "veto", "words": words})
        self._show_case(seat, fields)
        return changed

    def _show_case(self, seat: int, fields: Mapping[str, Any]) -> None:
        numbers = {
            key: fields[key]
            for key in ("due", "approvals", "quorum")
            if type(fields.get(key)) is int
        }
        state, locked = fields.get("state"), fields.get("locked") is True
        if type(state) is not str or len(numbers) != 3:
            return
        shown = (state, locked, *numbers.values())
        if self._shown.get(seat) == shown:
            return
        self._shown[seat] = shown
        name = self.wallet.roster.named(seat)
        self.wallet.tell(
            {
                "event": "case",
                "guardian": name,
                "state": state,
                "locked": locked,
                "now": self.wallet.now(),
                **numbers,
            }
        )

    def _hear_release(self, raw: bytes) -> bool:
        result = self.recovery.take_release(raw)
        if result is None:
            return False
        if isinstance(result, Caught):
            tell_caught(self.wallet, result)
        else:
            name = self.wallet.roster.named(result.seat)
            event = {"event": "release", "guardian": name, "good": len(self.recovery.good)}
            self.wallet.tell({**event, "missing": self.recovery.missing() or 0})
        return True


def tell_caught(wallet: Wallet, caught: Caught) -> None:
    """Name a guardian whose piece is false."""
    wallet.tell({"event": "caught", "guardian": caught.guardian, "why": caught.why})


def _raws(value: Any) -> list[bytes]:
    if type(value) is not list:
        return []
    return [raw for raw in value if type(raw) is bytes]


# --- opening ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Opening:
    """A candidate and the name key that opens it, under which spelling."""

    candidate: Candidate
    name_key: bytes = field(repr=False)
    spelling: str = field(repr=False)


async def find_key(
    wallet: Wallet,
    recovery: Recovery,
    full_name: str,
    passphrase: str | None,
    *,
    near: bool,
    older: int = 0,
) -> Opening | None:
    """Try the name, and with `near` the spellings near it, on every version; None if none fits.

    `older` passes over so many that open: whoever had the old phone may have written them.
    Tells "guess" events: stretching takes 0.4 s a spelling.
    """
    candidates = recovery.candidates()
    cost = wallet.ports.cost
    for number, spelling in enumerate(recovering.guesses(full_name)):
        if number and not near:
            return None
        if number:
            wallet.tell({"event": "guess", "number": number})
        done: dict[tuple[bytes, str | None], bytes] = {}
        passed = 0
        for candidate in candidates:
            word = passphrase if candidate.needs_passphrase else None
            key = (candidate.pepper, word)
            if key not in done:
                password = sealing.name_password(spelling, word)
                done[key] = await wallet.ports.workers.compute(
                    lambda password=password, pepper=candidate.pepper: sealing.stretch(  # type: ignore[misc]
                        password, pepper, cost
                    )
                )
            name_key = recovering.unlock_name(candidate, done[key])
            if name_key is not None and passed < older:
                passed += 1
            elif name_key is not None:
                return Opening(candidate, name_key, spelling)
    return None


async def open_secret(wallet: Wallet, recovery: Recovery, opening: Opening) -> Recovered:
    """Return what was in the vault; fetches the fragments of a large one first.

    Raises `NotEnough` when too few guardians could serve good ones.
    """
    candidate = opening.candidate
    if candidate.is_whole:
        segments = [candidate.whole]
    else:
        segments = await _gather(wallet, recovery, candidate)
    return await wallet.ports.workers.compute(
        lambda: recovering.decrypt(candidate, opening.name_key, segments)
    )


async def _gather(wallet: Wallet, recovery: Recovery, candidate: Candidate) -> list[bytes]:
    gathering = Gathering(candidate)
    fields = {"claim": recovery.claim.id, "version": candidate.version.id}

    async def fetch(seat: int, link: Link) -> None:
        def take(fragment: Mapping[str, Any]) -> None:
            index, data, path = (fragment.get(key) for key in ("index", "data", "path"))
            if type(index) is not int or type(data) is not bytes or type(path) is not list:
                raise Malformed(f"{link.name} sent a part without its number, bytes and proof")
            try:
                gathering.take(seat, index, data, path)
            except FaultyPiece as error:
                tell_caught(wallet, recovery.catch(seat, str(error)))
                raise
            event = {"event": "fragment", "guardian": link.name}
            wallet.tell({**event, "done": gathering.done, "count": gathering.count})
            if gathering.is_complete:
                nursery.cancel_scope.cancel()

        await link.fragments(fields, take)

    with trio.move_on_after(GATHER_SECONDS):
        async with trio.open_nursery() as nursery:
            await _fetch_until_complete(wallet, fetch)
    return await wallet.ports.workers.compute(gathering.segments)


async def _fetch_until_complete(
    wallet: Wallet, fetch: Callable[[int, Link], Any], rounds: int = 6
) -> None:
    """Ask all guardians again and again: one that was off may come back."""
    wanting: list[int] | None = None
    pause = BACKOFF_FIRST
    for _ in range(rounds):
        failed = await wallet.each(fetch, wanting)
        # Who served something false is not asked again, who refused or was away is.
        wanting = [seat for seat, error in failed.items() if not isinstance(error, FaultyPiece)]
        if not wanting:
            return
        await trio.sleep(pause)
        pause = min(2 * pause, BACKOFF_MAX)


def why_not_open(recovery: Recovery, passphrase: str | None) -> HoldfastError:
    """Say what to do when neither the name nor a spelling near it opens what was released."""
    if not recovery.candidates():
        missing = recovery.missing()
        if missing is None:
            return NotYet("no guardian has released a piece yet")
        return NotEnough(f"{missing} more good pieces are needed")
    locked = any(candidate.needs_passphrase for candidate in recovery.candidates())
    if locked and passphrase is None:
        return WrongSecret(
            "this backup was made with a passphrase, and none was given; the pieces are kept",
            hint="run: holdfast wallet resume, and give it",
        )
    what = "name or the passphrase" if locked else "name"
    return WrongSecret(
        f"the pieces are here, but the {what} is not the one they were locked with; "
        "they are kept, and no guardian is needed to try again",
        hint="run: holdfast wallet resume, with the name written as in a passport",
    )


# --- afterwards ------------------------------------------------------------------------


def succession(wallet: Wallet, record: ClaimRecord, deal: Verified) -> Verified:
    """Sign that this device owns the vault from now on."""
    claim = wallet.codec.read(record.raw)
    return recovering.succeed(wallet.codec, record.device, claim, deal, wallet.now())


async def succeed(wallet: Wallet, record: ClaimRecord) -> dict[int, HoldfastError]:
    """Tell every guardian who owns the vault now; return those that did not take it."""

    async def work(seat: int, link: Link) -> None:
        await link.ask("succeed", {"raw": record.succession})
        record.told = sorted({*record.told, seat})
        wallet.folder.save()

    untold = [seat for seat in wallet.roster.seats if seat not in record.told]
    return await wallet.each(work, untold, tries=SUCCESSION_TRIES, patient=True)
