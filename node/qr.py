"""QR codes: shown on a terminal, drawn for paper and screens, read from a picture.

Drawing is segno's, reading is zxing-cpp's and Pillow's; they are loaded only when needed,
because most commands need none of them. Text in capitals and digits (bech32m in upper case)
makes the smallest codes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from protocol.errors import Refused

if TYPE_CHECKING:
    import segno
    from PIL import Image

QUIET_ZONE: Final = 4  # modules of white on every side; the standard asks for it
MODULE_PIXELS: Final = 6  # of one module in a PNG: a camera sees a screen at arm's length
PICTURE_BYTES_MAX: Final = 32 * 1024 * 1024  # the largest file a phone's camera makes
PICTURE_PIXELS_MAX: Final = 60_000_000  # phones have 12 to 50 million; 60 MB once unpacked
_SMALL_SIDE_PIXELS: Final = 1_200  # up to here a picture may be enlarged for another look
_FORMATS: Final = ("PNG", "JPEG", "MPO", "WEBP", "GIF")  # what phones and screenshots make
# The two ends of the fixed colour cube, because the basic sixteen follow the theme: the code
# is black on white in a dark terminal, in a light one, and in one that is beige.
_BLACK_ON_WHITE: Final = "\x1b[38;5;16;48;5;231m"
_AS_BEFORE: Final = "\x1b[0m"
_HALF_BLOCKS: Final = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def terminal(text: str, *, colour: bool = True) -> str:
    """Return a QR code as lines of half blocks, two rows of modules a line, quiet zone included.

    With `colour` each line sets black on white itself and resets at its end. Without, the
    blocks are the white modules: for a terminal with light letters on a dark ground.

    Raises:
        Refused: the text is longer than a QR code can be.
    """
    rows = [list(row) for row in _code(text).matrix_iter(border=QUIET_ZONE)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        pairs = zip(upper, lower, strict=True)
        if colour:
            blocks = "".join(_HALF_BLOCKS[bool(a), bool(b)] for a, b in pairs)
            lines.append(f"{_BLACK_ON_WHITE}{blocks}{_AS_BEFORE}\n")
        else:
            lines.append("".join(_HALF_BLOCKS[not a, not b] for a, b in pairs) + "\n")
    return "".join(lines)


def png(text: str) -> bytes:
    """Return a QR code as a PNG file, black on white. The same text gives the same bytes.

    Raises:
        Refused: the text is longer than a QR code can be.
    """
    return _drawn(text, "png")


def svg(text: str) -> bytes:
    """Return a QR code as an SVG file, black on white, to print at any size.

    Raises:
        Refused: the text is longer than a QR code can be.
    """
    return _drawn(text, "svg")


def read_picture(data: bytes) -> str:
    """Return the text of the one QR code in a PNG, JPEG, WebP or GIF file.

    It may be turned, tilted, somewhat blurred, light on dark, and shown more than once.

    Raises:
        Refused: this is no picture, it is too large, or it shows no QR code or several.
    """
    found: list[str] = []
    for look in _looks(_opened(data)):
        found = _codes_in(look)
        if found:
            break
    if not found:
        raise Refused(
            "There is no QR code to be read in this picture.",
            hint="Take it again: the whole code, straight from the front, in focus, without glare.",
        )
    if len(found) > 1:
        raise Refused(
            f"There are {len(found)} different QR codes in this picture.",
            hint="Cut the picture so that only the one that is meant is left.",
        )
    return found[0]


def _code(text: str) -> segno.QRCode:
    import segno

    try:
        # The lowest correction that is still 7 %: fewer modules are read more surely from a
        # screen than a denser code with more of it. segno raises it where that is free.
        return segno.make(text, error="l", micro=False)
    except segno.DataOverflowError:
        raise Refused(
            f"These {len(text)} characters are more than a QR code can hold.",
            hint="Hand them over as text or as a file instead.",
        ) from None


def _drawn(text: str, kind: str) -> bytes:
    out = io.BytesIO()
    _code(text).save(out, kind=kind, border=QUIET_ZONE, scale=MODULE_PIXELS, light="white")
    return out.getvalue()


def _opened(data: bytes) -> Image.Image:
    from PIL import Image

    if len(data) > PICTURE_BYTES_MAX:
        raise _too_large(f"a file of {len(data) >> 20} MiB")
    try:
        with warnings.catch_warnings():
            # Our own limit on pixels is lower than the one Pillow warns at.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=_FORMATS)
            if picture.width * picture.height > PICTURE_PIXELS_MAX:
                raise _too_large(f"{picture.width} by {picture.height} pixels")
            return _on_white(picture)
    except Refused:
        raise
    except Image.DecompressionBombError:
        raise _too_large("hundreds of millions of pixels") from None
    except Exception:
        # Parsers of pictures fail on bad bytes in every way there is.
        raise Refused(
            "This file is not a picture that can be opened, or it is damaged.",
            hint="Give a PNG or JPEG file.",
        ) from None


def _on_white(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if not picture.has_transparency_data:
        return picture.convert("L")
    ground = Image.new("LA", picture.size, (255, 255))
    return Image.alpha_composite(ground, picture.convert("LA")).convert("L")


def _too_large(size: str) -> Refused:
    return Refused(
        f"This picture is too large: {size}.",
        hint=f"Make it smaller, at most {PICTURE_PIXELS_MAX // 1_000_000} million pixels "
        f"and {PICTURE_BYTES_MAX >> 20} MiB.",
    )


def _looks(picture: Image.Image) -> Iterator[Image.Image]:
    from PIL import ImageFilter

    yield picture
    # Out of focus by half a module: the strongest that still made codes readable in trials.
    yield picture.filter(ImageFilter.UnsharpMask(radius=4, percent=400, threshold=0))
    if max(picture.size) <= _SMALL_SIDE_PIXELS:
        yield picture.resize((picture.width * 2, picture.height * 2))


def _codes_in(picture: Image.Image) -> list[str]:
    import zxingcpp

    only = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    found = zxingcpp.read_barcodes(picture, formats=only)
    return list(dict.fromkeys(code.text for code in found))
