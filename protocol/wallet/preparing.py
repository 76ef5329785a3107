"""Before anything is dealt: hold what a member gives against the limits, seal the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocol import vault
from protocol.errors import Refused
from protocol.limits import PASSPHRASE_BYTES_MAX, SECRET_BYTES_MAX, SPELLINGS_MAX
from protocol.names import normalise
from protocol.wallet.drawing import Draws

CARD_KEY_BYTES: Final = 32


def check_spellings(names: Sequence[str]) -> tuple[str, ...]:
    """Return the normal forms of the names a vault opens under, each once, in order."""
    spellings = tuple(dict.fromkeys(normalise(name) for name in names))
    if not 1 <= len(spellings) <= SPELLINGS_MAX:
        raise Refused(
            f"a backup opens under 1 to {SPELLINGS_MAX} spellings of a name, and "
            f"{len(spellings)} were given"
        )
    return spellings


def check_secret(secret: bytes) -> None:
    """Refuse a secret that is empty or too large, with the numbers."""
    if not secret:
        raise Refused("there is nothing to back up: the secret is empty")
    if len(secret) > SECRET_BYTES_MAX:
        raise Refused(
            f"the secret has {len(secret)} bytes; at most {SECRET_BYTES_MAX} can be backed up"
        )


def check_passphrase(passphrase: str | None) -> None:
    """Refuse a passphrase that is empty or too long."""
    if passphrase is None:
        return
    size = len(passphrase.encode())
    if not 1 <= size <= PASSPHRASE_BYTES_MAX:
        raise Refused(
            f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes, and this one has {size}"
        )


@dataclass(frozen=True, repr=False)
class Card:
    """A verification card, sealed: what the label says of it, and the chunks to send."""

    key: bytes
    root: bytes
    chunks: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Card({len(self.chunks)} chunks)"


def make_card(line: str, picture: bytes, draws: Draws) -> Card | None:
    """Seal a verification card; None when there is nothing on it."""
    if not line and not picture:
        return None
    key = draws.draw(CARD_KEY_BYTES)
    chunks, root = vault.make_card(key, line, picture)
    if len(chunks) > vault.CARD_CHUNKS_MAX:
        raise Refused(
            "the verification card is too large",
            hint="take a picture of at most 256 KiB and one line of text",
        )
    return Card(key, root, tuple(chunks))
