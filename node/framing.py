"""Cut a stream into frames and back: length, then msgpack. The only user of msgpack.

A frame is four bytes of length, big-endian, and that many bytes of one msgpack array or map.
Frames hold None, booleans, integers, text, bytes, arrays and maps with text keys, nothing else:
no floats, no dates, no extensions. What a frame means is the business of whoever reads it. Only
what is in flight is written like this; what is signed, hashed or kept is CBOR (`protocol`).

Bytes from outside raise `Malformed`, whatever they are; a reader that raised it is of no more
use, since nobody can say where the next frame begins.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgpack
import trio

from protocol.errors import Malformed

FRAME_BYTES_MAX: Final = 1024 * 1024
"""Bytes of a frame after its length: room for fifteen of the largest statements.

Larger things are streamed in several frames. One link can make a node hold at most this much,
plus `RECEIVE_BYTES`.
"""
RECEIVE_BYTES: Final = 64 * 1024  # asked of the stream at once: twice what one read of TLS gives
ELEMENTS_MAX: Final = 16_384  # in a frame, of all levels: 64 times a link's credit of 256
COUNT_MAX: Final = 2_048
"""Items of one array or map. Room is made for them before they are seen, at every level."""
DEPTH_MAX: Final = 16  # arrays and maps within each other; no message of ours has more than 6

_LENGTH: Final = struct.Struct("!I")
_PLAIN: Final = frozenset({type(None), bool, int, str, bytes})


def pack(message: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """Return the frame of `message`: a dict or list of what frames may hold.

    Tuples and subclasses raise TypeError, so that what is read equals what was written.
    Raises ValueError when the frame exceeds `FRAME_BYTES_MAX`: split the message before.
    """
    body: bytes = msgpack.packb(message, use_bin_type=True, strict_types=True)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {len(body)} bytes exceeds {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Read frames from a stream, holding no more than one frame and one receive in memory.

    Errors of the stream pass through. Not for two tasks at once.
    """

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read(self) -> Any | None:
        """Wait for one frame and return its dict or list; None when the stream has ended.

        Raises Malformed for a frame that is too large, cut off by the end of the stream, or
        not of the form described above.
        """
        await self._fill()
        return self._next()

    async def read_some(self) -> list[Any]:
        """Wait for a frame, and return it with all that have arrived completely behind it.

        The list is empty when the stream has ended. Good frames in front of a bad one are
        given out first; the next call raises Malformed as `read` does.
        """
        await self._fill()
        frames: list[Any] = []
        while True:
            try:
                frame = self._next()
            except Malformed:
                if frames:
                    return frames
                raise
            if frame is None:
                return frames
            frames.append(frame)

    async def _fill(self) -> None:
        """Receive until a whole frame is held, or the stream has ended between frames."""
        if self._held() is not None:
            await trio.lowlevel.checkpoint()
        while self._held() is None:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if data:
                self._buffer += data
            elif self._buffer:
                raise Malformed(
                    f"The connection ended in the middle of a message, after {len(self._buffer)} "
                    "of its bytes."
                )
            else:
                return

    def _held(self) -> int | None:
        """The length of the first frame's body if all of it is held."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._buffer)
        if size > FRAME_BYTES_MAX:
            raise Malformed(
                f"A message announces {size} bytes, and at most {FRAME_BYTES_MAX} are allowed."
            )
        return size if len(self._buffer) >= _LENGTH.size + size else None

    def _next(self) -> Any | None:
        size = self._held()
        if size is None:
            return None
        end = _LENGTH.size + size
        with memoryview(self._buffer) as whole, whole[_LENGTH.size : end] as body:
            frame = _unpack(body)
        del self._buffer[:end]
        return frame


class _Count:
    """Counts what one frame unpacks to while it does, so that few bytes cannot fill memory."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = ELEMENTS_MAX

    def array(self, items: list[Any]) -> list[Any]:
        self._take(len(items))
        return items

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._take(len(pairs))
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key stands twice in one map")
        return result

    def _take(self, number: int) -> None:
        self.left -= number + 1
        if self.left < 0:
            raise ValueError(f"it has more than {ELEMENTS_MAX} parts")


def _unpack(body: memoryview) -> Any:
    count = _Count()
    try:
        frame = msgpack.unpackb(
            body,
            raw=False,
            list_hook=count.array,
            object_pairs_hook=count.map,
            max_array_len=COUNT_MAX,
            max_map_len=COUNT_MAX,
            max_ext_len=0,
        )
    except ValueError as error:  # msgpack's own errors and those of UTF-8 are all of this class
        # Not chained: msgpack's errors carry the message, which may be anybody's secret.
        raise Malformed(f"A message is damaged: {_reason(error)}.") from None
    if not isinstance(frame, (dict, list)):
        raise Malformed("A message is damaged: it is neither a list nor a map.")
    _inspect(frame)
    return frame


def _reason(error: ValueError) -> str:
    if type(error) is ValueError:
        return str(error)
    return "its bytes are not in the form that Holdfast writes"


def _inspect(frame: Any) -> None:
    """Refuse types that frames do not hold, and nesting beyond `DEPTH_MAX`."""
    level = [frame]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for each in level:
            if type(each) is dict:
                if any(type(key) is not str for key in each):
                    raise Malformed("A message is damaged: a key in it is not text.")
                below += [item for item in each.values() if type(item) not in _PLAIN]
            elif type(each) is list:
                below += [item for item in each if type(item) not in _PLAIN]
            else:
                raise Malformed("A message is damaged: it holds something Holdfast never writes.")
        if not below:
            return
        level = below
    raise Malformed(f"A message is damaged: it is nested more than {DEPTH_MAX} deep.")
