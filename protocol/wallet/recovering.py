"""Recover: make a claim, judge what guardians answer, and put the secret together again.

1. A vote counts by its own signature, whoever carried it; of each guardian the highest
   revision. A release is opened with the device's key and every part of it checked against
   what the owner signed; one that fails is left out and its guardian *named*.
2. Of the versions released the newest with a threshold of good shards goes first.
3. A wrong name or passphrase costs nothing: releases are kept and tried again, offline.

Nothing here waits, sends or stretches a password: that is for whoever calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol import sealing, sharing, vault
from protocol.cases import CLAIM_LIFE_MAX
from protocol.contract import Verified
from protocol.errors import FaultyPiece, HoldfastError, WrongSecret
from protocol.federation import Roster
from protocol.keys import SealingKey, SigningKey
from protocol.limits import FULL_NAME_BYTES_MAX
from protocol.names import composed, near_spellings, normalise
from protocol.statements import NOTHING, Codec
from protocol.vault import Opened, Payload
from protocol.wallet.drawing import Draws

CLAIM_LIFE: Final = CLAIM_LIFE_MAX  # outlives any waiting period and any veto; in ms
ENTRIES_SEEN: Final = 1024  # entries known by their bytes: all that honest guardians send
RELEASES_MAX: Final = 4  # kept of one guardian: one for each deal of a vault

# --- the claim -------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Device:
    """The keys of the device that claims: to sign, and to open what is released to it."""

    signing: SigningKey
    sealing: SealingKey

    def __repr__(self) -> str:
        return "Device(…)"


def make_claim(
    codec: Codec,
    roster: Roster,
    device: Device,
    full_name: str,
    *,
    now: int,
    draws: Draws,
    kind: str = "recovery",
    vault_id: bytes = NOTHING,
) -> Verified:
    """Sign a claim for whatever lies under a full name.

    The name travels once, encrypted; only the guardians of the roster can read it.
    `vault_id` narrows it to one vault where it is known. Raises `Refused` for a name that
    has no normal form.
    """
    normalise(full_name)
    key = draws.draw(sealing.KEY_BYTES)
    padded = composed(full_name).encode().ljust(FULL_NAME_BYTES_MAX, b"\0")
    fields = {
        "kind": kind,
        "device": device.sealing.public,
        "name": sealing.lock(key, padded, draws.draw(sealing.NONCE_BYTES)),
        "seats": list(roster.seats),
        "wraps": [
            sealing.seal(guardian.sealing, key, draws.draw(32)) for guardian in roster.guardians
        ],
        "vault": vault_id,
        "nonce": draws.draw(16),
        "evidence": [],
        "created": now,
        "expires": now + CLAIM_LIFE,
    }
    return codec.sign(device.signing, "claim", fields)


# --- what guardians answer -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Vote:
    """A guardian's latest word on the claim, for the person who waits for it."""

    seat: int
    guardian: str
    verdict: str
    how: str
    words: str
    revision: int
    vault: bytes
    deal: bytes


@dataclass(frozen=True, slots=True)
class Caught:
    """A guardian whose piece failed its check, and why."""

    seat: int
    guardian: str
    why: str


@dataclass(frozen=True)
class Candidate:
    """A version that can be put together: shares of a threshold of guardians are here.

    `holders` released this version themselves; `whole` is its ciphertext, empty for a
    large one.
    """

    deal: Verified
    version: Verified
    whole: bytes
    pepper: bytes
    holders: tuple[int, ...]
    shares: Mapping[int, bytes] = field(repr=False)

    @property
    def is_whole(self) -> bool:
        return vault.is_whole(self.version)

    @property
    def needs_passphrase(self) -> bool:
        return bool(self.version.body["passphrase"])


class Recovery:
    """What has been heard of one claim. Everything in it follows from the bytes it took."""

    def __init__(self, codec: Codec, roster: Roster, claim: Verified, device: Device) -> None:
        self._codec = codec
        self._roster = roster
        self._device = device
        self.claim = claim
        self._votes: dict[int, tuple[Verified, Vote]] = {}
        self._vetoes: dict[bytes, Verified] = {}
        self._releases: dict[bytes, Verified] = {}
        self._opened: dict[tuple[int, bytes], Opened] = {}  # by seat and deal
        self._caught: dict[int, Caught] = {}
        # All guardians send what each has signed, and the same deal is in every release:
        # everything is checked once, and a repetition known by its bytes.
        self._seen: dict[bytes, bool] = {}
        self._checked: dict[bytes, Verified] = {}

    # What is taken in. Each answers with what is new in it, or None.

    def take_vote(self, raw: bytes) -> Vote | None:
        """Take a vote; None when it is known, older, about another claim, or not signed."""
        found = self._entry(raw, "vote")
        if found is None:
            return None
        entry, seat = found
        body = entry.body
        held = self._votes.get(seat)
        if held is not None and held[1].revision >= body["revision"]:
            return None
        vote = Vote(
            seat=seat,
            guardian=self._roster.named(seat),
            verdict=body["verdict"],
            how=body["how"],
            words=body["words"],
            revision=body["revision"],
            vault=body["vault"],
            deal=body["deal"],
        )
        self._votes[seat] = (entry, vote)
        return vote

    def take_veto(self, raw: bytes) -> str | None:
        """Take an objection by whoever holds the owner key; its words, the first time."""
        try:
            veto = self._codec.verify(raw, "veto")
        except HoldfastError:
            return None
        if veto.body["claim"] != self.claim.id or veto.id in self._vetoes:
            return None
        self._vetoes[veto.id] = veto
        return str(veto.body["words"])

    def take_release(self, raw: bytes) -> Opened | Caught | None:
        """Take a release and check every part of it; None when it is known or not signed."""
        found = self._entry(raw, "release")
        if found is None or found[0].id in self._releases:
            return None
        entry, seat = found
        if sum(held.body["seat"] == seat for held in self._releases.values()) >= RELEASES_MAX:
            return None
        self._releases[entry.id] = entry
        try:
            opened = self._open(entry, seat)
        except HoldfastError as error:
            return self.catch(seat, str(error))
        self._opened[seat, opened.deal.id] = opened
        return opened

    def catch(self, seat: int, why: str) -> Caught:
        """Note that a guardian served something false; the first time is what is shown."""
        caught = Caught(seat, self._roster.named(seat), why)
        return self._caught.setdefault(seat, caught)

    def _entry(self, raw: bytes, type_: str) -> tuple[Verified, int] | None:
        """A log entry about this claim by the guardian whose seat it names, once."""
        if raw in self._seen:
            return None
        try:
            entry = self._codec.verify(raw, type_)
        except HoldfastError:
            return None  # the fault of who carried it, not of who is said to have signed it
        if len(self._seen) < ENTRIES_SEEN:
            self._seen[raw] = True
        guardian = self._roster.by_identity(entry.by)
        if guardian is None or not entry.known or entry.body["seat"] != guardian.seat:
            return None
        return (entry, guardian.seat) if entry.body["claim"] == self.claim.id else None

    def _open(self, entry: Verified, seat: int) -> Opened:
        body = entry.body
        try:
            plain = self._device.sealing.open(body["box"])
        except HoldfastError as error:
            raise FaultyPiece("the piece is damaged, or sealed for another device") from error
        opened = vault.read_release(self._codec, seat, plain, body["deal"], self._checked)
        if opened.deal.body["vault"] != body["vault"]:
            raise FaultyPiece("the piece belongs to another vault than the release says")
        # Two guardians could otherwise invent a deal for two and pass it off as yours.
        if vault.threshold_of(opened.deal) < self._roster.threshold:
            raise FaultyPiece("the piece is of a deal that too few guardians could put together")
        if any(version.by != opened.deal.by for version, _ in opened.versions):
            raise FaultyPiece("a version is signed by somebody else than the deal it belongs to")
        return opened

    # What it amounts to.

    @property
    def votes(self) -> list[Vote]:
        return [vote for _, (_, vote) in sorted(self._votes.items())]

    @property
    def caught(self) -> list[Caught]:
        return [caught for _, caught in sorted(self._caught.items())]

    @property
    def good(self) -> list[int]:
        """The seats that released a piece which passed all checks."""
        return sorted({seat for seat, _ in self._opened})

    def kept(self) -> dict[str, list[bytes]]:
        """The bytes to keep: `take_…` of each brings this state back."""
        return {
            "votes": [entry.raw for _, (entry, _) in sorted(self._votes.items())],
            "vetoes": [veto.raw for _, veto in sorted(self._vetoes.items())],
            "releases": [entry.raw for _, entry in sorted(self._releases.items())],
        }

    def restore(self, kept: Mapping[str, Iterable[bytes]]) -> None:
        """Take again what `kept` gave out."""
        for raw in kept["votes"]:
            self.take_vote(raw)
        for raw in kept["vetoes"]:
            self.take_veto(raw)
        for raw in kept["releases"]:
            self.take_release(raw)

    def missing(self) -> int | None:
        """How many more good pieces are needed; 0 when they are here, None when none came."""
        groups = self._by_deal()
        if not groups:
            return None
        return min(max(0, vault.threshold_of(each[0].deal) - len(each)) for each in groups)

    def candidates(self) -> list[Candidate]:
        """The versions that can be put together, the likeliest first.

        First those that a threshold of guardians released, the newest before the older ones;
        then those that fewer hold, which an unfinished backup leaves behind.
        """
        found: list[tuple[tuple[bool, int, int], Candidate]] = []
        for group in self._by_deal():
            threshold = vault.threshold_of(group[0].deal)
            if len(group) < threshold:
                continue
            for candidate in _versions(group):
                deal_number = candidate.deal.body["number"]
                enough = len(candidate.holders) >= threshold
                rank = (not enough, -deal_number, -candidate.version.body["number"])
                found.append((rank, candidate))
        return [candidate for _, candidate in sorted(found, key=lambda pair: pair[0])]

    def _by_deal(self) -> list[list[Opened]]:
        groups: dict[bytes, list[Opened]] = {}
        for _, opened in sorted(self._opened.items()):
            groups.setdefault(opened.deal.id, []).append(opened)
        return [groups[deal] for deal in sorted(groups)]


def _versions(group: Sequence[Opened]) -> Iterator[Candidate]:
    versions: dict[bytes, tuple[Verified, bytes]] = {}
    holders: dict[bytes, list[int]] = {}
    for opened in group:
        for version, whole in opened.versions:
            versions.setdefault(version.id, (version, whole))
            holders.setdefault(version.id, []).append(opened.seat)
    for id_, (version, whole) in sorted(versions.items()):
        yield Candidate(
            deal=group[0].deal,
            version=version,
            whole=whole,
            pepper=group[0].pepper,
            holders=tuple(sorted(set(holders[id_]))),
            shares={opened.seat: opened.share for opened in group},
        )


# --- opening ---------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Recovered:
    """The end of a recovery: what was in the vault, and what is needed to deal it anew."""

    deal: Verified
    version: Verified
    secret: bytes
    payload: Payload

    def __repr__(self) -> str:
        return f"Recovered({self.payload.form}, …)"


def combine(candidate: Candidate) -> bytes:
    """Return the deal's shared secret, 32 bytes, from the shares of a threshold.

    Raises `NotEnough` with fewer, `FaultyPiece` when the result is not what the owner
    committed to.
    """
    secret = sharing.combine(vault.threshold_of(candidate.deal), candidate.shares)
    if sharing.secret_point(secret) != candidate.deal.body["commitments"][0]:
        raise FaultyPiece("the pieces fit, but give back another secret than the owner dealt")
    return sharing.encode_scalar(secret)


def unlock_name(candidate: Candidate, stretched: bytes) -> bytes | None:
    """Return the name key if a stretched name opens this version, else None."""
    return sealing.unwrap_name_key(candidate.version.body["wraps"], stretched)


def guesses(full_name: str) -> Iterator[str]:
    """Return the normal forms to try: the name as typed, then spellings near it."""
    yield normalise(full_name)
    yield from near_spellings(full_name)


def decrypt(candidate: Candidate, name_key: bytes, segments: Sequence[bytes]) -> Recovered:
    """Return the payload; nothing of it unless all of it passes its checks.

    Raises `NotEnough`, `FaultyPiece`, or `WrongSecret` when the owner made it wrongly.
    """
    if vault.ciphertext_hash(segments) != candidate.version.body["ciphertext"]:
        raise FaultyPiece("the encrypted payload is not the one the owner signed")
    secret = combine(candidate)
    key = sealing.payload_key(
        name_key, secret, candidate.deal.body["vault"], candidate.version.body["salt"]
    )
    plain = sealing.decrypt_payload(key, segments)
    try:
        payload = vault.read_payload(plain)
    except (HoldfastError, TypeError, KeyError) as error:
        raise WrongSecret(
            "the backup opens, but what it holds was written by another version of Holdfast",
            hint="install the newest version and run: holdfast wallet resume",
        ) from error
    return Recovered(candidate.deal, candidate.version, secret, payload)


# --- afterwards ------------------------------------------------------------------------


def succeed(codec: Codec, device: Device, claim: Verified, deal: Verified, now: int) -> Verified:
    """Sign that the device's key is the owner key of the vault from now on."""
    fields = {"vault": deal.body["vault"], "claim": claim.id, "former": deal.by, "at": now}
    return codec.sign(device.signing, "succession", fields)
