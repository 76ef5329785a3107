"""Call guardians: one link to each, all at once, so that a dead one holds up nobody.

A link carries one request at a time. What a guardian tells unasked while a claim is followed
is handed to `heard`, in order, also when it comes between a request and its answer.

Every wait has an end. A guardian that cannot be reached, goes silent or talks nonsense is
tried again after a growing pause; one that refuses is not: its sentence is the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

import trio

from node.framing import FrameReader, pack
from node.ports import Transport
from node.transport import Unreachable, WrongPeer
from protocol.errors import FaultyPiece, HoldfastError, Locked, Malformed, NotYet, Refused
from protocol.federation import Endpoint

PROTOCOL: Final = 1
DIAL_SECONDS: Final = 15.0  # the transport's own ten, and the first frame
ANSWER_SECONDS: Final = 30.0  # a guardian on a small board that writes a megabyte to its disk
QUIET_SECONDS: Final = 30.0  # while following: then we ask whether it is still there
BACKOFF_FIRST: Final = 0.5  # seconds before the second try; it doubles
BACKOFF_MAX: Final = 15.0  # seconds: someone who waits should see a guardian that came back
TRIES: Final = 3  # for work that a person waits for; `resume` tries again

Heard = Callable[[str, Mapping[str, Any]], None]

_KINDS: Final[dict[str, type[HoldfastError]]] = {
    "refused": Refused,
    "not yet": NotYet,
    "locked": Locked,
    "malformed": Malformed,
}


class Silent(Unreachable):
    """A guardian was reached and did not answer in time. Try again later."""


def _nothing(kind: str, fields: Mapping[str, Any]) -> None:
    pass


@dataclass
class Link:
    """A standing connection to one guardian.

    `through` is the seat of a guardian that only dials out, when this connection is to
    another one who passes requests on to it.
    """

    stream: trio.abc.Stream
    name: str
    heard: Heard = _nothing
    through: int | None = None
    _reader: FrameReader = field(init=False)
    _request: int = 0

    def __post_init__(self) -> None:
        self._reader = FrameReader(self.stream)

    async def greet(self, federation: bytes) -> Mapping[str, Any]:
        """Exchange the first frames. Raises `Unreachable` when we are turned away."""
        fields = {
            "software": metadata.version("holdfast"),
            "protocol": PROTOCOL,
            "federation": federation,
            "role": "wallet",
        }
        await self._send("hello", fields)
        kind, answer = await self._receive()
        if kind == "bye":
            raise Unreachable(f"{self.name} turned us away: {_text(answer, 'reason')}")
        if kind != "hello":
            raise Malformed(f"{self.name} did not say who they are")
        return answer

    async def ask(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer.

        Raises the guardian's refusal as the error it is, `Silent` when no answer comes.
        """
        request = await self.begin(kind, fields)
        return await self.answer(request)

    async def begin(self, kind: str, fields: Mapping[str, Any]) -> int:
        """Send a request and return its number."""
        self._request += 1
        if self.through is not None:
            fields = {"seat": self.through, "kind": kind, "fields": dict(fields)}
            kind = "through"
        await self._send(kind, {**fields, "request": self._request})
        return self._request

    async def answer(self, request: int) -> dict[str, Any]:
        """Wait for the next answer to a request."""
        try:
            with trio.fail_after(ANSWER_SECONDS):
                while True:
                    kind, fields = await self._receive()
                    if kind in ("reply", "refusal") and fields.get("request") == request:
                        break
                    self.heard(kind, fields)
        except trio.TooSlowError as error:
            raise Silent(f"{self.name} did not answer within {ANSWER_SECONDS:g} seconds") from error
        if kind == "refusal":
            error_type = _KINDS.get(_text(fields, "kind"), Refused)
            raise error_type(
                f"{self.name}: {_text(fields, 'sentence')}", hint=_text(fields, "hint")
            )
        return fields

    async def send_fragments(self, request: int, messages: Sequence[Mapping[str, Any]]) -> None:
        """Send the fragments that belong to a request, one a frame."""
        for message in messages:
            await self._send("fragment", {**message, "request": request})

    async def fragments(
        self, fields: Mapping[str, Any], take: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Ask for the fragments of a version and hand each to `take` as it comes."""
        request = await self.begin("fragments", fields)
        count = (await self.answer(request)).get("count")
        if type(count) is not int:
            raise Malformed(f"{self.name} did not say how many parts there are")
        for _ in range(count):
            with trio.fail_after(ANSWER_SECONDS):
                while True:
                    kind, fragment = await self._receive()
                    if kind == "fragment" and fragment.get("request") == request:
                        break
                    self.heard(kind, fragment)
            take(fragment)

    async def follow(self, claim: bytes) -> None:
        """Hand everything the guardian tells of a claim to `heard`, until the link breaks."""
        await self.ask("follow", {"claim": claim})
        while True:
            with trio.move_on_after(QUIET_SECONDS) as quiet:
                kind, fields = await self._receive()
                self.heard(kind, fields)
            if quiet.cancelled_caught:
                # Also brings news that a lost frame would have brought: each follow tells all.
                await self.ask("follow", {"claim": claim})

    async def _send(self, kind: str, fields: Mapping[str, Any]) -> None:
        with trio.fail_after(ANSWER_SECONDS):
            await self.stream.send_all(pack([kind, dict(fields)]))

    async def _receive(self) -> tuple[str, dict[str, Any]]:
        frame = await self._reader.read()
        if frame is None:
            raise Unreachable(f"{self.name} hung up")
        if (
            type(frame) is not list
            or len(frame) != 2
            or type(frame[0]) is not str
            or type(frame[1]) is not dict
        ):
            raise Malformed(f"{self.name} answered with something that is no message")
        return frame[0], frame[1]


def _text(fields: Mapping[str, Any], key: str) -> str:
    """A sentence from outside: one line, and no longer than one."""
    value = fields.get(key)
    shown = value if type(value) is str else ""
    return "".join(c if c.isprintable() else " " for c in shown)[:600]


Work = Callable[[int, Link], Awaitable[None]]


@dataclass(frozen=True)
class Guardians:
    """The guardians that can be called: where they listen and what they are called, by seat."""

    transport: Transport
    endpoints: Mapping[int, Endpoint]
    names: Mapping[int, str]
    federation: bytes = b""

    async def call(self, seat: int, work: Work) -> None:
        """Connect to one guardian, do the work, hang up. Every failure is a `HoldfastError`.

        A guardian that only dials out is reached through another one that it is linked to.
        """
        if seat in self.endpoints:
            await self._call(seat, None, work)
            return
        error: HoldfastError = Unreachable(
            f"{self.names[seat]} only dials out, and nobody else answers"
        )
        for other in sorted(self.endpoints):
            try:
                await self._call(other, seat, work)
                return
            except (Unreachable, NotYet) as failed:
                error = failed
        raise error

    async def _call(self, seat: int, through: int | None, work: Work) -> None:
        target = seat if through is None else through
        name = self.names[target]
        endpoint = self.endpoints[seat]
        try:
            with trio.fail_after(DIAL_SECONDS):
                stream = await self.transport.dial(endpoint.address, endpoint.transport, False)
                link = Link(stream, name, through=through)
                try:
                    await link.greet(self.federation)
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
            try:
                await work(target, link)
            finally:
                await stream.aclose()
        except WrongPeer as error:
            raise Unreachable(f"somebody else than {name} answers at {endpoint.address}") from error
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Unreachable(f"{name} cannot be reached") from error
        except trio.TooSlowError as error:
            raise Silent(f"{name} did not answer in time") from error

    async def each(
        self,
        work: Work,
        seats: Sequence[int] | None = None,
        *,
        tries: int = TRIES,
        patient: bool = False,
    ) -> dict[int, HoldfastError]:
        """Do the work with every guardian at once; return why it failed, by seat.

        `patient` also tries again after "not yet", which other guardians may change.
        """
        failed: dict[int, HoldfastError] = {}

        async def one(seat: int) -> None:
            pause = BACKOFF_FIRST
            for attempt in range(tries):
                try:
                    await self.call(seat, work)
                    failed.pop(seat, None)
                    return
                except (Refused, Locked, FaultyPiece) as error:
                    failed[seat] = error
                    return
                except NotYet as error:
                    failed[seat] = error
                    if not patient:
                        return
                except HoldfastError as error:
                    failed[seat] = error
                    # Who cannot be reached now will not be in the next few seconds either.
                    if attempt + 1 >= TRIES:
                        return
                if attempt + 1 < tries:
                    await trio.sleep(pause)
                    pause = min(2 * pause, BACKOFF_MAX)

        async with trio.open_nursery() as nursery:
            for seat in seats if seats is not None else sorted(self.names):
                nursery.start_soon(one, seat)
        return failed

    async def keep(self, seat: int, work: Work, lost: Callable[[int, HoldfastError], None]) -> None:
        """Do the work over and over, calling again whenever the link is lost.

        Returns only when the guardian refuses.
        """
        pause = BACKOFF_FIRST
        while True:
            began = trio.current_time()
            try:
                await self.call(seat, work)
            except HoldfastError as error:
                lost(seat, error)
                if isinstance(error, Refused):
                    return
            if trio.current_time() - began > BACKOFF_MAX:
                pause = BACKOFF_FIRST
            await trio.sleep(pause)
            pause = min(2 * pause, BACKOFF_MAX)
