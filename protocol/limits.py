"""Every limit, with its unit and its reason. A limit without a reason does not belong here."""

from __future__ import annotations

from typing import Final

# --- time, in milliseconds -------------------------------------------------------------
SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

# --- federation ------------------------------------------------------------------------
SEATS_MIN: Final = 2  # one guardian alone would be a single point of trust
SEATS_MAX: Final = 32  # the erasure codec's limit; a group call does not hold more people
THRESHOLD_MIN: Final = 2  # with 1, any one guardian could take every key
NAME_BYTES_MAX: Final = 64  # of a guardian or a federation: one line on a phone
TEXT_CHARS_MAX: Final = 280  # words from person to person: a vote's reason, a question
CONTACT_BYTES_MAX: Final = 200  # a phone number, an address, opening hours

# --- encoding --------------------------------------------------------------------------
STATEMENT_BYTES_MAX: Final = 65_000  # a release with three versions at 32 seats has 26 KiB
DEPTH_MAX: Final = 16  # nesting of CBOR; the deepest statement has 4
CIPHERTEXT_WHOLE_MAX: Final = 4 * 1024 + 16  # 4 KiB and its tag lie whole in every shard
SEGMENT_BYTES: Final = 256 * 1024  # what is encrypted, coded and checked in one piece
PAYLOAD_BYTES_MAX: Final = 2 * 1024 * 1024  # a file of 1 MiB, its envelope, and padding
SECRET_BYTES_MAX: Final = 1024 * 1024  # what `wallet backup` takes
PICTURE_BYTES_MAX: Final = 256 * 1024  # of a verification card

# --- names -----------------------------------------------------------------------------
SPELLINGS_MAX: Final = 8  # each costs an attacker nothing and the member 0.4 s
FULL_NAME_BYTES_MAX: Final = 200  # the longest passport names are far shorter
PASSPHRASE_BYTES_MAX: Final = 1024
