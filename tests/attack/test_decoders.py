"""Every decoder of bytes from outside: our own errors alone, and one encoding for one meaning.

For each there is something valid. Noise, well-formed nonsense, and small changes of what is
valid go in; what comes out is a value or an error with a sentence, and a value only where the
bytes are the very ones that it would be written as.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node import desk, qr
from node.config import read_config
from node.framing import FRAME_BYTES_MAX, FrameReader, pack
from node.greeting import Hello, read_frame, read_hello
from node.intake import read_batch, weigh
from node.transfers import read_fragment
from node.wallet import guardians
from protocol import messages, sealing, vault
from protocol.contract import Message
from protocol.encoding import encode, to_text
from protocol.errors import HoldfastError
from protocol.federation import (
    INTRODUCTION_PREFIX,
    INVITE_PREFIX,
    Endpoint,
    introduction_text,
    invite,
    read_introduction,
    read_invite,
    read_roster,
    read_signed,
)
from protocol.sealing import NONCE_BYTES, SALT_BYTES, Cost, open_keystore, seal_keystore
from protocol.vault import Label, Payload
from protocol.wallet import joining, owning
from simulations.hosts.bare import Bare
from simulations.hosts.member import Member

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

WORLD = Bare()
WORLD.mesh()
ROSA = Member(WORLD, "Rosa Keller")
ROSA.back_up()
DEVICE = ROSA.claim([0])
WORLD.tell(0, "open", code=DEVICE.code)
for seat in (0, 1, 2):
    WORLD.tell(seat, "approve", code=DEVICE.code, how="in person")
CODEC = WORLD.codec
DEAL, ROW = WORLD.hosts[0].guardian.custody.deals(ROSA.vault)[0]
PIECE = WORLD.hosts[0].guardian.custody.piece(ROW)
RELEASE = CODEC.verify(
    next(raw for _, raw in WORLD.hosts[0].ledger.entries() if CODEC.read(raw).type == "release")
)
PLAIN = DEVICE.device.sealing.open(RELEASE.body["box"])
AUTHOR = RELEASE.body["seat"]
POINTS = {0: Endpoint("ada.example:7001", bytes(32)), 1: Endpoint("ben.example:7001", bytes(32))}
INVITE = invite(WORLD.roster.id, WORLD.roster, POINTS)
PAYLOAD = Payload(bytes(32), "words", b"the key", "", ("rosa keller",))
CARD_CHUNKS, _ = vault.make_card(bytes(32), "a line", b"picture")
KEYSTORE = seal_keystore(b"plain", b"passphrase", bytes(SALT_BYTES), bytes(NONCE_BYTES), Cost.TOY)


class Decoder(NamedTuple):
    """Reads bytes; `valid` is something it reads, `again` what it would be written as."""

    read: Callable[[bytes], Any]
    valid: bytes
    again: Callable[[Any], bytes] | None = None


def _open_card(raw: bytes) -> Any:
    return vault.open_card(bytes(32), [sealing.lock(bytes(32), raw, bytes(24))])


DECODERS = {
    "statement": Decoder(CODEC.verify, DEAL.raw, lambda found: found.raw),
    "entry": Decoder(CODEC.verify, RELEASE.raw, lambda found: found.raw),
    "roster": Decoder(read_roster, WORLD.roster.body, lambda found: found.body),
    "signed roster": Decoder(read_signed, WORLD.signed.to_bytes(), lambda found: found.to_bytes()),
    "roster for an invite": Decoder(
        lambda raw: joining.check_roster(INVITE, raw), WORLD.signed.to_bytes()
    ),
    "invite": Decoder(
        lambda raw: read_invite(to_text(INVITE_PREFIX, raw)),
        encode({"f": bytes(32), "e": 0, "r": bytes(32), "a": [["a:1", bytes(32)]]}),
    ),
    "introduction": Decoder(
        lambda raw: read_introduction(to_text(INTRODUCTION_PREFIX, raw)),
        WORLD.hosts[0].introduction.raw,
        lambda found: found.raw,
    ),
    "label": Decoder(vault.read_label, Label("Rosa").to_bytes(), lambda found: found.to_bytes()),
    "piece": Decoder(vault.read_piece, PIECE.to_bytes(), lambda found: found.to_bytes()),
    "payload": Decoder(vault.read_payload, PAYLOAD.to_bytes(), lambda found: found.to_bytes()),
    "card": Decoder(_open_card, encode({"line": "a line", "picture": b"picture"})),
    "release": Decoder(
        lambda raw: vault.read_release(CODEC, AUTHOR, raw, RELEASE.body["deal"]), PLAIN
    ),
    "keystore": Decoder(lambda raw: open_keystore(raw, b"passphrase"), KEYSTORE),
}

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=70)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from([bytes(32), bytes(64), b"", 2**53, 2**53 - 1])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcdef", max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def feed(decoder: Decoder, raw: bytes) -> None:
    try:
        found = decoder.read(raw)
    except HoldfastError as error:
        assert str(error)
        return
    assert decoder.again is None or decoder.again(found) == raw


@pytest.mark.parametrize("name", DECODERS)
@quick
@given(raw=st.binary(max_size=200), value=values)
def test_noise_and_nonsense(name: str, raw: bytes, value: Any) -> None:
    """Any bytes, and any well-formed value, are refused in a sentence."""
    feed(DECODERS[name], raw)
    feed(DECODERS[name], encode(value))


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "keystore"])
@quick
@given(data=st.data())
def test_one_field_is_something_else(name: str, data: st.DataObject) -> None:
    """The right map with one value exchanged, added or missing is a value or a sentence."""
    from protocol.encoding import decode

    valid = DECODERS[name].valid
    try:
        fields = decode(valid, limit=10**6)
    except HoldfastError:
        return  # a statement: its fields lie behind a signature
    key = data.draw(st.sampled_from([*sorted(fields), "another"]))
    if data.draw(st.booleans()):
        fields[key] = data.draw(values)
    else:
        fields.pop(key, None)
    feed(DECODERS[name], encode(fields))


@pytest.mark.parametrize("name", DECODERS)
@quick
@given(data=st.data())
def test_small_changes_of_what_is_valid(name: str, data: st.DataObject) -> None:
    """Flipped, cut, doubled and inserted bytes never make another encoding of the same."""
    decoder = DECODERS[name]
    assert decoder.read(decoder.valid) is not None
    raw = bytearray(decoder.valid)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                raw[at] ^= data.draw(st.integers(1, 255))
            case 1:
                del raw[at : at + data.draw(st.integers(1, 4))]
                raw = raw or bytearray(b"\0")
            case 2:
                raw[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case _:
                raw += raw[at : at + 8]
    feed(decoder, bytes(raw))


# --- what travels in frames -----------------------------------------------------------

kinds = st.sampled_from([*messages.GOSSIP, *messages.REQUESTS, *messages.FOUNDING, "no such"])
fields = st.dictionaries(
    st.sampled_from(["request", "raw", "claim", "vault", "seat", "kind", "fields", "heads", "deal",
                     "number", "digest", "linked", "now", "reply", "upto", "incarnation", "first",
                     "raws", "check", "index", "data", "path", "software", "protocol", "role",
                     "federation", "reason", "version", "box", "whole", "code"]),
    values, max_size=8,
)  # fmt: skip


@quick
@given(kind=kinds | st.text(max_size=5), content=fields | values)
def test_messages(kind: str, content: Any) -> None:
    """A message of any shape is let through or refused, here and by the core behind."""
    try:
        read_frame([kind, content])
        messages.check(Message(kind, content))
    except HoldfastError as error:
        assert str(error)
        return
    for link in (WORLD.wallet(0),):
        core = WORLD.hosts[0].guardian
        from protocol.contract import Moment, Received

        core.handle(Moment(WORLD.now, bytes(32)), Received(link, Message(kind, content)))


@quick
@given(value=values, content=fields)
def test_what_links_read(value: Any, content: dict[str, Any]) -> None:
    """Greetings, batches of entries, fragments and guardians' answers of any shape."""
    hello = Hello("holdfast", WORLD.roster.id)
    for read in (
        lambda: read_hello(value, hello),
        lambda: read_hello(["hello", content], hello),
        lambda: read_hello(["bye", content], hello),
        lambda: read_batch(content),
        lambda: read_fragment(content),
        lambda: owning.read_held(content),
        lambda: weigh(content),
        lambda: guardians._text(content, "reason"),
    ):
        try:
            read()
        except HoldfastError as error:
            assert str(error)


@quick
@given(value=values, content=fields, verb=st.text(max_size=5))
def test_the_desk(value: Any, content: dict[str, Any], verb: str) -> None:
    """Requests at the desk and answers from it, of any shape."""
    for read in (
        lambda: desk._read_request(value),
        lambda: desk._read_request([verb, content]),
        lambda: desk._read_answer(value, "ada"),
        lambda: desk._read_answer(["refused", "no" + verb, verb, "no" + verb], "ada"),
    ):
        try:
            read()
        except HoldfastError as error:
            assert str(error)


async def _frames(raw: bytes, cut: int) -> list[Any]:
    far, near = trio.testing.memory_stream_pair()
    for part in (raw[:cut], raw[cut:]):
        await far.send_all(part)
    await far.send_eof()
    reader, found = FrameReader(near), []
    while (frame := await reader.read()) is not None:
        found.append(frame)
    return found


@quick
@given(value=st.lists(values, min_size=1, max_size=3), data=st.data())
def test_frames(value: list[Any], data: st.DataObject) -> None:
    """A changed frame is another value or a sentence, and never takes more than it may."""
    raw = bytearray(pack(value))
    cut = data.draw(st.integers(0, len(raw)))
    assert trio.run(_frames, bytes(raw), cut) == [value]
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = trio.run(_frames, bytes(raw), cut)
    except HoldfastError as error:
        assert str(error)
    else:
        assert all(type(each) in (list, dict) for each in found)
    assert len(raw) <= FRAME_BYTES_MAX


# --- text and files -------------------------------------------------------------------


@quick
@given(text=st.text(max_size=200), at=st.integers(0, 500), letter=st.characters())
def test_texts_that_people_paste(text: str, at: int, letter: str) -> None:
    """Invites and introductions: anything pasted, and good ones with one wrong letter."""
    for good, read in (
        (INVITE.to_text(), joining.read_any_invite),
        (introduction_text(WORLD.hosts[0].introduction), read_introduction),
    ):
        changed = good[: at % len(good)] + letter + good[at % len(good) + 1 :]
        for line in (text, changed, good + text, good.lower()):
            try:
                found = read(line)
            except HoldfastError as error:
                assert str(error)
                assert line != good.lower()
            else:
                assert found == read(good)


@quick
@given(
    raw=st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")),
    key=st.sampled_from(["name", "listen", "languages", "vaults_max", "log", "console"]),
    value=st.sampled_from(
        ["1", "-1", "true", "[]", '"x"', "1.5", "{}", "1979-05-27", '"\\u0000"', "inf"]
    ),
)
def test_settings(tmp_path: Path, raw: bytes, key: str, value: str) -> None:
    """A file of settings with anything in it is read or refused, and so is the environment."""
    path = tmp_path / "guardian.toml"
    for content in (raw, f"{key} = {value}\n".encode()):
        path.write_bytes(content)
        try:
            read_config(path, flags={}, environment={})
        except HoldfastError as error:
            assert str(error)
    try:
        read_config(path, flags={}, environment={"HOLDFAST_" + key.upper(): value})
    except HoldfastError as error:
        assert str(error)


@settings(max_examples=25, deadline=None)
@given(
    raw=st.binary(max_size=300),
    head=st.sampled_from(
        [
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff\xe0",
            b"GIF89a",
            b"RIFF\0\0\0\0WEBP",
            b"BM",
            b"%PDF-",
            b"<svg",
        ]
    ),
)
def test_pictures(raw: bytes, head: bytes) -> None:
    """A file that begins like a picture, and is none, is refused with a sentence."""
    with pytest.raises(HoldfastError):
        qr.read_picture(head + raw)
