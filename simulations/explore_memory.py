"""What a core remembers: found by walking it, compared, and copied.

Every attribute of every part counts. One of a kind that is not known here, or that appears
only later, stops the run, so that nothing is left out unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Final

from protocol.contract import Verified
from protocol.custody import Settings
from protocol.federation import Roster
from protocol.guardian import GuardianCore
from protocol.keys import SealingKey, SigningKey
from protocol.outbox import Pending
from protocol.statements import Codec
from simulations.hosts.memory import MemoryLedger

_FIXED: Final = (Codec, Roster, Pending, SigningKey, SealingKey, Settings, MemoryLedger)
_ATOMS: Final = frozenset((int, str, bytes, bool, type(None), frozenset))


def _is_part(value: object) -> bool:
    """Whether something is one of the objects that a core is put together from."""
    if isinstance(value, _FIXED) or is_dataclass(value) or not hasattr(value, "__dict__"):
        return False
    return any(each.__module__.startswith("protocol.") for each in type(value).__mro__)


def is_fixed(value: object) -> bool:
    """Whether an attribute is made anew with every core, or never changes."""
    if type(value) is dict and value:
        return all(callable(item) for item in value.values())
    return isinstance(value, _FIXED) or callable(value)


@dataclass(frozen=True)
class Part:
    """Where a part of a core is found, its attributes that change, and how many it has."""

    path: tuple[str, ...]
    names: tuple[str, ...]
    count: int
    has_codec: tuple[str, ...]


def layout(core: GuardianCore) -> tuple[Part, ...]:
    """Find every part of a core, each once, with the attributes that hold its memory."""
    found: list[Any] = [core]
    paths: list[tuple[str, ...]] = [()]
    for place, part in enumerate(found):
        for name, value in vars(part).items():
            if _is_part(value) and all(value is not other for other in found):
                found.append(value)
                paths.append((*paths[place], name))
    return tuple(
        Part(
            path,
            tuple(n for n, value in vars(part).items() if not (_is_part(value) or is_fixed(value))),
            len(vars(part)),
            tuple(n for n, value in vars(part).items() if type(value) is Codec),
        )
        for path, part in zip(paths, found, strict=True)
    )


def reach(core: GuardianCore, part: Part) -> Any:
    """The part of a core that lies at that place."""
    at: Any = core
    for name in part.path:
        at = getattr(at, name)
    if len(vars(at)) != part.count:
        raise TypeError(f"a {type(at).__name__} has attributes that the explorer has not seen")
    return at


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


@cache
def _is_frozen(kind: Any) -> bool:
    return bool(kind.__dataclass_params__.frozen)


def freeze(value: Any) -> Any:
    """Return what a value holds, hashable, the same however it came about."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is Verified:
        return value.id
    if kind is dict:
        return tuple([(key, freeze(value[key])) for key in sorted(value)])
    if kind is list or kind is tuple:
        return tuple([freeze(item) for item in value])
    if is_dataclass(kind):
        return tuple([freeze(getattr(value, name)) for name in _names(kind)])
    raise TypeError(f"the explorer does not know how to compare a {kind.__name__}")


def copied(value: Any) -> Any:
    """Return a value that shares nothing which changes."""
    kind = type(value)
    if kind in _ATOMS or kind is tuple or kind is Verified:
        return value
    if kind is dict:
        return {key: copied(item) for key, item in value.items()} if value else {}
    if kind is list:
        return [copied(item) for item in value]
    if is_dataclass(kind):
        if _is_frozen(kind):
            return value
        return kind(*[copied(getattr(value, name)) for name in _names(kind)])
    raise TypeError(f"the explorer does not know how to copy a {kind.__name__}")
