"""What a backup is worth: who holds a piece, who has not answered, and what that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol import vault
from protocol.federation import Roster
from protocol.policy import policy_of
from protocol.statements import Codec
from protocol.wallet.backing_up import Backup


@dataclass(frozen=True)
class Standing:
    """Who holds a piece, who has not answered, and what that means.

    `needed` is how many give the key back; `safe` says that they are there.
    """

    held: tuple[int, ...]
    missing: tuple[int, ...]
    needed: int
    sentence: str

    @property
    def safe(self) -> bool:
        return len(self.held) >= self.needed

    @property
    def complete(self) -> bool:
        return not self.missing


def standing(codec: Codec, roster: Roster, backup: Backup) -> Standing:
    """Say plainly who holds a piece and what that means."""
    statement = codec.read(backup.deal)
    holders = statement.body["holders"]
    needed = max(policy_of(statement).quorum, vault.threshold_of(statement))
    if backup.foreign:
        sentence = (
            f"any {needed} of {len(holders)} still give back what your other device backed up; "
            "run `holdfast wallet resume` to deal it anew for this one"
        )
        return Standing((), tuple(holders), needed, sentence)
    held = tuple(seat for seat in holders if seat in backup.receipts)
    missing = tuple(seat for seat in holders if seat not in backup.receipts)
    parts = [f"{len(held)} of {len(holders)} hold a piece"]
    if len(held) >= needed:
        parts.append(f"any {needed} give your key back")
    else:
        parts.append(f"{needed} are needed, so this backup gives nothing back yet")
    if missing:
        names = _and([roster.named(seat) for seat in missing])
        have = "has" if len(missing) == 1 else "have"
        parts.append(f"{names} {have} not answered, run `holdfast wallet resume`")
    return Standing(held, missing, needed, "; ".join(parts))


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
