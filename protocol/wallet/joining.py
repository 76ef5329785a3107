"""Join a federation: hold what guardians answer against the invite, and say what it means.

The federation's id in the invite is the hash of its first roster, so one answer that fits
is as good as all; nothing that a guardian says is believed beyond that. Where a guardian
listens today is believed when that guardian signed it, the highest number first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from protocol.contract import Verified
from protocol.errors import HoldfastError, Refused
from protocol.federation import Endpoint, Invite, Roster, Signed, read_invite, read_signed
from protocol.statements import Codec


@dataclass(frozen=True)
class Membership:
    """The federation as this wallet knows it.

    `addresses` holds, by seat, the newest signed `address` statement of each guardian.
    """

    invite: Invite
    signed: Signed
    addresses: Mapping[int, bytes]

    @property
    def roster(self) -> Roster:
        return self.signed.roster

    @property
    def federation(self) -> bytes:
        return self.invite.federation


def read_any_invite(line: str) -> Invite:
    """Read an invite as people paste it: with line breaks, spaces or a `holdfast:` in front."""
    compact = "".join(line.split())
    if compact.lower().startswith("holdfast:"):
        compact = compact[len("holdfast:") :]
    if not compact:
        raise Refused("no invite was given", hint="ask a guardian for the invite text or its QR")
    return read_invite(compact)


def check_roster(invite: Invite, raw: bytes) -> Signed:
    """Read the roster that a guardian answered with, and hold it against the invite.

    Raises `Refused` when it belongs to another federation or is older than the invite,
    `Malformed` or `BadSignature` when it is none at all.
    """
    signed = read_signed(raw, invite.federation)
    roster = signed.roster
    if roster.epoch < invite.epoch:
        raise Refused(
            f"a guardian answered with the list of epoch {roster.epoch}, and the invite was made "
            f"under epoch {invite.epoch}",
            hint="ask another guardian, or try again later",
        )
    if roster.epoch == invite.epoch and roster.id != invite.roster:
        raise Refused(
            "two different lists of guardians exist for one epoch of this federation",
            hint="do not go on; call the guardians you know and tell them this sentence",
        )
    return signed


def newest_addresses(
    roster: Roster, known: Mapping[int, bytes], heard: Iterable[bytes]
) -> dict[int, bytes]:
    """Merge address statements, the highest number of each guardian first; others are dropped."""
    best: dict[int, Verified] = {}
    codec = Codec(roster.id)
    for raw in (*(known[seat] for seat in sorted(known)), *heard):
        try:
            statement = codec.verify(raw, "address")
        except HoldfastError:
            continue
        guardian = roster.by_identity(statement.by)
        if guardian is None or not statement.known or statement.body["seat"] != guardian.seat:
            continue
        held = best.get(guardian.seat)
        if held is None or statement.body["number"] > held.body["number"]:
            best[guardian.seat] = statement
    return {seat: best[seat].raw for seat in sorted(best)}


def endpoints(roster: Roster, addresses: Mapping[int, bytes]) -> dict[int, Endpoint]:
    """Return where each guardian listens, by seat; those who only dial out are left out."""
    codec = Codec(roster.id)
    found: dict[int, Endpoint] = {}
    for guardian in roster.guardians:
        endpoint = Endpoint(guardian.address, guardian.transport)
        if guardian.seat in addresses:
            body = codec.read(addresses[guardian.seat]).body
            endpoint = Endpoint(body["address"], body["transport"])
        if endpoint.address:
            found[guardian.seat] = endpoint
    return found


def introduce_federation(roster: Roster) -> list[str]:
    """Say in a few lines what the member joins, before anything of theirs is sent there."""
    count = len(roster.guardians)
    lines = [
        f"{roster.name}: {count} guardians, any {roster.threshold} of them can give a key back",
    ]
    for guardian in roster.guardians:
        spoken = ", ".join(guardian.languages)
        known = [part for part in (guardian.contact, spoken, guardian.hours) if part]
        lines.append(f"  {guardian.name:<12} {' · '.join(known)}".rstrip())
    return lines
