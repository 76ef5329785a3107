"""A scenario: what federation, what people, what goes wrong, and what must hold all the same.

Written in TOML, checked here against one schema, every complaint a sentence that names the
place. What TOML cannot say, a Python hook does: `hook = "package.module:function"` is called
with the world before it runs. A fault is a workload like any other.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protocol.errors import HoldfastError, Malformed, Refused
from protocol.limits import SEATS_MAX, THRESHOLD_MIN
from simulations.quantities import chance, duration

SCHEMA: Final = 1
FOLDER: Final = Path(__file__).parent / "scenarios"
MODES: Final = ("fast", "full")

Reader = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{value!r} is not a text in quotes")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Malformed(f"{value!r} is neither true nor false")
    return value


def _count(low: int, high: int) -> Reader:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Malformed(f"{value!r} is not a whole number from {low} to {high}")
        return value

    return read


def _one_of(*words: str) -> Reader:
    def read(value: Any) -> str:
        if value not in words:
            raise Malformed(f"{value!r} is not one of {', '.join(words)}")
        return str(value)

    return read


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise Malformed(f"{value!r} is not a list of texts")
    return [_text(one) for one in value]


def _select(value: Any) -> Any:
    """Seats: a list of them, how many to draw, or a word for how many."""
    if isinstance(value, list) and all(type(one) is int and one >= 0 for one in value):
        return value
    if type(value) is int and value >= 0:
        return value
    if value in ("one", "minority", "majority", "all", "beyond"):
        return value
    raise Malformed(
        f"{value!r} selects no guardians; write a list of seats, a number of guardians, or one of "
        "one, minority, majority, all, beyond"
    )


def _zones(value: Any) -> dict[int, int]:
    """Minutes ahead of UTC, and how many people live there, in millionths."""
    if not isinstance(value, dict) or not value:
        raise Malformed(f'{value!r} is no table of time zones, such as {{"+01:00" = 0.6}}')
    zones = {}
    for name, part in value.items():
        sign, hours, minutes = name[:1], name[1:3], name[4:]
        if sign not in "+-" or not (hours + minutes).isdigit() or name[3:4] != ":":
            raise Malformed(f"{name!r} is no time zone; write it as +01:00")
        ahead = int(hours) * 60 + int(minutes)
        zones[-ahead if sign == "-" else ahead] = chance(part)
    return zones


def _awake(value: Any) -> tuple[int, int]:
    """From and to, in minutes of the day."""
    try:
        begin, end = (_minutes(part) for part in _text(value).split("-"))
    except ValueError as error:
        raise Malformed(f"{value!r} are no waking hours; write them as 07:00-23:00") from error
    if begin >= end:
        raise Malformed(f"{value!r} ends before it begins")
    return begin, end


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _spread(value: Any) -> tuple[int, int]:
    """A lognormal length of time: its median in ms, its sigma in millionths."""
    if isinstance(value, str):
        return duration(value), 0
    if not isinstance(value, dict) or set(value) - {"median", "sigma"} or "median" not in value:
        raise Malformed(f'{value!r} is no spread; write {{ median = "3h", sigma = 1.2 }}')
    return duration(value["median"]), round(float(value.get("sigma", 0)) * 1_000_000)


HUMAN: Final[dict[str, tuple[Reader, Any]]] = {
    "seats": (_select, "all"),
    "answer": (_spread, {"median": "3h", "sigma": 1.2}),
    "awake": (_awake, "07:00-23:00"),
    "zones": (_zones, {"+01:00": 1.0}),
    "mistaken": (chance, 0.0),
    "deceived": (chance, 0.0),
    "fatigue": (chance, 0.0),
    "colludes": (_flag, False),
    "holidays": (_count(0, 365), 0),
    "dies": (chance, 0.0),
    "loses-keys": (chance, 0.0),
}

TABLES: Final[dict[str, dict[str, tuple[Reader, Any]]]] = {
    "": {
        "schema": (_count(SCHEMA, SCHEMA), SCHEMA),
        "name": (_text, ""),
        "shows": (_text, ""),
        "mode": (_one_of(*MODES), "fast"),
        "seed": (_count(0, 2**63), 0),
        "length": (duration, "10d"),
        "settle": (duration, "2d"),
        "hook": (_text, ""),
        "expected": (_one_of("passed", "safety", "liveness", "inconclusive"), "passed"),
    },
    "federation": {
        "guardians": (_count(2, SEATS_MAX), 5),
        "count": (_count(1, 100_000), 1),
        "heartbeat": (duration, "15s"),
        "suite": (_one_of("real", "shared"), "real"),
    },
    "policy": {
        "threshold": (_count(THRESHOLD_MIN, SEATS_MAX), 3),
        "waiting": (duration, "24h"),
    },
    "network": {
        "latency": (_spread, {"median": "40ms", "sigma": 0.5}),
        "jitter": (chance, 0.3),
        "loss": (chance, 0.0),
        "straggler": (chance, 0.0),
        "straggler-takes": (duration, "5s"),
        "bandwidth": (_count(0, 10**9), 0),
        "reset": (chance, 0.0),
        "split": (chance, 0.2),
    },
    "swarm": {
        "enabled": (_flag, False),
        "vary": (_texts, ["network", "faults", "humans"]),
        "faults": (_count(0, 200), 6),
    },
    "check": {
        "invariants": (_texts, ["safety", "liveness"]),
        "sometimes": (_texts, []),
        "budget": (_one_of("within", "exceed"), "within"),
    },
    "budget": {
        "events": (_count(1, 10**10), 20_000_000),
        "wall": (duration, "10m"),
    },
}

WORKLOAD: Final[dict[str, tuple[Reader, Any]]] = {
    "kind": (_one_of("recoveries", "thefts", "stolen-phones", "rivals", "heirs"), ""),
    "count": (_count(0, 1_000_000), 1),
    "from": (duration, "1d"),
    "over": (duration, "2d"),
    "repeat": (_count(1, 1_000), 1),
    "notices": (_spread, {"median": "6h", "sigma": 1.0}),
    "succession": (_flag, True),
    "visits": (_spread, {"median": "2h", "sigma": 1.0}),
    "calls": (_select, "all"),
}

FAULT: Final[dict[str, tuple[Reader, Any]]] = {
    "kind": (_text, ""),
    "key": (_text, ""),
    "select": (_select, "one"),
    "at": (duration, 0),
    "for": (duration, 0),
    "every": (duration, 0),
    "within": (duration, 0),
    "times": (_count(1, 10_000), 1),
    "chance": (chance, 0.0),
    "strategy": (_text, ""),
    "at-step": (_text, ""),
    "at-write": (_count(0, 10**9), 0),
    "restart-after": (duration, "10m"),
    "skew": (duration, 0),
    "behind": (_flag, False),
    "delay": (duration, "5s"),
    "bytes": (_count(0, 10**12), 0),
    "shape": (_one_of("split", "ring", "bridge", "one-way"), "split"),
}


@dataclass(frozen=True)
class Scenario:
    """A checked scenario. `raw` is what it was written as; the tables hold whole numbers."""

    raw: Mapping[str, Any]
    top: Mapping[str, Any]
    federation: Mapping[str, Any]
    policy: Mapping[str, Any]
    network: Mapping[str, Any]
    humans: Mapping[str, Mapping[str, Any]]
    workload: tuple[Mapping[str, Any], ...]
    fault: tuple[Mapping[str, Any], ...]
    swarm: Mapping[str, Any]
    check: Mapping[str, Any]
    budget: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.top["name"])

    @property
    def guardians(self) -> int:
        return int(self.federation["guardians"])

    @property
    def threshold(self) -> int:
        return int(self.policy["threshold"])

    @property
    def length(self) -> int:
        """Milliseconds from the beginning until faults end."""
        return int(self.top["length"])

    @property
    def end(self) -> int:
        """Milliseconds until the run is over: the length, and the tail without faults."""
        return self.length + int(self.top["settle"])

    def changed(self, **settings: Any) -> Scenario:
        """The same with settings replaced: `changed(**{"policy.threshold": 4})`."""
        raw = deepcopy(dict(self.raw))
        for path, value in settings.items():
            put(raw, path, value)
        return read_scenario(raw)


def read_scenario(raw: Mapping[str, Any]) -> Scenario:
    """Check a scenario. Raises `Malformed` with the place and what would be right."""
    known = {*TABLES[""], *filter(None, TABLES), "humans", "workload", "fault"}
    _unknown("the scenario", raw, known)
    top = {key: raw[key] for key in TABLES[""] if key in raw}
    tables = {name: _table(name, raw.get(name, {}), TABLES[name]) for name in TABLES if name}
    humans = raw.get("humans", {})
    if not isinstance(humans, Mapping):
        raise Malformed("[humans.default] is a table; [humans] alone says nothing")
    default = humans.get("default", {})
    people = {
        name: _table(f"humans.{name}", {**default, **table} if name != "default" else table, HUMAN)
        for name, table in {"default": {}, **humans}.items()
    }
    scenario = Scenario(
        raw=raw,
        top=_table("the scenario", top, TABLES[""]),
        humans=people,
        workload=_list("workload", raw.get("workload", []), WORKLOAD),
        fault=_list("fault", raw.get("fault", []), FAULT),
        **tables,
    )
    _fits_together(scenario)
    return scenario


def _table(where: str, table: Any, schema: Mapping[str, tuple[Reader, Any]]) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise Malformed(f"{where}: a table was expected")
    _unknown(where, table, set(schema))
    read = {}
    for key, (reader, default) in schema.items():
        try:
            read[key] = reader(table.get(key, default)) if key in table or default != "" else ""
        except (HoldfastError, TypeError, ValueError) as error:
            raise Malformed(f"{where}, {key}: {error}") from error
    return read


def _list(
    name: str, items: Any, schema: Mapping[str, tuple[Reader, Any]]
) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(items, list):
        raise Malformed(f"{name}: write [[{name}]] with two brackets, once for each")
    read = []
    for number, item in enumerate(items, start=1):
        where = f"{name} {number}"
        if isinstance(item, Mapping) and "kind" not in item:
            raise Malformed(f"{where} does not say its kind")
        read.append(_table(where, item, schema))
    return tuple(read)


def _unknown(where: str, table: Mapping[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise Malformed(f"{where}: {key!r} is not known; there are {', '.join(sorted(known))}")


def _fits_together(scenario: Scenario) -> None:
    n, t = scenario.guardians, scenario.threshold
    if t > n:
        raise Malformed(f"policy, threshold: {t} of {n} guardians can never be reached")
    for name, table in scenario.humans.items():
        seats = table["seats"]
        if isinstance(seats, list) and any(seat >= n for seat in seats):
            raise Malformed(f"humans.{name}, seats: there are seats 0 to {n - 1}")
    for number, fault in enumerate(scenario.fault, start=1):
        if isinstance(fault["select"], list) and any(seat >= n for seat in fault["select"]):
            raise Malformed(f"fault {number}, select: there are seats 0 to {n - 1}")
    if scenario.federation["count"] > 1 and scenario.top["mode"] == "full":
        raise Malformed("federation, count: more than one federation runs in fast mode only")


def put(raw: dict[str, Any], path: str, value: Any) -> None:
    """Set one value by its dotted path; `fault.0.at` reaches into a list."""
    *way, last = path.split(".")
    here: Any = raw
    for step in way:
        if isinstance(here, list):
            if not step.isdigit() or int(step) >= len(here):
                raise Refused(f"{path}: there is no number {step}; counting begins at 0")
            here = here[int(step)]
        else:
            here = here.setdefault(step, {})
    if isinstance(here, list):
        raise Refused(f"{path} names a list; say which of its items, and what of it")
    here[last] = value


def read_setting(text: str) -> tuple[str, Any]:
    """`a.b=c`, as `--set` takes it; the value as TOML, or else as text."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise Refused(f"{text!r} sets nothing; write for example policy.threshold=4")
    try:
        return path.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path.strip(), value.strip()


def load(name: str | Path, settings: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario from a file, or one of those that come with Holdfast by its name."""
    path = Path(name)
    if path.suffix != ".toml":
        path = FOLDER / f"{name}.toml"
    if not path.is_file():
        raise Refused(
            f"there is no scenario {name}",
            hint="holdfast simulate list scenarios shows those there are",
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"{path.name} is not TOML: {error}") from error
    raw.setdefault("name", path.stem)
    for setting, value in (settings or {}).items():
        put(raw, setting, value)
    return read_scenario(raw)


def shipped() -> list[str]:
    """The names of the scenarios that come with Holdfast."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
