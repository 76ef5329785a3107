"""Where people act: what they can do in a world, whichever engine runs it.

People are written once, as coroutines over these calls. The fast engine resumes them from
its heap, the full one runs them as tasks over real links.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from protocol.contract import Message, Seat
from protocol.errors import HoldfastError


class Dark(Exception):
    """Nobody answered: the node is down, or cannot be reached just now."""


class Refusal(HoldfastError):
    """A guardian's node refused a wallet; `kind` as the message says it."""

    def __init__(self, sentence: str, kind: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class Stage(Protocol):
    """Times are ms since the world began. Nothing here returns before its time."""

    @property
    def now(self) -> int: ...
    async def until(self, at: int) -> None:
        """Return at a time; a past one is now."""
        ...

    async def tell(self, seat: Seat, verb: str, args: Mapping[str, Any]) -> Any:
        """A guardian's person says something to their node. Raises its refusal, or `Dark`."""
        ...

    async def exchange(
        self, place: str, seat: Seat, kind: str, fields: Mapping[str, Any], linger: int
    ) -> Sequence[Message]:
        """One request of a wallet at `place`; the reply and what follows within `linger` ms.

        Raises `Refusal`, or `Dark` when no reply came.
        """
        ...

    def start(self, script: Coroutine[Any, Any, None], name: str) -> None:
        """Let another script run beside this one."""
        ...
