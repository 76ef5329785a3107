"""Who guards: introductions, rosters, the federation's id, and invites.

A roster is a signed list of seats for one epoch. The federation *is* its first roster: its
id is the hash of that body, so whoever knows the id can check the roster offered by anyone.
Seats are numbered from 0 and never renumbered; the evaluation point of a seat is seat + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.contract import Verified
from protocol.encoding import decode, encode, from_text, hash256, to_text
from protocol.errors import Malformed, Refused
from protocol.keys import SigningKey
from protocol.limits import (
    DAY,
    NAME_BYTES_MAX,
    SEATS_MAX,
    SEATS_MIN,
    STATEMENT_BYTES_MAX,
    THRESHOLD_MIN,
)
from protocol.statements import (
    OTHERS,
    Codec,
    fits,
    id32,
    key32,
    list_of,
    octets,
    octets_up_to,
    shape,
    text,
    uint,
)

INTRODUCTION_PREFIX: Final = "hfintro"
INVITE_PREFIX: Final = "hf"
PHRASE_BYTES: Final = 11  # eight words of 11 bits: 2^88 tries to find a look-alike
INVITE_ENDPOINTS_MAX: Final = 12  # more do not fit a QR that an old phone reads
WAITING_CEILING: Final = 90 * DAY  # a thief must not be able to set a hundred years
WAITING_DEFAULT: Final = 1 * DAY  # time enough for the owner of an old phone to object


@dataclass(frozen=True)
class Guardian:
    """One seat: a person or body, their keys, and how to reach them.

    `identity` (Ed25519) signs, `sealing` (X25519) receives shards, `transport` (Ed25519)
    holds the links, under a certificate whose self-signature is `certificate`.
    `address` is host:port, or empty for a guardian that only dials out.
    """

    seat: int
    name: str
    identity: bytes
    sealing: bytes
    transport: bytes
    certificate: bytes
    address: str
    contact: str
    languages: tuple[str, ...]
    hours: str


@dataclass(frozen=True)
class Bounds:
    """What a member's policy may say: quorum in votes, waiting period in milliseconds."""

    quorum_floor: int
    quorum_ceiling: int
    waiting_floor: int = 0
    waiting_ceiling: int = WAITING_CEILING
    waiting_default: int = WAITING_DEFAULT


_BOUNDS: Final = dict.fromkeys(
    ("quorum_floor", "quorum_ceiling", "waiting_floor", "waiting_ceiling", "waiting_default"), uint
)
_KEYS: Final = ("name", "sealing", "transport", "certificate", "address", "contact", "languages")
_SEAT: Final = {
    "seat": uint,
    "identity": key32,
    **{key: OTHERS["introduction"][key] for key in (*_KEYS, "hours")},
}
_ROSTER: Final = {
    "name": OTHERS["introduction"]["name"],
    "epoch": uint,
    "threshold": uint,
    "seats": list_of(shape(_SEAT), SEATS_MAX),
    "bounds": shape(_BOUNDS),
    "previous": id32,
    "nonce": octets(16),
    "created": uint,
}


@dataclass(frozen=True)
class Roster:
    """The guardians of one epoch. `body` is what they sign, `id` its hash."""

    name: str
    epoch: int
    threshold: int
    guardians: tuple[Guardian, ...]
    bounds: Bounds
    previous: bytes
    created: int
    body: bytes = field(repr=False)
    id: bytes = field(repr=False)

    def at(self, seat: int) -> Guardian | None:
        return next((guardian for guardian in self.guardians if guardian.seat == seat), None)

    def by_identity(self, key: bytes) -> Guardian | None:
        return next((guardian for guardian in self.guardians if guardian.identity == key), None)

    def named(self, seat: int) -> str:
        """The guardian's name, for sentences."""
        guardian = self.at(seat)
        return guardian.name if guardian else f"seat {seat}"

    @property
    def seats(self) -> tuple[int, ...]:
        return tuple(guardian.seat for guardian in self.guardians)

    @property
    def phrase(self) -> bytes:
        """What people compare, to be shown as words."""
        return hash256("hf/phrase", self.id)[:PHRASE_BYTES]


def introduce(
    key: SigningKey,
    *,
    name: str,
    sealing: bytes,
    transport: bytes,
    certificate: bytes,
    address: str,
    contact: str,
    languages: Sequence[str],
    hours: str,
    now: int,
) -> Verified:
    """Sign the introduction of a future guardian."""
    if not name.strip():
        raise Refused("an introduction needs a name by which the others know you")
    fields = {
        "name": name.strip(),
        "sealing": sealing,
        "transport": transport,
        "certificate": certificate,
        "address": address,
        "contact": contact,
        "languages": list(languages),
        "hours": hours,
        "created": now,
    }
    if not fits(fields, OTHERS["introduction"]):
        raise Refused(
            "the introduction is too long: a name has up to 64 bytes, address, contact and "
            "hours up to 200 each"
        )
    return Codec().sign(key, "introduction", fields)


def introduction_text(introduction: Verified) -> str:
    """The one line that a future guardian hands to the organiser."""
    return to_text(INTRODUCTION_PREFIX, introduction.raw)


def read_introduction(line: str) -> Verified:
    """Read an introduction back and check its signature."""
    return Codec().verify(from_text(INTRODUCTION_PREFIX, line), "introduction")


def draft(
    name: str,
    threshold: int,
    introductions: Sequence[Verified],
    *,
    now: int,
    nonce: bytes,
    quorum: int | None = None,
    waiting_default: int = WAITING_DEFAULT,
    waiting_floor: int = 0,
    waiting_ceiling: int = WAITING_CEILING,
) -> Roster:
    """Draft the first roster from introductions, seats in their order.

    Raises `Refused` with the sentence for the organiser when a rule is broken.
    """
    _check_count(threshold, len(introductions))
    if len(name.strip().encode(errors="replace")) > NAME_BYTES_MAX:
        raise Refused(f"the name of a federation has up to {NAME_BYTES_MAX} bytes: one line")
    seats = [
        {
            "seat": seat,
            "identity": statement.by,
            **{key: statement.body[key] for key in (*_KEYS, "hours")},
        }
        for seat, statement in enumerate(introductions)
    ]
    body = {
        "name": name.strip(),
        "epoch": 0,
        "threshold": threshold,
        "seats": seats,
        "bounds": {
            "quorum_floor": quorum if quorum is not None else threshold,
            "quorum_ceiling": len(seats),
            "waiting_floor": waiting_floor,
            "waiting_ceiling": waiting_ceiling,
            "waiting_default": waiting_default,
        },
        "previous": bytes(32),
        "nonce": nonce,
        "created": now,
    }
    return read_roster(encode(body))


def read_roster(body: bytes) -> Roster:
    """Read a roster's body and hold it against the rules.

    Raises `Malformed` for bytes that are no roster, `Refused` for a roster that breaks a
    rule, with the names of those concerned.
    """
    fields = decode(body, limit=STATEMENT_BYTES_MAX // 2)
    if type(fields) is not dict or not fits(fields, _ROSTER):
        raise Malformed("this is not a roster, or it is one of a later version of Holdfast")
    guardians = tuple(
        Guardian(**{**seat, "languages": tuple(seat["languages"])}) for seat in fields["seats"]
    )
    _check_seats(fields["name"], fields["threshold"], guardians)
    bounds = Bounds(**fields["bounds"])
    _check_bounds(bounds, fields["threshold"], len(guardians))
    return Roster(
        name=fields["name"],
        epoch=fields["epoch"],
        threshold=fields["threshold"],
        guardians=guardians,
        bounds=bounds,
        previous=fields["previous"],
        created=fields["created"],
        body=body,
        id=hash256("hf/federation", body),
    )


def _check_count(threshold: int, count: int) -> None:
    if count < SEATS_MIN or count > SEATS_MAX:
        raise Refused(
            f"a federation has from {SEATS_MIN} to {SEATS_MAX} guardians, this one {count}"
        )
    if threshold < THRESHOLD_MIN:
        raise Refused(
            f"a threshold of {threshold} would let one guardian alone take every key; "
            f"the least is {THRESHOLD_MIN}"
        )
    if threshold > count:
        raise Refused(
            f"a threshold of {threshold} can never be reached by {count} guardians; "
            f"the most is {count}"
        )


def _check_seats(name: str, threshold: int, guardians: tuple[Guardian, ...]) -> None:
    if not name:
        raise Refused("a federation needs a name")
    count = len(guardians)
    _check_count(threshold, count)
    if [guardian.seat for guardian in guardians] != list(range(count)):
        raise Malformed("the seats of a first roster are numbered from 0, in order")
    for what in ("name", "identity", "sealing", "transport", "address"):
        _check_distinct(what, guardians)


def _check_distinct(what: str, guardians: tuple[Guardian, ...]) -> None:
    seen: dict[Any, str] = {}
    for guardian in guardians:
        value = getattr(guardian, what)
        if value in seen and value != "":
            shown = f" ({value})" if what in ("address", "name") else ""
            noun = what if what in ("address", "name") else f"{what} key"
            raise Refused(
                f"{seen[value]} and {guardian.name} have the same {noun}{shown}; "
                "each guardian needs one of their own"
            )
        seen[value] = guardian.name


def _check_bounds(bounds: Bounds, threshold: int, count: int) -> None:
    if not threshold <= bounds.quorum_floor <= bounds.quorum_ceiling <= count:
        raise Refused(
            f"a quorum lies between the threshold, {threshold}, and the number of guardians, "
            f"{count}; the draft says from {bounds.quorum_floor} to {bounds.quorum_ceiling}"
        )
    if not bounds.waiting_floor <= bounds.waiting_default <= bounds.waiting_ceiling:
        raise Refused("the usual waiting period lies outside what the draft allows")
    if bounds.waiting_ceiling > WAITING_CEILING:
        raise Refused(
            f"a waiting period has at most {WAITING_CEILING // DAY} days: a thief could use a "
            "longer one to lock a member out"
        )


# --- signatures ------------------------------------------------------------------------


def sign_roster(key: SigningKey, roster: Roster) -> Verified:
    """A guardian's signature of a draft, good for this body alone."""
    return Codec(roster.id).sign(key, "roster", {"body": roster.body})


@dataclass(frozen=True)
class Signed:
    """A roster with the signatures of all its guardians, in the order of the seats."""

    roster: Roster
    signatures: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        return encode({"body": self.roster.body, "signatures": list(self.signatures)})


def read_signed(raw: bytes, federation: bytes | None = None) -> Signed:
    """Read a first roster and check every guardian's signature.

    `federation` is the id it must have, where one is known. Raises `Malformed`,
    `BadSignature`, or `Refused` when it is another federation.
    """
    fields = decode(raw, limit=STATEMENT_BYTES_MAX)
    expected = {
        "body": octets_up_to(STATEMENT_BYTES_MAX // 2),
        "signatures": list_of(octets(64), SEATS_MAX),
    }
    if type(fields) is not dict or not fits(fields, expected):
        raise Malformed("this is not a signed roster")
    roster = read_roster(fields["body"])
    if roster.epoch != 0 or roster.previous != bytes(32):
        raise Malformed("a first roster is of epoch 0 and follows no other")
    # SPEC 4.4: the id is the hash of the body, so no other roster passes.
    if federation is not None and roster.id != federation:
        raise Refused("this is the roster of another federation than the one expected")
    if len(fields["signatures"]) != len(roster.guardians):
        raise Malformed("a roster needs the signature of each of its guardians")
    codec = Codec(roster.id)
    for guardian, signature in zip(roster.guardians, fields["signatures"], strict=True):
        codec.assemble("roster", guardian.identity, {"body": roster.body}, signature)
    return Signed(roster, tuple(fields["signatures"]))


# --- invites ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Endpoint:
    address: str
    transport: bytes


@dataclass(frozen=True)
class Invite:
    """What a member scans: the federation, the roster it was made under, whom to call."""

    federation: bytes
    epoch: int
    roster: bytes
    endpoints: tuple[Endpoint, ...]

    def to_text(self) -> str:
        """Uppercase bech32m, which a QR code holds at 5.5 bits a character."""
        return to_text(
            INVITE_PREFIX,
            encode(
                {
                    "f": self.federation,
                    "e": self.epoch,
                    "r": self.roster,
                    "a": [[point.address, point.transport] for point in self.endpoints],
                }
            ),
        )


def invite(genesis: bytes, roster: Roster, addresses: Mapping[int, Endpoint]) -> Invite:
    """Make the invite: max(t, n − t + 1) reachable guardians, so that one is honest."""
    wanted = max(roster.threshold, len(roster.guardians) - roster.threshold + 1)
    reachable = [addresses[seat] for seat in roster.seats if seat in addresses]
    if not reachable:
        raise Refused("no guardian of this federation can be reached from outside")
    endpoints = tuple(reachable[: min(wanted, INVITE_ENDPOINTS_MAX)])
    return Invite(genesis, roster.epoch, roster.id, endpoints)


def read_invite(line: str) -> Invite:
    """Read an invite from its text. Raises `Malformed` with a sentence for the member."""
    fields = decode(from_text(INVITE_PREFIX, line), limit=4096)
    if type(fields) is not dict or not fits(
        fields, {"f": id32, "e": uint, "r": id32, "a": list_of(_is_endpoint, INVITE_ENDPOINTS_MAX)}
    ):
        raise Malformed("this invite is of a later version of Holdfast; update the wallet")
    if not fields["a"]:
        raise Malformed("this invite names no guardian to call; ask for another one")
    endpoints = tuple(Endpoint(address, key) for address, key in fields["a"])
    return Invite(fields["f"], fields["e"], fields["r"], endpoints)


def _is_endpoint(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and text(200)(value[0]) and key32(value[1])
