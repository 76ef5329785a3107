"""The composition root of a guardian's node: from a folder to a process that serves.

    <home>/
        guardian.toml   what the guardian has set (`node.config`)
        introduction    who this guardian is, signed by itself: one line
        keystore        its secret keys, locked; `transport.key` beside it (`node.keystore`)
        guardian.db     everything it keeps (`node.store`)
        desk.sock       for the owner's commands, while the node runs (`node.desk`)

A node starts locked unless it is given the passphrase. Locked, it relays what others signed
and answers questions; it signs nothing and opens nothing.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, TextIO, TypeAlias

import structlog
import trio

from node.clock import SystemClock, SystemEntropy
from node.config import GuardianConfig
from node.desk import Desk
from node.keystore import open_keystore, transport_key, write_durably
from node.machine import Node
from node.ports import Clock, Human
from node.store import SqliteStore
from node.transport import Tls
from node.workers import ThreadWorkers
from protocol.contract import Core, Id, Ledger, Notify, Stretch, Verified
from protocol.custody import Settings
from protocol.errors import Malformed, NotYet, Refused
from protocol.federation import introduce, introduction_text, read_introduction
from protocol.guardian import GuardianCore, Keys, open_core
from protocol.keys import SigningKey
from protocol.limits import SECOND
from protocol.vault import open_card
from protocol.verbs import codes

STORE: Final = "guardian.db"
CONFIG: Final = "guardian.toml"
INTRODUCTION: Final = "introduction"
INTRODUCTION_BYTES_MAX: Final = 8 * 1024  # one line; the longest has some two thousand letters
# Seconds after which a thread gives way to another. At the default of 0.005 a busy loop made
# verification wait for seconds; at 0.0001 giving way took a fifth of all time.
SWITCH_S: Final = 0.0005
# Objects made until Python looks for cycles. A batch of votes makes ten thousand, all of which
# go or stay by themselves; at the default of 700 looking took a tenth of all time.
CYCLES_AFTER: Final = 20_000

OpenCore: TypeAlias = Callable[[Ledger, Verified, Keys | None, Settings], Core]

log = structlog.get_logger("node.daemon")


def tune() -> None:
    """Set up this process to run a node."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(CYCLES_AFTER, 10, 10)


class Quiet:
    """Fill the Human port when nobody is to be rung."""

    def changed(self, topic: str, id: Id) -> None:
        pass

    async def notify(self, notice: Notify) -> None:
        log.info("notice", notice=notice.notice)


@dataclass
class Guardian:
    """What stands between the core and its folder: the keys, when there are any."""

    home: Path
    config: GuardianConfig
    me: Verified
    open_core: OpenCore
    keys: Keys | None = None
    core: Core | None = None

    def make_core(self, ledger: Ledger) -> Core:
        settings = Settings(admission=self.config.admission, vaults_max=self.config.vaults_max)
        self.core = self.open_core(ledger, self.me, self.keys, settings)
        return self.core

    def unlock(self, passphrase: bytes) -> None:
        """Take the keys out of the keystore: 0.06 s, not for the loop. Raises as that does."""
        opened = open_keystore(self.home, passphrase)
        if opened.identity.public != self.me.by:
            raise Refused(
                f"the keystore in {self.home} belongs to another guardian than the introduction",
                hint="put back the file introduction that was made with this keystore",
            )
        self.keys = Keys(opened.identity, tuple(reversed(opened.sealing)))  # newest first
        self._move_address(opened.identity)

    def _move_address(self, identity: SigningKey) -> None:
        """Introduce ourselves anew when the configuration names another address.

        The core sees the difference and tells the federation in an `address` statement.
        """
        body = self.me.body
        if body["address"] == self.config.advertise:
            return
        fields = {key: body[key] for key in body if key not in ("type", "by", "created")}
        fields["address"] = self.config.advertise
        self.me = introduce(identity, **fields, now=SystemClock().now())
        line = introduction_text(self.me) + "\n"
        write_durably(self.home / INTRODUCTION, line.encode())


class Daemon:
    """One guardian's node with its desk."""

    def __init__(
        self,
        home: Path,
        config: GuardianConfig,
        *,
        human: Human | None = None,
        open_core: OpenCore = open_core,
    ) -> None:
        """Open the folder, locked. Raises `Refused` with a sentence when it cannot be.

        `open_core` builds the core: a world that tries out liars has its own.
        """
        self._guardian = Guardian(home, config, _read_introduction(home), open_core)
        self._workers = ThreadWorkers()
        self._transport = Tls(transport_key(home), listen=config.listen)
        self._store = SqliteStore(
            str(home / STORE),
            reserve_bytes=config.disk_reserve_bytes,
            bytes_max=config.store_bytes_max,
        )
        self._node = Node(
            self._guardian.make_core,
            store=self._store,
            transport=self._transport,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            workers=self._workers,
            human=human or Quiet(),
            jobs={Stretch: codes},
            software=f"holdfast {metadata.version('holdfast')}",
        )
        self._desk = Desk(home, self.ask)
        self._leaving = trio.Event()

    @property
    def node(self) -> Node:
        return self._node

    @property
    def name(self) -> str:
        return str(self._guardian.me.body["name"])

    def unlock(self, passphrase: bytes) -> None:
        """Unlock before `run`. Raises `WrongSecret` for another passphrase."""
        self._guardian.unlock(passphrase)

    async def run(
        self,
        talk: TextIO,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop`, or until the system asks the process to end.

        Says on `talk` when it is ready. Starts with the addresses it listens on.
        """
        tune()
        async with trio.open_nursery() as nursery:
            bound = await nursery.start(self._run_node, nursery.cancel_scope)
            await nursery.start(self._desk.serve)
            nursery.start_soon(self._heed_signals, nursery.cancel_scope)
            nursery.start_soon(self._go_down)
            print(self._greeting(bound), file=talk, flush=True)
            task_status.started(bound)

    async def _run_node(
        self,
        everything: trio.CancelScope,
        task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await self._node.run(task_status)
        everything.cancel()

    async def _heed_signals(self, everything: trio.CancelScope) -> None:
        """Go down in good order at the first signal, and at once at the second."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.info("going down", signal=signal.Signals(number).name)
                if self._leaving.is_set():
                    everything.cancel()
                self.stop()

    async def _go_down(self) -> None:
        await self._leaving.wait()
        self._transport.stop_listening()
        await self._node.stop()

    def stop(self) -> None:
        """Take no more calls, finish what came in, make it durable; then `run` returns."""
        self._leaving.set()

    async def ask(self, verb: str, args: Mapping[str, Any]) -> Any:
        """What the owner may ask for: the core's verbs, and those about this process.

        `unlock` takes the passphrase; `lock` forgets the keys; `card` reads a verification card;
        `stop` answers once the node has begun to go down. Raises the refusal.
        """
        match verb:
            case "unlock":
                await self._unlock(args.get("passphrase"))
                return {"locked": False}
            case "lock":
                self._guardian.keys = None
                await self._node.rebuild()
                return {"locked": True}
            case "stop":
                self.stop()
                return {}
            case "card":
                return await self._card(args)
            case "status":
                return self._with_links(await self._node.ask(verb, **args))
        return await self._node.ask(verb, **args)

    async def _unlock(self, passphrase: Any) -> None:
        if type(passphrase) is not bytes:
            raise Malformed("unlocking takes the passphrase")
        await self._workers.compute(lambda: self._guardian.unlock(passphrase))
        await self._node.rebuild()

    async def _card(self, args: Mapping[str, Any]) -> Any:
        """The line and the picture of a vault's verification card, for the owner's eyes.

        Read beside the core, on the store's thread: a quarter of a megabyte is not its business.
        """
        core = self._guardian.core
        if not isinstance(core, GuardianCore):
            raise Refused("this node is not in a federation yet")
        key, root, count = await self._workers.store(lambda: core.verbs.card(args))
        kept = await self._workers.store(lambda: self._store.fragments(root, 0, count))
        if len(kept) < count:
            raise NotYet(
                "the verification card has not come in whole",
                hint="the member's wallet sends the rest when it is on line again",
            )
        line, picture = open_card(key, [each.data for each in kept])
        return {"line": line, "picture": picture}

    def _with_links(self, body: Any) -> Any:
        missing = [
            {"seat": each.seat, "address": each.address, "since": each.since, "why": each.reason}
            for each in self._node.missing()
        ]
        if not isinstance(body, dict):
            return body
        return {**body, "listens": list(self._transport.bound), "unreachable": missing}

    def _greeting(self, bound: tuple[str, ...]) -> str:
        listens = f"is listening on {', '.join(bound)}" if bound else "only makes calls itself"
        lines = [f"{self.name} {listens}"]
        if self._guardian.keys is None:
            lines.append(
                f"{self.name} is locked: it relays but neither votes nor releases;"
                " holdfast guardian unlock"
            )
        return "\n".join(lines)


def _read_introduction(home: Path) -> Verified:
    path = home / INTRODUCTION
    try:
        with path.open("rb") as file:
            line = file.read(INTRODUCTION_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError):
        raise Refused(
            f"there is no guardian in {home}: the file introduction is missing or unreadable",
            hint="make one with holdfast guardian init",
        ) from None
    return read_introduction(line.strip())


def set_up_logging(style: str, stream: TextIO, clock: Clock | None = None) -> None:
    """Write what the node reports to `stream`: `console` for people, `json` for programmes.

    Errors come with the lines they passed through and never with the values there, which
    may be anybody's secret.
    """
    now = clock or SystemClock()

    def stamp(_: Any, __: str, event: Any) -> Any:
        event["at"] = datetime.fromtimestamp(now.now() / SECOND, UTC).isoformat("T", "milliseconds")
        return event

    shared: list[Any] = [structlog.processors.add_log_level, stamp]
    if style == "json":
        shared += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        shared.append(
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        )
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
