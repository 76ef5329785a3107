"""How scenarios write times, chances and themselves: "36h", 0.02, and TOML back from tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from protocol.errors import Malformed
from simulations.chances import MILLION

UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION: Final = re.compile(r"(\d+)(?:\.(\d+))?\s*(ms|s|m|h|d)")


def duration(text: Any) -> int:
    """Milliseconds in "90d", "1.5h", "60ms". Raises `Malformed`."""
    if text == 0 and type(text) is int:
        return 0
    found = DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Malformed(f"{text!r} is no length of time; write for example 90d, 36h, 20m, 5s, 40ms")
    whole, part, unit = found[1], found[2] or "", UNITS[found[3]]
    tenths: int = 10 ** len(part)
    return int(whole + part) * unit // tenths


def show_duration(ms: int) -> str:
    """The shortest way to write it that loses nothing."""
    for unit in ("d", "h", "m", "s"):
        if ms and ms % UNITS[unit] == 0:
            return f"{ms // UNITS[unit]}{unit}"
    return f"{ms}ms"


def chance(value: Any) -> int:
    """Millionths, from a number between 0 and 1. Raises `Malformed`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Malformed(f"{value!r} is no chance; write a number from 0 to 1")
    return round(value * MILLION)


def moment(ms: int) -> str:
    """A virtual time as people read it: d2 04:11:07.204."""
    days, rest = divmod(ms, UNITS["d"])
    hours, rest = divmod(rest, UNITS["h"])
    minutes, rest = divmod(rest, UNITS["m"])
    seconds, rest = divmod(rest, UNITS["s"])
    return f"d{days} {hours:02}:{minutes:02}:{seconds:02}.{rest:03}"


def to_toml(table: Mapping[str, Any], path: str = "") -> str:
    """Write plain tables as TOML: values first, then tables, then lists of tables."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _nested(value)]
    for key, value in table.items():
        name = f"{path}{_key(key)}"
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", to_toml(value, name + ".")]
        elif _nested(value):
            for one in value:
                lines += ["", f"[[{name}]]", to_toml(one, name + ".")]
    return "\n".join(lines).strip("\n")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _nested(value: Any) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
