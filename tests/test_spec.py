"""SPEC.md against the code: vectors, fields, limits, hash domains, rule numbers."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from node import certificate, framing, greeting, words
from protocol import (
    cases,
    encoding,
    federation,
    fragments,
    messages,
    names,
    sealing,
    sharing,
    statements,
    vault,
)
from protocol.errors import HoldfastError
from protocol.keys import SealingKey, SigningKey

ROOT = Path(__file__).parent.parent
SPEC = (ROOT / "protocol" / "SPEC.md").read_text()
VECTORS = sorted((ROOT / "protocol" / "vectors").glob("*.json"))
SOURCES = sorted(path for part in ("protocol", "node") for path in (ROOT / part).rglob("*.py"))
Fields = Mapping[str, Any]

# --- vectors: each operation takes the fields of `in` and gives those of `out` -----------


def value_from(found: Any) -> Any:
    """A JSON value with {"hex": …} for bytes and {"int": …} for integers beyond JSON's."""
    if isinstance(found, dict):
        if found.keys() == {"hex"}:
            return bytes.fromhex(found["hex"])
        if found.keys() == {"int"}:
            return int(found["int"])
        return {key: value_from(item) for key, item in found.items()}
    return [value_from(item) for item in found] if isinstance(found, list) else found


def value_to(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: value_to(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [value_to(item) for item in value]
    big = type(value) is int and abs(value) > statements.UINT_MAX
    return {"int": str(value)} if big else value


def pattern(size: int) -> bytes:
    """The long inputs of the vectors: byte i is i mod 251."""
    return bytes(i % 251 for i in range(size))


def _codec(given: Fields) -> statements.Codec:
    return statements.Codec(given["federation"])


def _sign(given: Fields) -> Fields:
    key = SigningKey(given["seed"])
    made = _codec(given).sign(key, given["type"], given["fields"])
    signed = _codec(given)._read(made.raw, ())[1]
    return {"by": made.by, "signed": signed, "id": made.id, "raw": made.raw}


def _verify(given: Fields) -> Fields:
    found = _codec(given).verify(given["raw"], *given.get("types", []))
    return {"type": found.type, "id": found.id, "by": found.by, "known": found.known}


def _roster(given: Fields) -> Fields:
    roster = federation.read_roster(given["body"])
    phrase = words.phrase(roster.phrase, 8)
    return {"id": roster.id, "name": roster.name, "phrase": roster.phrase, "words": phrase}


def _invite(given: Fields) -> Fields:
    found = federation.read_invite(given["text"])
    points = [[point.address, point.transport] for point in found.endpoints]
    return {"f": found.federation, "e": found.epoch, "r": found.roster, "a": points}


def _deal_shares(given: Fields) -> Fields:
    secret = sharing.scalar_from(given["secret64"])
    seats = given["seats"]
    dealing = sharing.deal(secret, given["threshold"], seats, given["randomness"])
    return {
        "secret": sharing.encode_scalar(secret),
        "commitments": dealing.commitments,
        "points": dealing.points,
        "shares": [dealing.shares[seat] for seat in seats],
    }


def _combine(given: Fields) -> Fields:
    shares = dict(zip(given["seats"], given["shares"], strict=True))
    secret = sharing.combine(given["threshold"], shares)
    return {"secret": sharing.encode_scalar(secret), "point": sharing.secret_point(secret)}


def _encrypt(given: Fields) -> Fields:
    segments = sealing.encrypt_payload(given["key"], given["plain"])
    return {"segments": segments, "ciphertext": vault.ciphertext_hash(segments)}


def _encrypt_pattern(given: Fields) -> Fields:
    segments = sealing.encrypt_payload(given["key"], pattern(given["size"]))
    coded = fragments.code(segments, given["threshold"], given["holders"])
    return {
        "sizes": [len(each) for each in segments],
        "ciphertext": vault.ciphertext_hash(segments),
        "roots": fragments.roots(coded),
    }


def _wrap(given: Fields) -> Fields:
    cost = sealing.Cost[given["cost"].upper()]
    password = sealing.name_password(given["name"], given["passphrase"])
    stretched = sealing.stretch(password, given["pepper"], cost)
    wrap = sealing.wrap_name_key(given["name_key"], stretched, given["nonce"])
    return {"password": password, "stretched": stretched, "wrap": wrap}


def _unwrap(given: Fields) -> Fields:
    return {"name_key": sealing.unwrap_name_key(given["wraps"], given["stretched"])}


def _code(given: Fields) -> Fields:
    stretched = sealing.stretch(given["claim"], cases.CODE_SALT, sealing.Cost.INTERACTIVE)
    code = cases.claim_code(stretched)
    return {"stretched": stretched, "code": code, "shown": cases.group(code)}


def _claim_name(given: Fields) -> Fields:
    body = _codec(given).verify(given["raw"], "claim").body
    wrap = body["wraps"][body["seats"].index(given["seat"])]
    key = SealingKey(given["seed"]).open(wrap)
    return {"name": sealing.unlock(key, body["name"]).rstrip(b"\0").decode()}


def _deal(given: Fields) -> Fields:
    deal = _codec(given).verify(given["deal"], "deal")
    roster = federation.read_roster(given["body"]) if "body" in given else None
    vault.check_deal(deal, given["federation"], roster)
    return {"id": deal.id, "vault": deal.body["vault"], "threshold": vault.threshold_of(deal)}


def _piece(given: Fields) -> Fields:
    deal = _codec(given).verify(given["deal"], "deal")
    piece = vault.read_piece(SealingKey(given["seed"]).open(given["box"]))
    label = vault.check_piece(deal, given["seat"], piece)
    return {"piece": piece.to_bytes(), "name": label.name, "hint": label.hint}


def _version(given: Fields) -> Fields:
    codec = _codec(given)
    version = codec.verify(given["version"], "version")
    vault.check_version(version, codec.verify(given["deal"], "deal"), given["whole"])
    return {"id": version.id, "number": version.body["number"]}


def _release(given: Fields) -> Fields:
    codec = _codec(given)
    body = codec.verify(given["raw"], "release").body
    plain = SealingKey(given["seed"]).open(body["box"])
    opened = vault.read_release(codec, body["seat"], plain, body["deal"])
    found = [version.id for version, _ in opened.versions]
    return {"share": opened.share, "pepper": opened.pepper, "versions": found}


def _payload(given: Fields) -> Fields:
    version = _codec(given).verify(given["version"], "version").body
    name_key = sealing.unwrap_name_key(version["wraps"], given["stretched"])
    assert name_key is not None
    key = sealing.payload_key(name_key, given["secret"], version["vault"], version["salt"])
    payload = vault.read_payload(sealing.decrypt_payload(key, [given["whole"]]))
    return {"key": key, "form": payload.form, "secret": payload.secret, "owner": payload.owner,
            "title": payload.title, "spellings": payload.spellings}  # fmt: skip


def _decode_fragments(given: Fields) -> Fields:
    coder = fragments.Coder(given["threshold"], given["holders"])
    held = dict(zip(given["of"], given["fragments"], strict=True))
    return {"segment": coder.decode_segment(held, given["size"])}


def _certificate(given: Fields) -> Fields:
    key = SigningKey(given["seed"])
    signature = certificate.certificate_signature(key)
    assert certificate.holds(key.public, signature)
    return {"public": key.public, "signature": signature, "der": certificate.certificate(key)}


class _Bytes:
    """A stream that ends after the given bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive_some(self, size: int | None = None) -> bytes:
        data, self._data = self._data, b""
        return data


def _frame(given: Fields) -> Fields:
    reading = framing.FrameReader(_Bytes(given["bytes"])).read()  # type: ignore[arg-type]
    return {"frame": list(greeting.read_frame(_run(reading)))}


def _run(reading: Any) -> Any:
    async def main() -> Any:
        return await reading

    return trio.run(main)


OPERATIONS: dict[str, Callable[[Fields], Any]] = {
    "cbor encode": lambda g: {"cbor": encoding.encode(g["value"])},
    "cbor decode": lambda g: {"value": encoding.decode(g["cbor"], limit=g["limit"])},
    "hash256": lambda g: {"hash": encoding.hash256(g["domain"], *g["parts"])},
    "text write": lambda g: {"text": encoding.to_text(g["prefix"], g["data"])},
    "text read": lambda g: {"data": encoding.from_text(g["prefix"], g["text"])},
    "sign": _sign,
    "verify": _verify,
    "introduction": lambda g: {
        "id": (found := federation.read_introduction(g["line"])).id,
        "by": found.by,
        "name": found.body["name"],
    },
    "roster": _roster,
    "signed roster": lambda g: {
        "id": federation.read_signed(g["signed"], g.get("federation")).roster.id
    },
    "invite": _invite,
    "normalise": lambda g: {"normal": (n := names.normalise(g["name"])), "utf8": n.encode()},
    "deal shares": _deal_shares,
    "check dealing": lambda g: sharing.check_dealing(g["commitments"], g["points"], g["seats"]),
    "check share": lambda g: sharing.check_share(g["share"], g["point"]),
    "combine": _combine,
    "seat's point": lambda g: {"point": sharing.expected_point(g["commitments"], g["seat"])},
    "seal": lambda g: {"box": sealing.seal(g["to"], g["plain"], g["seed"])},
    "open": lambda g: {"plain": SealingKey(g["seed"]).open(g["box"])},
    "lock": lambda g: {"box": sealing.lock(g["key"], g["plain"], g["nonce"])},
    "unlock": lambda g: {"plain": sealing.unlock(g["key"], g["box"])},
    "wrap": _wrap,
    "unwrap": _unwrap,
    "padded size": lambda g: {"padded": sealing.padded_size(g["size"])},
    "payload key": lambda g: {
        "key": sealing.payload_key(g["name_key"], g["secret"], g["vault"], g["salt"])
    },
    "encrypt": _encrypt,
    "encrypt pattern": _encrypt_pattern,
    "decrypt": lambda g: {"plain": sealing.decrypt_payload(g["key"], g["segments"])},
    "open keystore": lambda g: {"plain": sealing.open_keystore(g["keystore"], g["password"])},
    "code": _code,
    "claim name": _claim_name,
    "vault id": lambda g: {"vault": vault.vault_id(g["first"], g["federation"], g["salt"])},
    "label": lambda g: {
        "name": (found := vault.read_label(g["label"])).name,
        "hint": found.hint,
        "card_count": found.card_count,
    },
    "commitment": lambda g: {"commitment": vault.commitment(g["domain"], g["value"], g["salt"])},
    "deal": _deal,
    "piece": _piece,
    "version": _version,
    "release": _release,
    "payload": _payload,
    "card": lambda g: dict(
        zip(("line", "picture"), vault.open_card(g["key"], g["chunks"]), strict=True)
    ),
    "code segment": lambda g: {
        "fragments": fragments.Coder(g["threshold"], g["holders"]).encode_segment(g["segment"])
    },
    "decode segment": _decode_fragments,
    "tree root": lambda g: {"root": fragments.root(g["leaves"])},
    "tree path": lambda g: {"path": fragments.path(g["leaves"], g["index"])},
    "check path": lambda g: fragments.check_path(
        g["leaf"], g["index"], g["count"], g["path"], g["root"]
    ),
    "certificate": _certificate,
    "certificate key": lambda g: {"public": certificate.key_of(g["der"])},
    "frame": _frame,
}


def outcome(operation: str, given: Any) -> dict[str, Any]:
    """What the code makes of a case: its `out`, or the class of its `error`."""
    try:
        return {"out": value_to(OPERATIONS[operation](value_from(given)))}
    except HoldfastError as error:
        return {"error": type(error).__name__}


def _cases() -> Iterator[Any]:
    for path in VECTORS:
        for case in json.loads(path.read_text())["cases"]:
            yield pytest.param(case, id=f"{path.stem}: {case['name']}")


@pytest.mark.parametrize("case", list(_cases()))
def test_the_code_does_what_a_vector_says(case: dict[str, Any]) -> None:
    """Every vector gives the result, or fails with the class, that it names."""
    expected = {key: case[key] for key in ("out", "error") if key in case}

    assert outcome(case["do"], case["in"]) == expected


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_vector_file_explains_itself(path: Path) -> None:
    """A file of vectors says how to run it, names its cases, and has some that fail."""
    found = json.loads(path.read_text())

    assert list(found) == ["description", "cases"]
    done = {case["do"] for case in found["cases"]}
    assert all(f"“{name}”" in found["description"] for name in sorted(done))
    assert len({case["name"] for case in found["cases"]}) == len(found["cases"])
    assert any("error" in case or case["out"] == {"public": None} for case in found["cases"])
    assert all(case["rule"] in RULES for case in found["cases"])
    assert f"`{path.name}`" in SPEC


# --- rules -------------------------------------------------------------------------------

RULES = re.findall(r"^\*\*(\d+\.\d+)\*\* ", SPEC, re.MULTILINE)


def test_rules_are_numbered_in_order() -> None:
    """Rules count up from 1 in every section, so that a number stays findable."""
    sections: dict[int, list[int]] = {}
    for rule in RULES:
        section, number = map(int, rule.split("."))
        sections.setdefault(section, []).append(number)

    assert list(sections) == [*range(1, 15), 16]
    for numbers in sections.values():
        assert numbers == list(range(1, len(numbers) + 1))


def test_every_rule_referred_to_exists() -> None:
    """A reference to a rule, in a comment or in the text, leads somewhere."""
    for path in SOURCES:
        for rule in re.findall(r"# SPEC (\d+\.\d+)", path.read_text()):
            assert rule in RULES, f"{path.name} refers to rule {rule}"
    prose = re.sub(r"RFC \d+, section [\d.]+|TLS 1\.3|version 1\.3|Unicode 18\.0\.0", "", SPEC)
    for rule in re.findall(r"(?<![\d.,^])(\d{1,2}\.\d{1,2})(?![\d.]|,\d)", prose):
        assert rule in RULES or rule in ("2.1", "0.4", "49.8", "0.06"), f"SPEC.md refers to {rule}"


# --- fields ------------------------------------------------------------------------------

TABLES = {
    title: dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", body, re.MULTILINE))
    for title, body in re.findall(
        r"^#### (\w+ `[^`]+`)\n\n\| field \| shape \|.*\n\|[-|]+\|\n((?:\|.*\n)*)",
        SPEC,
        re.MULTILINE,
    )
}
# Maps that are no statements and no messages: their fields as the code checks them.
MAPS: dict[str, Mapping[str, Any]] = {
    "log": statements.LOG,
    "policy": statements.POLICY,
    "roster body": federation._ROSTER,
    "seat": federation._SEAT,
    "bounds": federation._BOUNDS,
    "label": vault._LABEL,
    "piece": vault._PIECE,
    "released piece": vault._RELEASE,
    "card": vault._CARD,
}
_SCHEMAS: dict[str, Mapping[str, Any]] = {
    **{f"entry `{name}`": fields for name, fields in statements.ENTRIES.items()},
    **{f"statement `{name}`": fields for name, fields in statements.OTHERS.items()},
    **{
        f"message `{name}`": fields
        for table in (messages.GOSSIP, messages.REQUESTS, messages.FOUNDING)
        for name, fields in table.items()
    },
    **{f"map `{name}`": fields for name, fields in MAPS.items()},
}
UNCHECKED = ("map `signed roster`", "map `invite`")  # read by functions of their own


def samples(shape: str) -> tuple[list[Any], list[Any]]:
    """Values at the limits of a shape as SPEC.md writes it, and values just beyond."""
    if shape == "uint":
        return [0, statements.UINT_MAX], [-1, statements.UINT_MAX + 1, True, "0", None]
    if shape == "a map":
        return [{}, {"any": 1}], [[], None, "map"]
    if shape == "flag":
        return [True, False], [0, 1, None]
    if found := re.fullmatch(r"(bytes|text) (≤ )?(\d+)", shape):
        kind, most, size = found[1], found[2], int(found[3])
        unit: Any = b"a" if kind == "bytes" else "a"
        short = unit * (size - 1)
        return [unit * size, *([short, unit * 0] if most else [])], [
            unit * (size + 1),
            *([] if most else [short]),
            "a" * size if kind == "bytes" else b"a" * size,
        ]
    if shape.startswith("one of "):
        listed = [word.strip('"') for word in shape[7:].split(", ")]
        return list(listed), ["another", *([] if "" in listed else [""]), b"ask"]
    if shape.startswith("map "):
        return _maps(TABLES[shape])
    if found := re.fullmatch(r"list (≤ |(\d+)\.\.)(\d+) of (.+)", shape):
        good, bad = samples(found[4])
        least, size = int(found[2] or 0), int(found[3])
        inside = [[each] * size for each in good] + [[good[0]] * least]
        outside = [[good[0]] * (size + 1)] + [[each] for each in bad] + [None]
        return inside, outside + ([[]] if least else [])
    if found := re.fullmatch(r"\[(.+)\]", shape):
        parts = [samples(each) for each in found[1].split(", ")]
        first = [good[0] for good, _ in parts]
        wrong = [
            [*first[:i], each, *first[i + 1 :]] for i, (_, bad) in enumerate(parts) for each in bad
        ]
        return [first, [good[-1] for good, _ in parts]], [first[:-1], [*first, 0], *wrong]
    raise AssertionError(f"SPEC.md describes a field as {shape!r}")


def _maps(table: Mapping[str, str]) -> tuple[list[Any], list[Any]]:
    parts = {name: samples(shape) for name, shape in table.items()}
    good = {name: inside[0] for name, (inside, _) in parts.items()}
    short = {name: value for name, value in good.items() if name != next(iter(good))}
    wrong = [{**good, name: each} for name, (_, outside) in parts.items() for each in outside]
    return [good], [short, {**good, "more": 0}, *wrong]


@pytest.mark.parametrize("title", sorted(_SCHEMAS))
def test_fields_are_those_of_the_document(title: str) -> None:
    """Every statement, message and map has the fields and limits that SPEC.md gives it."""
    assert title in TABLES, f"SPEC.md has no table for {title}"
    fields, table = _SCHEMAS[title], TABLES[title]

    assert sorted(table) == sorted(fields)
    for name, shape in table.items():
        good, bad = samples(shape.strip())
        for value in good:
            assert fields[name](value), f"{name} of {title} should take {str(value)[:60]}"
        for value in bad:
            assert not fields[name](value), f"{name} of {title} takes {str(value)[:60]}"


def test_the_document_has_no_other_tables() -> None:
    """What the code does not know is not described either."""
    assert sorted(TABLES) == sorted([*_SCHEMAS, *UNCHECKED])


# --- limits, domains, names --------------------------------------------------------------

_NODE = ("framing", "greeting")


def _limits() -> dict[str, int]:
    rows = re.findall(r"^\| `([\w.]+)` \| (−?[\d,]+) \| [^|]+ \|$", SPEC, re.MULTILINE)
    return {name: int(value.replace(",", "").replace("−", "-")) for name, value in rows}


def test_limits_are_those_of_the_code() -> None:
    """Every limit in the table of section 15 has the value that the code uses."""
    for name, value in _limits().items():
        module, _, constant = name.rpartition(".")
        package = "node" if module in _NODE else "protocol"
        assert getattr(importlib.import_module(f"{package}.{module}"), constant) == value, name


def test_no_limit_is_missing() -> None:
    """Every constant of `limits`, and every …_MAX and …_MIN on the wire, is in the table."""
    listed = _limits()
    paths = [*sorted((ROOT / "protocol").rglob("*.py"))]
    paths += [ROOT / "node" / f"{name}.py" for name in _NODE]
    for path in paths:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])
        for name in re.findall(r"^([A-Z][A-Z_0-9]*): Final", path.read_text(), re.MULTILINE):
            if name.endswith(("_MAX", "_MIN")) or path.stem == "limits":
                assert f"{module}.{name}" in listed, f"SPEC.md does not list {module}.{name}"


def _domains() -> set[str]:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            name = called if isinstance(called, str) else getattr(called, "id", "")
            if name in ("hash256", "commitment") and isinstance(node.args[0], ast.Constant):
                found.add(str(node.args[0].value))
    return found


def test_hash_domains_are_those_of_the_code() -> None:
    """Every domain that is hashed under stands in rule 1.14, and no other does."""
    listed = re.findall(r"^\| `((?:hf/|holdfast )[^`]+)` \|", SPEC, re.MULTILINE)

    assert sorted(listed) == sorted(_domains())


def _points(text: str) -> list[str]:
    return [chr(int(code, 16)) for code in re.findall(r"U\+([0-9A-F]{4,5})", text)]


def test_folds_of_names_are_those_of_the_code() -> None:
    """The tables of name/1 are complete: a key depends on each line of them."""
    section = SPEC[SPEC.index("**5.5**") : SPEC.index("**5.6**")]
    folds = {}
    for row in re.findall(r"^\| (U\+.*) \| (.*) \|$", section, re.MULTILINE):
        folds.update(dict.fromkeys(_points(row[0]), "".join(_points(row[1]))))
    unseen, apostrophes = SPEC[SPEC.index("**5.6**") : SPEC.index("**5.7**")].split("*Apostrophes*")

    assert folds == names._SAME_LETTER
    assert "".join(_points(unseen)) == names._UNSEEN
    assert sorted(_points(apostrophes)) == sorted(names._APOSTROPHES)
    assert f"Unicode {names.UNICODE_VERSION}" in SPEC


def test_costs_are_those_of_the_code() -> None:
    """The passes and the memory of Argon2id stand in rule 7.5."""
    for cost in sealing.Cost:
        assert f"| `{cost.label}` | {cost.passes} | {cost.memory:,} bytes |" in SPEC


def test_the_certificate_of_the_document_is_the_one_of_the_code() -> None:
    """The template in rule 13.6, filled in, is the certificate."""
    key = SigningKey(bytes([7]) * 32)
    filled = {
        "N": hashlib.sha256(b"holdfast serial" + key.public).digest()[:15],
        "X": key.public.hex().encode(),
        "K": key.public,
        "I": hashlib.sha256(key.public).digest()[:20],
        "signature": certificate.certificate_signature(key),
    }
    section = SPEC[SPEC.index("**13.6**") : SPEC.index("**13.7**")]
    made = b""
    for row in re.findall(r"^\| (\d+) \| `([0-9a-f]+)`(?: ‖ (\w+))? \|", section, re.MULTILINE):
        assert int(row[0]) == len(made)
        made += bytes.fromhex(row[1]) + (filled[row[2]] if row[2] else b"")

    assert made == certificate.certificate(key)
