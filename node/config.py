"""Read and write `guardian.toml`: what a guardian may set, each with a limit and a reason.

A flag wins over the environment (`HOLDFAST_LISTEN` for `listen`), that over the file, that over
the default. An unknown key is an error, because a misspelt one that is quietly ignored is worse
than none. No secret belongs here; where the passphrase comes from is in `node.keystore`.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from node.keystore import write_durably
from protocol.errors import Refused
from protocol.limits import CONTACT_BYTES_MAX, NAME_BYTES_MAX

Value: TypeAlias = str | int | list[str]

ENVIRONMENT_PREFIX: Final = "HOLDFAST_"
FILE_BYTES_MAX: Final = 64 * 1024  # the longest possible settings take a tenth of it
ADDRESS_BYTES_MAX: Final = 200  # what a roster has room for
LANGUAGES_MAX: Final = 8
PORT_MAX: Final = 65_535
_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * _MIB
_BYTES_MAX: Final = 2**60  # no disk is larger, and TOML's integers end soon after
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # the usual form of BCP 47

_NOT_TEXT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, halves, line separators
_TURNS: Final = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Marks that turn the direction of writing, with which a name can be made to look like another.

Joiners stay allowed: Persian and Hindi names are not written without them.
"""


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port`; an IPv6 host stands in brackets: `[::1]:7001`.

    Raises Refused with a sentence. The host may be empty: every address of this machine.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len("65535") else -1
    bare = ":" in host and not bracketed
    if not colon or bare or not 0 <= number <= PORT_MAX or len(text) > ADDRESS_BYTES_MAX:
        raise Refused(
            f"“{text[:ADDRESS_BYTES_MAX]}” is not an address of the form host:port.",
            hint="Write it like guardian.example.org:7001 or [2001:db8::1]:7001.",
        )
    return (host[1:-1] if bracketed else host), number


def _plain(text: str, limit: int) -> str | None:
    if any(unicodedata.category(c) in _NOT_TEXT or c in _TURNS for c in text):
        return "it must be one line of ordinary characters"
    size = len(text.encode())
    return f"it has {size} bytes, and at most {limit} fit" if size > limit else None


def _name(text: str) -> str | None:
    return _plain(text, NAME_BYTES_MAX)


def _contact(text: str) -> str | None:
    return _plain(text, CONTACT_BYTES_MAX)


def _address(text: str) -> str | None:
    problem = _plain(text, ADDRESS_BYTES_MAX)
    if problem or not text:
        return problem
    try:
        split_address(text)
    except Refused as error:
        return str(error).rstrip(".")
    return None


def _reachable(text: str) -> str | None:
    if not text:
        return None
    problem = _address(text)
    if problem:
        return problem
    host, port = split_address(text)
    if port == 0 or not host or _is_wildcard(host):
        return "nobody can call that address; give the name or number others reach you under"
    return None


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _languages(tags: list[str]) -> str | None:
    if len(tags) > LANGUAGES_MAX:
        return f"it names {len(tags)} languages, and at most {LANGUAGES_MAX} fit"
    wrong = [tag for tag in tags if not _LANGUAGE.fullmatch(tag)]
    return f"“{wrong[0][:20]}” is no language code such as en, de or pt-BR" if wrong else None


def _one_of(*choices: str) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        return None if text in choices else "it must be " + " or ".join(f'"{c}"' for c in choices)

    return check


def _between(low: int, high: int) -> Callable[[int], str | None]:
    def check(number: int) -> str | None:
        return None if low <= number <= high else f"it must be from {low:,} to {high:,}"

    return check


def _key(default: Any, explanation: str, check: Callable[[Any], str | None]) -> Any:
    """A field with what the file says above it, and the check that names what is wrong."""
    return field(default=default, metadata={"explanation": explanation, "check": check})


@dataclass(frozen=True, slots=True)
class GuardianConfig:
    """What one guardian has set. Every instance satisfies the limits; else Refused is raised.

    Sizes are in bytes, addresses `host:port`; an empty address turns its listener off.
    """

    name: str = _key(
        "",
        "Your name, as members and the other guardians know you.",
        _name,
    )
    listen: str = _key(
        "127.0.0.1:7001",
        "Where this machine waits for calls from wallets and guardians. 127.0.0.1 means: from\n"
        'this machine only. ":7001" means: from everywhere. Empty: it only makes calls itself.',
        _address,
    )
    advertise: str = _key(
        "",
        "The address under which others reach you, for example guardian.example.org:7001.\n"
        "Leave it empty behind a home router: this machine then calls the others.",
        _reachable,
    )
    contact: str = _key(
        "",
        "How a member in trouble finds you: a telephone number, a street, a place.",
        _contact,
    )
    languages: tuple[str, ...] = _key(
        (),
        'The languages you speak, as codes: ["en", "pt-BR"].',
        lambda tags: _languages(list(tags)),
    )
    hours: str = _key(
        "",
        "When you can be reached, in your own words.",
        _contact,
    )
    admission: str = _key(
        "invite",
        'Who may leave things with you: "invite" is anybody who has an invite of your\n'
        'federation, "admitted" is only those whom you have let in by hand.',
        _one_of("invite", "admitted"),
    )
    console: str = _key(
        "127.0.0.1:7080",
        "Where your own browser finds the console. Keep 127.0.0.1: whoever reaches this page\n"
        "acts in your name. Empty: no console.",
        _address,
    )
    metrics: str = _key(
        "",
        "Where a monitoring programme may read numbers about this node, for example\n"
        "127.0.0.1:7090. Empty: nowhere.",
        _address,
    )
    log: str = _key(
        "console",
        'How the node reports on its work: "console" for people, "json" for programmes.',
        _one_of("console", "json"),
    )
    vaults_max: int = _key(
        100_000,
        "How many vaults you will keep for members. Beyond that, new ones are turned away.",
        _between(1, 100_000_000),
    )
    store_bytes_max: int = _key(
        20 * _GIB,
        "How large the database may grow, in bytes. (1_073_741_824 is one GiB.)",
        _between(64 * _MIB, _BYTES_MAX),
    )
    disk_reserve_bytes: int = _key(
        512 * _MIB,
        "How much of the disk must stay free, in bytes. With less, new deposits are turned\n"
        "away and everything else goes on: recoveries need little room, but they need some.",
        _between(16 * _MIB, _BYTES_MAX),
    )

    def __post_init__(self) -> None:
        for key in dataclasses.fields(self):
            problem = key.metadata["check"](getattr(self, key.name))
            if problem:
                raise Refused(f"The setting {key.name} cannot be used: {problem}.")


_FIELDS: Final = {key.name: key for key in dataclasses.fields(GuardianConfig)}


def read_config(
    path: Path | None = None,
    *,
    flags: Mapping[str, Value | None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> GuardianConfig:
    """Return the settings of `path`, overridden by environment and flags.

    Flags that are None were not given. In the environment a list is written with commas.
    Raises Refused with a sentence that names the file, the key and the nearest known key.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values |= _checked(_read_toml(path), f"the file {path}")
    values |= _from_environment(environment or {})
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    values |= _checked(given, "the command line")
    return GuardianConfig(**values)


def config_text(config: GuardianConfig) -> str:
    """Return the TOML file of these settings, every key explained for who must edit it."""
    parts = [
        "# Settings of a Holdfast guardian. Lines that begin with # explain; change the others,\n"
        "# then start the guardian again.\n"
    ]
    for name, key in _FIELDS.items():
        lines = key.metadata["explanation"].split("\n")
        comment = "".join(f"# {line}\n" for line in lines)
        parts.append(f"{comment}{name} = {_toml(getattr(config, name))}\n")
    return "\n".join(parts)


def write_config(path: Path, config: GuardianConfig, *, replace: bool = False) -> None:
    """Write the settings to `path`, durably. Refuses to replace a file unless told to."""
    write_durably(path, config_text(config).encode(), replace=replace)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise Refused(
            f"There is no settings file at {path}.",
            hint="Make one with: holdfast guardian init",
        ) from None
    except OSError as error:
        raise Refused(f"The settings file {path} cannot be read: {error.strerror}.") from error
    if len(raw) > FILE_BYTES_MAX:
        raise Refused(f"The settings file {path} has more than {FILE_BYTES_MAX:,} bytes.")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise Refused(f"The settings file {path} is not text in UTF-8.") from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise Refused(
            f"The settings file {path} cannot be understood: {error}.",
            hint='Settings look like this: name = "Maria", with quotation marks around words.',
        ) from error


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    for name, value in values.items():
        if name not in _FIELDS:
            raise Refused(f"There is no setting “{name}” ({where}).", hint=_nearest(name))
        if not _fits(name, value):
            raise Refused(
                f"The setting {name} has a value of the wrong kind ({where}).",
                hint=f"Write it like this: {name} = {_toml(_FIELDS[name].default)}",
            )
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.0)[0]
    return f"Did you mean “{near}”? Known are: {', '.join(_FIELDS)}."


def _fits(name: str, value: Any) -> bool:
    default = _FIELDS[name].default
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(type(item) is str for item in value)
    return type(value) is type(default)  # exactly: a bool is an int to Python


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name in _FIELDS:
            values[name] = _from_text(name, text, variable)
        elif near := difflib.get_close_matches(name, _FIELDS, n=1, cutoff=0.8):
            # Other variables with our prefix belong to other parts; a near miss is a typing error.
            raise Refused(
                f"There is no setting for the environment variable {variable}.",
                hint=f"Did you mean {ENVIRONMENT_PREFIX}{near[0].upper()}?",
            )
    return values


def _from_text(name: str, text: str, variable: str) -> Any:
    default = _FIELDS[name].default
    if isinstance(default, tuple):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise Refused(
                f"The environment variable {variable} must be a whole number.",
                hint=f"For example: {variable}={default}",
            ) from None
    return text


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, int):
        return f"{value:_}"
    return '"' + "".join(_escaped(character) for character in value) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    # What is not printable would be refused by TOML (controls) or mislead a reader (bidi marks).
    if character.isprintable():
        return character
    return f"\\u{ord(character):04X}" if ord(character) < 0x10000 else f"\\U{ord(character):08X}"
