"""Pin everything that could make two runs of one seed differ, and forbid the rest.

`pins(seed)` seeds trio's scheduler and turns threads, the wall clock and unseeded sources
of randomness into errors for the thread that entered it. What it forbids is recorded, so
that code which swallows the error still fails the run.

Reached: `os.urandom` (so `nacl.utils.random`, `uuid.uuid4`), `secrets`, `SystemRandom`,
`random.Random()` without a seed, the functions of the module `random`, libsodium's own
source in the bindings that draw from it, the clocks of the module `time` (so `logging`,
`date.today`), threads of trio and of the standard library.

Out of reach, because they are bound in C or were bound to another name before the run:
`datetime.now`, `from time import time`. The check of the source of `node/` covers those.
Hash order is out of reach too, since it is fixed when the interpreter starts: the tests
compare runs across values of PYTHONHASHSEED instead.
"""

from __future__ import annotations

import _thread
import hashlib
import importlib
import os
import random
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any, Final

import trio

from simulations.disk import reset_sqlite_randomness, silent_power_cuts
from simulations.trace import Field, encode

# Tools that watch a run from the same thread and may look at the clock while they do.
OBSERVERS: Final = frozenset({"hypothesis", "_pytest", "pytest", "coverage", "cProfile"})
# Libraries that only pass a call on: the culprit is whoever called them.
CARRIERS: Final = frozenset(
    {"random", "secrets", "uuid", "tempfile", "threading", "concurrent", "logging", "trio", "nacl"}
)

CLOCKS: Final = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
# The clock is read only when fewer arguments than this are given.
CALENDAR: Final = {"localtime": 1, "gmtime": 1, "ctime": 1, "asctime": 1, "strftime": 2}
SODIUM: Final = (  # bindings that draw from libsodium's source, which cannot be seeded
    "randombytes",
    "crypto_box_seal",
    "crypto_box_keypair",
    "crypto_kx_keypair",
    "crypto_sign_keypair",
    "crypto_pwhash_str_alg",
    "crypto_secretstream_xchacha20poly1305_keygen",
    "crypto_secretstream_xchacha20poly1305_init_push",
)

NEVER: Final = sys.maxsize  # arguments: no call has that many
ASK_CLOCK: Final = "ask the Clock port, which knows the virtual time"
ASK_ENTROPY: Final = "draw from the Entropy port, or in a simulator from draws(seed, …)"
ASK_WORKERS: Final = "give the work to the Workers port"


class Nondeterminism(Exception):
    """The run touched something that its seed does not decide, so it cannot be replayed.

    The fault of the code named in the message, not of the world: use the port instead.
    """


class TrioMoved(Exception):
    """trio no longer has a private name that simulated runs rest on. Says which, where to look."""


def draws(seed: int, *labels: Field) -> random.Random:
    """Return the stream of random numbers that belongs to `labels` under `seed`.

    Streams of different labels are independent, so that one more guardian or one fault less
    moves nobody else's draws. Label by entity and purpose: `draws(seed, "disk", 3)`.
    """
    key = hashlib.blake2b(encode((seed, *labels)), digest_size=32).digest()
    return random.Random(int.from_bytes(key, "big"))


class Pins:
    """What is pinned for one run; `breaches` says what the run touched all the same."""

    def __init__(self) -> None:
        self.breaches: list[str] = []
        self._thread = threading.get_ident()

    def breach(self, name: str, instead: str) -> None:
        """Record a call and raise Nondeterminism, unless an observer or another thread made it."""
        frame = sys._getframe(1)
        while frame.f_back is not None and _root(frame) in CARRIERS | {__name__}:
            frame = frame.f_back
        if threading.get_ident() != self._thread or _root(frame) in OBSERVERS:
            return
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.breaches.append(f"{name} was called in a simulated run, at {where}; {instead}")
        raise Nondeterminism(self.breaches[-1])


def _root(frame: FrameType) -> str:
    module = str(frame.f_globals.get("__name__", ""))
    return module if module == __name__ else module.partition(".")[0]


def check_trio() -> None:
    """Raise TrioMoved unless every private name that simulated runs rest on is in its place."""
    for module, name, fits in (
        ("trio._core._run", "_ALLOW_DETERMINISTIC_SCHEDULING", lambda it: isinstance(it, bool)),
        ("trio._core._run", "_r", lambda it: isinstance(it, random.Random)),
        ("trio._threads", "start_thread_soon", callable),
    ):
        try:
            found = fits(getattr(importlib.import_module(module), name))
        except (ImportError, AttributeError):
            found = False
        if not found:
            raise TrioMoved(
                f"trio {trio.__version__} has no {module}.{name} of the expected kind, and "
                f"simulated runs rest on it. Look at how trio orders a batch of tasks "
                f"(trio/_core/_run.py) and starts threads (trio/_threads.py) and correct "
                f"simulations/determinism.py, or go back to trio 0.35"
            )


@contextmanager
def pins(seed: int) -> Iterator[Pins]:
    """Make what happens inside depend on `seed` alone; put everything back at the end.

    Does not nest. Raises Nondeterminism at a forbidden call, and again at the end when its
    error was swallowed; TrioMoved when this trio cannot be pinned.
    """
    check_trio()
    held = Pins()
    state = random.getstate()
    with ExitStack() as undo:
        _pin_scheduler(undo, seed)
        undo.callback(reset_sqlite_randomness)
        reset_sqlite_randomness()
        undo.enter_context(silent_power_cuts())
        _forbid_threads(undo, held)
        _forbid_clocks(undo, held)
        _forbid_randomness(undo, held)
        yield held
    if random.getstate() != state:
        held.breaches.append(
            f"something drew from the module random in a simulated run, through a name it had "
            f"bound before; {ASK_ENTROPY}"
        )
    if held.breaches:
        raise Nondeterminism(held.breaches[0])


def _replace(undo: ExitStack, owner: Any, name: str, value: object) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _forbid(
    undo: ExitStack,
    held: Pins,
    owner: Any,
    name: str,
    instead: str,
    *,
    pure_from: int = sys.maxsize,
) -> None:
    # A name that this version or platform lacks cannot be called either.
    real = getattr(owner, name, None)
    if real is None:
        return

    def stand_in(*args: Any, **named: Any) -> Any:
        if len(args) < pure_from:
            held.breach(f"{owner.__name__}.{name}", instead)
        return real(*args, **named)

    _replace(undo, owner, name, stand_in)


def _pin_scheduler(undo: ExitStack, seed: int) -> None:
    run = importlib.import_module("trio._core._run")
    # The flag sorts each batch by age before the shuffle; without it the batch comes from
    # sets ordered by memory address, and seeding the shuffle alone is not enough.
    _replace(undo, run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    undo.callback(run._r.setstate, run._r.getstate())
    run._r.seed(draws(seed, "scheduler").getrandbits(64))


def _forbid_threads(undo: ExitStack, held: Pins) -> None:
    # The first stands behind trio.to_thread, trio.Path, trio.open_file and name look-ups.
    for owner, name in (
        (importlib.import_module("trio._threads"), "start_thread_soon"),
        (trio.lowlevel, "start_thread_soon"),
        (threading.Thread, "start"),
        (_thread, "start_new_thread"),
    ):
        _forbid(undo, held, owner, name, ASK_WORKERS)


def _forbid_clocks(undo: ExitStack, held: Pins) -> None:
    for name in (*CLOCKS, "sleep"):
        _forbid(undo, held, time, name, ASK_CLOCK)
    for name, given in CALENDAR.items():
        _forbid(undo, held, time, name, ASK_CLOCK, pure_from=given)


def _forbid_randomness(undo: ExitStack, held: Pins) -> None:
    for owner, name in (
        (os, "urandom"),
        (os, "getrandom"),
        (random, "_urandom"),  # behind SystemRandom, and so behind the module secrets
        (ssl, "RAND_bytes"),
    ):
        _forbid(undo, held, owner, name, ASK_ENTROPY)
    bindings = importlib.import_module("nacl.bindings")
    for name in SODIUM:
        _forbid(undo, held, bindings, name, ASK_ENTROPY)
    shared = random.random.__self__  # type: ignore[attr-defined]
    for name in dir(random):
        if getattr(getattr(random, name), "__self__", None) is shared and "state" not in name:
            _forbid(undo, held, random, name, ASK_ENTROPY)
    _forbid_seeding_from_nothing(undo, held)


def _forbid_seeding_from_nothing(undo: ExitStack, held: Pins) -> None:
    real = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None:
            held.breach("random.Random() without a seed", ASK_ENTROPY)
        real(self, a, version)

    _replace(undo, random.Random, "seed", seed)
