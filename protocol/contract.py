"""The types that cross between the pure cores and the worlds they run in.

A core is a state machine with one entry, `handle(moment, event) -> list[Effect]`. Time and
randomness come in with the moment, everything it wants done goes out as effects, and what
it must remember it reads back through the `Ledger`. Two rules hold in every world:

1. Effects are ordered, and nothing after a `Persist` happens before that write is durable.
2. After an exception or a failed commit the core is thrown away and built anew from the
   ledger; `resume` then derives everything still owed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Millis: TypeAlias = int  # UTC, milliseconds since 1970
Seat: TypeAlias = int  # position in the roster, permanent
LinkId: TypeAlias = int  # numbers the links of one process life; never persisted
Id: TypeAlias = bytes  # 32 bytes, BLAKE2b-256


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event is handled, and the randomness that may be used for it.

    `now` never decreases from one call to the next; `seed` is 32 fresh bytes, from which
    everything random in the call is derived.
    """

    now: Millis
    seed: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """A statement whose signature holds. Made by `statements.Codec`, nowhere else.

    `known` is false for an entry of a type or with fields of a later version: it is kept
    and relayed, and not acted on.
    """

    type: str
    id: Id
    by: bytes
    body: Mapping[str, Any]
    raw: bytes
    known: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands: whose log, which incarnation of it, which number (from 1)."""

    seat: Seat
    incarnation: int
    seq: int


@dataclass(frozen=True, slots=True)
class Message:
    """What is in flight on one link and dies with it. `fields` are plain msgpack values."""

    kind: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """What a person at this node asks for. `args` are plain values, already typed."""

    verb: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Peer:
    """A node to keep a link to. `key` is its transport key; `seat` its seat, if it has one.

    `patience` is how long to leave it to the other side to dial, in milliseconds: of two
    guardians that can both be dialled, the one with the higher seat does it at once.
    """

    seat: Seat | None
    address: str
    key: bytes
    patience: Millis = 0


# --- what is kept ----------------------------------------------------------------------


class Table(enum.Enum):
    """The tables of rows a core keeps; each is a map from key to value, both bytes."""

    META = "meta"
    CLAIM = "claim"
    CASE = "case"
    VAULT = "vault"
    DEAL = "deal"
    VERSION = "version"
    LABEL = "label"

    __hash__ = object.__hash__  # Enum's own is written in Python, and every row is looked up


@dataclass(frozen=True, slots=True)
class PutEntry:
    """One log entry; the place is unique."""

    place: Place
    raw: bytes


@dataclass(frozen=True, slots=True)
class PutRow:
    """Set a row, or delete it when `value` is None."""

    table: Table
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class DropFragments:
    """Forget the fragments held of one version."""

    version: Id


Change: TypeAlias = PutEntry | PutRow | DropFragments


class Ledger(Protocol):
    """What a core reads back. Inside a transaction it sees the changes made so far."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...
    def scan(self, table: Table, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key starts with the prefix, in the order of their keys."""
        ...

    def count(self, table: Table) -> int: ...
    def has_room(self) -> bool:
        """Whether there is room for deposits; votes have a reserve of their own."""
        ...

    def entry(self, place: Place) -> bytes | None: ...
    def entries(self) -> Iterator[tuple[Place, bytes]]:
        """Every log entry, in the order of arrival."""
        ...


# --- events ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link stands. `seat` is who is at the other end, None for a wallet or a stranger."""

    link: LinkId
    seat: Seat | None


@dataclass(frozen=True, slots=True)
class LinkDown:
    link: LinkId


@dataclass(frozen=True, slots=True)
class Heard:
    """Log entries from a neighbour, signatures verified. `check` asks for a comparison with
    entries already held, which are otherwise skipped."""

    link: LinkId
    entries: tuple[Verified, ...]
    check: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the other end of a link.

    `examined` is what a node with threads to spare worked out from a deposit beforehand
    (`vault.examine`), or None: then the core does it.
    """

    link: LinkId
    message: Message
    examined: Any = None


@dataclass(frozen=True, slots=True)
class Told:
    """A person's command. The answer goes back under the ticket."""

    ticket: int
    command: Command


@dataclass(frozen=True, slots=True)
class TimerFired:
    timer: str


@dataclass(frozen=True, slots=True)
class Done:
    """A job or a transfer ended: its result, or the sentence that says why not."""

    id: str
    result: Any = None
    error: str | None = None


Event: TypeAlias = LinkUp | LinkDown | Heard | Received | Told | TimerFired | Done

# --- effects ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    change: Change


@dataclass(frozen=True, slots=True)
class Send:
    link: LinkId
    message: Message


@dataclass(frozen=True, slots=True)
class Stream:
    """Send a range of one log, `first` to `last` inclusive, as it lies in the store."""

    link: LinkId
    seat: Seat
    incarnation: int
    first: int
    last: int
    check: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The end of a command: a plain value, or the refusal."""

    ticket: int
    body: Any = None
    refusal: Exception | None = None


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire at a time, replacing the timer of that name; None takes it away."""

    timer: str
    at: Millis | None


@dataclass(frozen=True, slots=True)
class Changed:
    """Something people look at has changed."""

    topic: str
    id: Id = b""


@dataclass(frozen=True, slots=True)
class Notify:
    """Ring the guardian. Names no member and holds no secret."""

    notice: str
    case: Id = b""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The codes of claims: Argon2id over each id. Answers a list of (claim, code)."""

    claims: tuple[Id, ...]


Job: TypeAlias = Stretch


@dataclass(frozen=True, slots=True)
class Run:
    id: str
    job: Job


@dataclass(frozen=True, slots=True)
class Receive:
    """Take `count` fragments of a version from the link, each checked against the root."""

    id: str
    link: LinkId
    version: Id
    root: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Send the fragments held of a version over the link."""

    link: LinkId
    version: Id
    request: int


@dataclass(frozen=True, slots=True)
class DropLink:
    link: LinkId
    reason: str
    their_fault: bool


@dataclass(frozen=True, slots=True)
class Dial:
    """Keep a link to each of these, and to no one else."""

    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates to accept from now on: seat, transport key, certificate signature."""

    transports: tuple[tuple[Seat, bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Throw this core away and build it anew from the ledger, as after a restart."""


Effect: TypeAlias = (
    Persist
    | Send
    | Stream
    | Answer
    | SetTimer
    | Changed
    | Notify
    | Run
    | Receive
    | Deliver
    | DropLink
    | Dial
    | Trust
    | Rebuild
)


class Core(Protocol):
    """A decision maker. Built from its keys and a ledger; holds no other reference."""

    def resume(self, at: Moment) -> Sequence[Effect]: ...
    def handle(self, at: Moment, event: Event) -> Sequence[Effect]: ...
