"""QR codes: what is shown can be read, and what cannot be read is refused with a sentence."""

from __future__ import annotations

import io
import random
import struct
import zlib

import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from node import qr
from protocol.errors import Refused

BECH32 = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"


def invite(length: int) -> str:
    drawn = random.Random(length)
    return "HOLDFAST1" + "".join(drawn.choice(BECH32) for _ in range(length - 9))


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(qr.png(text))).convert("L")


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("length", [20, 300, 700, 1100, 1500])
def test_invites_of_every_length_come_back(length: int) -> None:
    """What is drawn for an invite is read as that invite."""
    text = invite(length)
    assert qr.read_picture(qr.png(text)) == text


def test_capitals_make_the_small_code() -> None:
    """Upper-case bech32m takes the dense alphanumeric mode and fits easily."""
    code = qr._code(invite(1500))
    assert code.mode == "alphanumeric"
    assert int(code.version) <= 23


@pytest.mark.parametrize("degrees", [0, 7, 45, 90, 133, 180, 271])
@pytest.mark.parametrize("length", [300, 1000])
def test_a_turned_picture_is_read(degrees: int, length: int) -> None:
    """It does not matter how the paper lies."""
    text = invite(length)
    turned = picture(text).rotate(
        degrees, expand=True, fillcolor=255, resample=Image.Resampling.BICUBIC
    )
    assert qr.read_picture(saved(turned, "JPEG")) == text


@pytest.mark.parametrize("side", [360, 900, 2000])
def test_a_scaled_picture_is_read(side: int) -> None:
    """Small and large copies are read."""
    text = invite(400)
    scaled = picture(text).resize((side, side), Image.Resampling.BICUBIC)
    assert qr.read_picture(saved(scaled, "JPEG")) == text


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_a_blurred_grey_picture_is_read(radius: int) -> None:
    """A photograph slightly out of focus, on a grey desk, is read."""
    text = invite(400)
    desk = Image.new("L", (1400, 1000), 120)
    desk.paste(picture(text), (300, 100))
    assert qr.read_picture(saved(desk.filter(ImageFilter.GaussianBlur(radius)), "JPEG")) == text


def test_a_tilted_picture_is_read() -> None:
    """A photograph from the side is read."""
    text = invite(300)
    flat = picture(text)
    w, h = flat.size
    corners = (-40, -30, -10, h + 20, w + 30, h + 60, w + 10, -60)
    tilted = flat.transform(
        (w, h), Image.Transform.QUAD, corners, Image.Resampling.BICUBIC, fillcolor=255
    )
    assert qr.read_picture(saved(tilted)) == text


def test_transparent_inverted_and_repeated_codes_are_read() -> None:
    """A see-through ground, light on dark, and the same code twice are no obstacle."""
    text = invite(300)
    out = io.BytesIO()
    segno.make(text).save(out, kind="png", scale=4, light=None)
    assert qr.read_picture(out.getvalue()) == text

    dark = picture(text).point(lambda value: 255 - value)
    assert qr.read_picture(saved(dark)) == text

    one = picture(text)
    both = Image.new("L", (one.width * 2, one.height), 255)
    both.paste(one, (0, 0))
    both.paste(one, (one.width, 0))
    assert qr.read_picture(saved(both)) == text


def seen_on(lines: str, *, blocks_are_dark: bool) -> Image.Image:
    cells = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    rows = [[cells[c] for c in line] for line in lines.splitlines()]
    image = Image.new("L", (len(rows[0]), 2 * len(rows)))
    for y, row in enumerate(rows):
        for x, halves in enumerate(row):
            for half in (0, 1):
                dark = bool(halves[half]) is blocks_are_dark
                image.putpixel((x, 2 * y + half), 0 if dark else 255)
    return image.resize((image.width * 5, image.height * 5), Image.Resampling.NEAREST)


@pytest.mark.parametrize("length", [20, 300, 1500])
def test_what_the_terminal_shows_can_be_scanned(length: int) -> None:
    """The lines of a terminal are a readable code, with its quiet zone, with colour or without."""
    text = invite(length)

    coloured = qr.terminal(text)
    plain = qr.terminal(text, colour=False)

    for line in coloured.splitlines():
        assert line.startswith(qr._BLACK_ON_WHITE)
        assert line.endswith(qr._AS_BEFORE)
    bare = coloured.replace(qr._BLACK_ON_WHITE, "").replace(qr._AS_BEFORE, "")
    assert qr.read_picture(saved(seen_on(bare, blocks_are_dark=True))) == text
    assert qr.read_picture(saved(seen_on(plain, blocks_are_dark=False))) == text
    assert all(line.startswith("    ") and line.endswith("    ") for line in bare.splitlines())
    assert len({len(line) for line in bare.splitlines()}) == 1
    assert bare.splitlines()[0].strip() == ""


def test_an_svg_is_a_drawing_on_white() -> None:
    """The SVG names its white ground, so that it can be printed and shown on a dark page."""
    drawing = qr.svg(invite(300))
    assert b"<svg" in drawing
    assert b"#fff" in drawing
    assert drawing == qr.svg(invite(300))


def test_too_much_text_is_refused() -> None:
    """A text no QR code can hold is refused in every form."""
    for draw in (qr.terminal, qr.png, qr.svg):
        with pytest.raises(Refused, match="more than a QR code can hold"):
            draw("A" * 5000)


def test_a_picture_without_one_code_is_refused() -> None:
    """No code and several codes get their own sentences."""
    with pytest.raises(Refused, match="no QR code"):
        qr.read_picture(saved(Image.new("L", (300, 300), 200)))
    with pytest.raises(Refused, match="no QR code"):
        qr.read_picture(saved(picture(invite(300)).filter(ImageFilter.GaussianBlur(40))))
    one, other = picture(invite(100)), picture(invite(101))
    both = Image.new("L", (one.width + other.width, max(one.height, other.height)), 255)
    both.paste(one, (0, 0))
    both.paste(other, (one.width, 0))
    with pytest.raises(Refused, match="2 different QR codes"):
        qr.read_picture(saved(both))


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
def test_a_picture_that_would_fill_the_memory_is_refused(side: int) -> None:
    """A small file that claims a huge picture is refused before it is unpacked."""
    with pytest.raises(Refused, match="too large"):
        qr.read_picture(bomb(side, side))


def test_a_file_that_is_too_large_is_refused() -> None:
    """The size of the file is limited too."""
    with pytest.raises(Refused, match="a file of 32 MiB"):
        qr.read_picture(bytes(qr.PICTURE_BYTES_MAX + 1))


@pytest.mark.parametrize("data", [b"", b"HOLDFAST1QQQ", b"%PDF-1.4", b"\xff\xd8\xff\xe0junk"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    """Any other file gets a sentence."""
    with pytest.raises(Refused, match="not a picture"):
        qr.read_picture(data)


@given(st.integers(0, 2**32), st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]))
@settings(max_examples=60, deadline=None)
def test_a_damaged_picture_is_read_or_refused(seed: int, kind: str) -> None:
    """Whatever happened to the file, the answer is its text or a sentence."""
    text = invite(60)
    damaged = bytearray(saved(picture(text), kind))
    drawn = random.Random(seed)
    for _ in range(drawn.randrange(1, 6)):
        damaged[drawn.randrange(len(damaged))] = drawn.randrange(256)
    try:
        assert qr.read_picture(bytes(damaged[: drawn.randrange(1, 2 * len(damaged))])) == text
    except Refused as refusal:
        assert str(refusal).endswith(".")
