"""The first and last frame on every link, and the shape of all between.

Both sides say hello at once: which software, which version of the protocol, which
federation, and whether a guardian or a wallet speaks. What does not fit is answered with a
`bye` that says why, because a person will have to read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from node.framing import pack
from protocol.errors import Malformed
from protocol.statements import NOWHERE

PROTOCOL: Final = 1
KIND_CHARS_MAX: Final = 32  # of a frame's kind; the longest in use has 9
SOFTWARE_CHARS_MAX: Final = 64  # name and version, for the operator's eyes
REASON_CHARS_MAX: Final = 280  # of a goodbye, one sentence
ROLES: Final = ("guardian", "wallet")

Frame: TypeAlias = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Hello:
    """What one side says of itself. `federation` is 32 zeros before there is one."""

    software: str
    federation: bytes = NOWHERE
    role: str = "guardian"

    def to_frame(self) -> bytes:
        fields = {
            "software": self.software,
            "protocol": PROTOCOL,
            "federation": self.federation,
            "role": self.role,
        }
        return pack(["hello", fields])


def bye(reason: str) -> bytes:
    return pack(["bye", {"reason": reason[:REASON_CHARS_MAX]}])


def parted(fields: Mapping[str, Any]) -> str:
    """What the other side gave as its reason to leave."""
    reason = fields.get("reason")
    words = reason[:REASON_CHARS_MAX] if type(reason) is str else "no reason"
    return f"the other side said: {words if words.isprintable() else 'no reason'}"


def read_frame(value: Any) -> Frame:
    """Read a frame of a link: a kind and its fields. Raises `Malformed` for anything else."""
    if type(value) is not list or len(value) != 2:
        raise Malformed("a frame is not a kind and its fields")
    kind, fields = value
    if type(kind) is not str or len(kind) > KIND_CHARS_MAX or type(fields) is not dict:
        raise Malformed("a frame is not a kind and its fields")
    return kind, fields


def read_hello(value: Any, ours: Hello) -> Hello:
    """Read the other side's hello. Raises `Malformed` with what to tell it if it cannot stay."""
    if value is None:
        raise Malformed("the other side hung up before it said who it is")
    kind, fields = read_frame(value)
    if kind == "bye":
        raise Malformed(parted(fields))
    software, role = fields.get("software"), fields.get("role")
    if (
        kind != "hello"
        or type(software) is not str
        or len(software) > SOFTWARE_CHARS_MAX
        or role not in ROLES
    ):
        raise Malformed("a connection does not begin with a greeting")
    if fields.get("protocol") != PROTOCOL:
        raise Malformed(
            f"this node speaks version {PROTOCOL} of the protocol and the other side does not: "
            "whoever runs the older release should install the newer one"
        )
    theirs = fields.get("federation")
    # A guardian that was off when the last one signed learns from the others that all have.
    founding = role == "guardian" and NOWHERE in (theirs, ours.federation)
    if theirs != ours.federation and not founding:
        raise Malformed(
            "this guardian serves another federation"
            if ours.federation != NOWHERE
            else "this guardian has not founded a federation yet"
        )
    return Hello(software, ours.federation, role)
