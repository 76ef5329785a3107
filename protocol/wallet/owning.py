"""Own a vault: what its owner key signs besides deals, and what guardians answer to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol import cases
from protocol.contract import Verified
from protocol.errors import HoldfastError, Malformed, Refused
from protocol.federation import Roster
from protocol.keys import SigningKey
from protocol.limits import TEXT_CHARS_MAX
from protocol.statements import NOTHING, Check, Codec, flag, id32, list_of, shape, text, uint

# --- what the owner says ---------------------------------------------------------------


def seen(codec: Codec, owner: SigningKey, vault_id: bytes, now: int) -> Verified:
    """Sign that the wallet was on. Proves nothing; asks for news."""
    return codec.sign(owner, "seen", {"vault": vault_id, "at": now})


def check_in(
    codec: Codec, owner: SigningKey, vault_id: bytes, now: int, *, claim: bytes = NOTHING
) -> Verified:
    """Sign that the owner is alive. It contests an estate only when it names the claim."""
    return codec.sign(owner, "check-in", {"vault": vault_id, "claim": claim, "at": now})


def veto(
    codec: Codec, owner: SigningKey, vault_id: bytes, claim: bytes, words: str, now: int
) -> Verified:
    """Sign that a claim is not the owner's. `words` go to the guardians, 280 characters."""
    if len(words) > TEXT_CHARS_MAX:
        raise Refused(
            f"the message to the guardians has {len(words)} characters; "
            f"{TEXT_CHARS_MAX} are possible"
        )
    fields = {"vault": vault_id, "claim": claim, "words": words, "at": now}
    return codec.sign(owner, "veto", fields)


def hand_over(codec: Codec, owner: SigningKey, vault_id: bytes, to: bytes, now: int) -> Verified:
    """Sign that the key `to`, of another device, owns the vault from now on."""
    return codec.sign(owner, "handover", {"vault": vault_id, "to": to, "at": now})


def leave(
    codec: Codec, owner: SigningKey, vault_id: bytes, now: int, *, stay: bool = False
) -> Verified:
    """Sign that guardians shall erase the vault in seven days, or shall not after all."""
    return codec.sign(owner, "leave", {"vault": vault_id, "stay": stay, "at": now})


# --- what a guardian answers -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenCase:
    """A claim on one's own vault, as a guardian tells it. Times in ms, 0 for none."""

    claim: bytes
    opened: int
    approvals: int
    quorum: int
    due: int
    state: str


@dataclass(frozen=True, slots=True)
class Held:
    """What one guardian holds of a vault. `versions` are (id, number, settled, at)."""

    deal: bytes
    number: int
    versions: tuple[tuple[bytes, int, bool, int], ...]
    since: int
    leaving: int
    cases: tuple[OpenCase, ...]
    erased: bytes

    def holds(self, version: bytes) -> bool:
        return any(id_ == version for id_, *_ in self.versions)


_CASE = {
    "claim": id32,
    "opened": uint,
    "approvals": uint,
    "quorum": uint,
    "due": uint,
    "state": text(40),
}
_CASES_MAX = 256  # on one vault; an honest guardian has one or two
_VERSIONS_MAX = 64


def _is_version(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 4
        and id32(value[0])
        and uint(value[1])
        and flag(value[2])
        and uint(value[3])
    )


def read_held(fields: Mapping[str, Any]) -> Held:
    """Read the answer to `seen`. Raises `Malformed` when it does not look like one."""
    erased = fields.get("erased")
    if type(erased) is bytes and erased:
        return Held(NOTHING, 0, (), 0, 0, (), erased)
    checks: dict[str, Check] = {
        "deal": id32,
        "number": uint,
        "versions": list_of(_is_version, _VERSIONS_MAX),
        "since": uint,
        "leaving": uint,
        "cases": list_of(shape(_CASE), _CASES_MAX),
    }
    if any(key not in fields or not check(fields[key]) for key, check in checks.items()):
        raise Malformed("a guardian's answer does not have the parts it should have")
    return Held(
        deal=fields["deal"],
        number=fields["number"],
        versions=tuple((each[0], each[1], each[2], each[3]) for each in fields["versions"]),
        since=fields["since"],
        leaving=fields["leaving"],
        cases=tuple(OpenCase(**case) for case in fields["cases"]),
        erased=b"",
    )


def claims_on(held: Mapping[int, Held]) -> list[tuple[OpenCase, tuple[int, ...]]]:
    """Return every claim under way on a vault, with the seats that know of it.

    Of what several guardians tell the furthest is shown: the owner had better know early.
    """
    found: dict[bytes, OpenCase] = {}
    seats: dict[bytes, list[int]] = {}
    for seat in sorted(held):
        for case in held[seat].cases:
            if case.state == cases.EXPIRED:
                continue
            known = found.get(case.claim)
            if known is None or case.approvals > known.approvals:
                found[case.claim] = case
            seats.setdefault(case.claim, []).append(seat)
    order = sorted(found.values(), key=lambda case: (case.opened, case.claim))
    return [(case, tuple(seats[case.claim])) for case in order]


def describe_claim(case: OpenCase, roster: Roster, seats: Sequence[int], now: int) -> str:
    """Say in a sentence how far a claim on one's vault has come."""
    who = ", ".join(roster.named(seat) for seat in seats)
    parts = [f"{case.approvals} of {case.quorum} guardians approved"]
    if case.state == cases.CONTESTED:
        parts.append("you objected")
    elif case.state == cases.RELEASED:
        parts.append("pieces have been released")
    elif case.due:
        left = max(0, case.due - now)
        parts.append(f"pieces are released in {duration(left)}")
    return f"somebody claims this backup ({', '.join(parts)}; told by {who})"


def take_erased(codec: Codec, roster: Roster, seat: int, vault_id: bytes, raw: bytes) -> bool:
    """Whether a guardian's word that a vault is erased is signed and about this vault."""
    guardian = roster.at(seat)
    try:
        erased = codec.verify(raw, "erased")
    except HoldfastError:
        return False
    same = erased.body["vault"] == vault_id and erased.body["seat"] == seat
    return guardian is not None and erased.by == guardian.identity and same


def duration(ms: int) -> str:
    """Say a length of time as people do: the two largest units."""
    seconds = -(-ms // 1000)
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    named = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    shown = [f"{count} {unit}" for count, unit in named if count][:2]
    return " ".join(shown) or "0 s"
