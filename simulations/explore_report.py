"""What a walk of the explorer came to, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simulations.explore_cores import Packet, said
from simulations.explore_plans import LIAR, NAMES

PASSED: Final = 0
SAFETY: Final = 10
LIVENESS: Final = 11
INCONCLUSIVE: Final = 12
CRASHED: Final = 14
USAGE: Final = 64


@dataclass
class Found:
    """What a walk came to. `trace` tells, step by step, the shortest way to the fault."""

    states: int = 0
    steps: int = 0
    depth: int = 0
    ends: int = 0
    cores: int = 0
    calls: int = 0
    seconds: float = 0.0
    complete: bool = False
    fault: str = ""
    trace: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        if self.fault:
            kinds = {"L": LIVENESS, "c": CRASHED}
            return kinds.get(self.fault[0], SAFETY)
        return PASSED if self.complete else INCONCLUSIVE


def tell(words: str, packets: Sequence[Packet]) -> str:
    """A step as a person would say it."""
    kind, _, rest = words.partition(" ")
    seat, _, about = rest.partition(" ")
    if not seat.isdigit():
        return words
    name = NAMES[int(seat)]
    match kind:
        case "hear":
            peer, packet = about.split()
            return f"{name} hears from {NAMES[int(peer)]}: {said(packets[int(packet)])}"
        case "act":
            return f"the owner's veto reaches {name}" if about == "veto" else f"{name}: {about}"
        case "lie":
            return f"{NAMES[LIAR]}, who lies, shows {name}: {about}"
        case "boot":
            return f"{name} crashes and comes back"
        case "compare":
            return f"{name} compares logs with {NAMES[int(about)]}"
        case "tick":
            return "a minute passes"
    return words


def report(name: str, found: Found) -> str:
    """The end of a walk, for people."""
    verdict = f"FAILED {found.fault}" if found.fault else (
        "passed" if found.complete else "not finished: passed so far"
    )  # fmt: skip
    lines = [
        f"{name}   {len(NAMES)} guardians, threshold 3, {NAMES[LIAR]} lies   {found.seconds:.1f} s",
        f"{found.states:,} states, {found.steps:,} steps, depth {found.depth}, "
        f"{found.ends:,} ends; {found.cores:,} states of cores, {found.calls:,} calls",
        verdict,
        *(f"  {number:>2} {words}" for number, words in enumerate(found.trace, start=1)),
    ]
    return "\n".join(lines) + "\n"
