"""What travels on a link besides log entries and fragments, and what each must hold.

A message is in flight only: nothing here is signed or kept. A message that does not fit its
shape costs its sender the link.
"""

from __future__ import annotations

from typing import Any, Final

from protocol.contract import LinkId, Message, Send
from protocol.errors import HoldfastError, Locked, Malformed, NotYet
from protocol.limits import CIPHERTEXT_WHOLE_MAX, SEATS_MAX, STATEMENT_BYTES_MAX
from protocol.statements import (
    Check,
    fits,
    flag,
    id32,
    list_of,
    octets,
    octets_up_to,
    text,
    uint,
)

_RAW: Final = octets_up_to(STATEMENT_BYTES_MAX)
_HEADS_MAX: Final = SEATS_MAX * 16  # incarnations: one for each restore from a backup


def _head(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 4
        and all(uint(number) for number in value[:3])
        and octets(8)(value[3])
    )


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


# Between guardians.
GOSSIP: Final[dict[str, dict[str, Check]]] = {
    "clock": {"heads": list_of(_head, _HEADS_MAX), "reply": flag},
    "digest": {"digest": octets(16)},
    "ping": {"now": uint, "linked": list_of(uint, SEATS_MAX), "digest": octets(16)},
    "compare": {"seat": uint, "incarnation": uint, "upto": uint},
    "passed": {"number": uint, "kind": text(20), "fields": _is_map},
    "returned": {"number": uint, "kind": text(20), "fields": _is_map},
}

# From a wallet to a guardian. Each carries `request`, which its answer repeats.
REQUESTS: Final[dict[str, dict[str, Check]]] = {
    "roster": {},
    "deposit": {
        "deal": _RAW,
        "version": _RAW,
        "box": octets_up_to(8192),
        "whole": octets_up_to(CIPHERTEXT_WHOLE_MAX),
    },
    "card": {"vault": id32, "deal": id32},
    "settle": {"raw": _RAW},
    "seen": {"raw": _RAW},
    "owner": {"raw": _RAW},
    "claim": {"raw": _RAW, "code": text(15)},
    "follow": {"claim": id32},
    "succeed": {"raw": _RAW},
    "fragments": {"claim": id32, "version": id32},
    "through": {"seat": uint, "kind": text(20), "fields": _is_map},
}

# During the founding, before there is a federation.
FOUNDING: Final[dict[str, dict[str, Check]]] = {
    "join": {"introduction": _RAW},
    "draft": {"body": _RAW},
    "signature": {"draft": id32, "by": id32, "signature": octets(64)},
    "founded": {"signed": _RAW},
}


def check(message: Message) -> None:
    """Raise `Malformed` if a message does not have its shape."""
    if (fields := GOSSIP.get(message.kind) or FOUNDING.get(message.kind)) is None:
        if message.kind not in REQUESTS:
            raise Malformed(f"a message of kind {message.kind[:40]} is not known here")
        fields = {**REQUESTS[message.kind], "request": uint}
    if not isinstance(message.fields, dict) or not fits(message.fields, fields):
        raise Malformed(f"a message of kind {message.kind} does not have its fields")


def reply(link: LinkId, request: int, **fields: Any) -> Send:
    return Send(link, Message("reply", {"request": request, **fields}))


def refusal(link: LinkId, request: int, error: HoldfastError) -> Send:
    """The lawful no, as a sentence for the person at the other end."""
    kinds = {NotYet: "not yet", Locked: "locked", Malformed: "malformed"}
    kind = next((kinds[cls] for cls in type(error).__mro__ if cls in kinds), "refused")
    fields = {"request": request, "sentence": str(error), "hint": error.hint, "kind": kind}
    return Send(link, Message("refusal", fields))
