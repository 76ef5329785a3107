"""Bare cores before there is a federation: from introductions to a roster that all signed.

Nodes dial whom their cores ask for, when told to. A node that has no address is never
dialled and dials itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.contract import Dial, Effect, Peer, Rebuild, Table
from protocol.federation import introduce, introduction_text
from protocol.founding import FEDERATION_KEY, Founding
from protocol.guardian import GuardianCore
from protocol.limits import SECOND
from protocol.statements import Codec
from simulations.hosts.bare import START, Bare, Host, make_host


def quiet_host(name: str, number: int) -> Host:
    """A guardian that can only dial out."""
    host = make_host(name, number)
    body = host.introduction.body
    fields = {key: body[key] for key in ("name", "sealing", "transport", "certificate", "contact")}
    host.introduction = introduce(
        host.keys.identity,
        **fields,
        languages=body["languages"],
        hours=body["hours"],
        address="",
        now=START,
    )
    return host


class Founders(Bare):
    """Nodes that are in no federation yet."""

    def __init__(
        self,
        names: tuple[str, ...] = ("ada", "ben", "cleo", "dev", "eve"),
        *,
        quiet: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(names, 2, seed=seed)
        self.dials: dict[int, tuple[Peer, ...]] = {}
        self.hosts = [
            quiet_host(name, number) if number in quiet else make_host(name, number)
            for number, name in enumerate(names)
        ]
        self.queue.clear()
        self.notices.clear()
        for number in range(len(names)):
            self.boot(number)

    def boot(self, number: int, *, locked: bool = False) -> None:
        federation = self.hosts[number].ledger.get(Table.META, FEDERATION_KEY)
        if federation is not None:
            self.codec = Codec(federation)
        super().boot(number, locked=locked)

    def _perform(self, number: int, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                self.dials = {**getattr(self, "dials", {}), number: effect.peers}
            elif isinstance(effect, Rebuild):
                # Links end when a node becomes a guardian's: who it is has changed.
                self.boot(number)
            else:
                super()._perform(number, [effect])

    # --- what people do -----------------------------------------------------------------

    def lines(self) -> list[str]:
        return [introduction_text(host.introduction) for host in self.hosts]

    def draft(self, organiser: int = 0, **more: object) -> dict[str, object]:
        """Let a node draft the federation of all; what it shows."""
        args: dict[str, object] = {
            "name": "Elm Street",
            "threshold": min(3, len(self.hosts)),
            "introductions": self.lines(),
            **more,
        }
        shown: dict[str, object] = self.tell(organiser, "draft", **args)
        return shown

    def accept(self, number: int) -> None:
        """Let a guardian sign the draft that its node shows."""
        self.tell(number, "accept", draft=self.tell(number, "drafted")["id"])

    def dial(self) -> None:
        """Bring up every link that a core asks for, between nodes that are on."""
        for number, host in enumerate(self.hosts):
            for peer in self.dials.get(number, ()) if host.core is not None else ():
                other = next(
                    seat
                    for seat, at in enumerate(self.hosts)
                    if at.introduction.body["transport"] == peer.key
                )
                linked = [at for at, _ in host.links.values()]
                if self.hosts[other].core is not None and other not in linked:
                    self.link(number, other)
        self.run()

    def meet(self, rounds: int = 3) -> None:
        """Dial and let time pass, as nodes that are on do."""
        for _ in range(rounds):
            self.dial()
            self.pass_time(4 * SECOND)

    def live(self) -> list[int]:
        """The nodes whose federation is founded."""
        return [
            number for number, host in enumerate(self.hosts) if isinstance(host.core, GuardianCore)
        ]

    def founding(self, number: int) -> Founding:
        core = self.hosts[number].core
        assert isinstance(core, Founding)
        return core
