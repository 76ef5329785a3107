"""Work that falls due later: leaving members, replaced deals, rehearsals, claims unopened.

Kept in the ledger by the time it is due, so that the next one is found without looking
through a million vaults.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocol.contract import Effect, Ledger, Millis, Persist, PutRow, SetTimer, Table
from protocol.custody import (
    LEAVING_TAKES,
    REHEARSAL_STAYS,
    REPLACED_DEAL_STAYS,
    REPLACED_VERSION_STAYS,
)
from protocol.limits import DAY

TIMER: Final = "chores"
_PREFIX: Final = b"chore/"
_CLAIM_WAITS: Final = 30 * DAY  # unopened; the wallet sends its claim again when it is on
_AFTER: Final = {
    "leave": LEAVING_TAKES,
    "replaced": REPLACED_DEAL_STAYS,
    "rehearsal": REHEARSAL_STAYS,
    "claim": _CLAIM_WAITS,
    "version": REPLACED_VERSION_STAYS,
}
_KINDS: Final = tuple(_AFTER)  # a chore is kept with its number here: add only at the end


class Chores:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def add(self, kind: str, now: Millis, about: bytes, out: list[Effect]) -> None:
        due = now + _AFTER[kind]
        key = _PREFIX + due.to_bytes(8, "big") + bytes((_KINDS.index(kind),)) + about
        out.append(Persist(PutRow(Table.META, key, b"")))
        self.set_timer(out)

    def due(self, now: Millis, out: list[Effect]) -> Iterator[tuple[str, bytes]]:
        """Take every chore that is due off the list."""
        for key, _ in list(self._ledger.scan(Table.META, _PREFIX)):
            when, kind, about = _read(key)
            if when > now:
                break
            out.append(Persist(PutRow(Table.META, key, None)))
            yield kind, about

    def set_timer(self, out: list[Effect]) -> None:
        for key, _ in self._ledger.scan(Table.META, _PREFIX):
            out.append(SetTimer(TIMER, _read(key)[0]))
            return


def _read(key: bytes) -> tuple[Millis, str, bytes]:
    body = key[len(_PREFIX) :]
    return int.from_bytes(body[:8], "big"), _KINDS[body[8]], body[9:]
