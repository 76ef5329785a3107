"""Requests passed on to a guardian that nobody can call, over a link that it holds.

A guardian behind a home router only dials out. A wallet then asks another guardian to pass
its request on, and gets the answers back the same way. Nothing rests on who carries them:
what is secret is sealed to the guardian it is for, and what counts is signed.
"""

from __future__ import annotations

from typing import Any, Final

from protocol import messages
from protocol.contract import Effect, LinkId, Message, Receive, Seat, Send
from protocol.errors import Malformed, NotYet, Refused
from protocol.gossip import Gossip

PASSED_MAX: Final = 512  # requests under way for one wallet's link or for one neighbour

# What may be passed on. Fragments are streams between the two ends of one link.
PASSABLE: Final = ("deposit", "settle", "seen", "owner", "claim", "follow", "succeed")

ANSWERS: Final = ("reply", "refusal", "case", "release")  # what may come back


class Relay:
    """Both ends of passing on: for wallets here, and for neighbours' wallets."""

    def __init__(self, gossip: Gossip) -> None:
        self._gossip = gossip
        self._count = 0
        self._passed: dict[int, tuple[LinkId, int]] = {}  # our number -> wallet, its request
        # A request that a neighbour passed on is handled as if it came on a link of its own,
        # numbered below zero: that number -> the neighbour's link and its number.
        self._guests: dict[LinkId, tuple[LinkId, int]] = {}

    # --- for a wallet here ------------------------------------------------------------

    def pass_on(self, link: LinkId, fields: Any, out: list[Effect]) -> None:
        """Pass a wallet's request on. Raises what the wallet is to be told."""
        seat: Seat = fields["seat"]
        if fields["kind"] not in PASSABLE:
            raise Malformed(f"a request of kind {fields['kind']} is not passed on")
        if sum(wallet == link for wallet, _ in self._passed.values()) >= PASSED_MAX:
            raise NotYet("too many requests are under way on this connection")
        standing = [
            number
            for number, neighbour in sorted(self._gossip.neighbours.items())
            if neighbour.seat == seat
        ]
        if not standing:
            name = self._gossip.roster.named(seat)
            raise NotYet(f"{name} is not connected just now", hint="try again in a while")
        self._count += 1
        self._passed[self._count] = (link, fields["request"])
        passed = {"number": self._count, "kind": fields["kind"], "fields": fields["fields"]}
        out.append(Send(standing[-1], Message("passed", passed)))

    def returned(self, fields: Any, out: list[Effect]) -> None:
        """An answer to something passed on: back to the wallet it goes."""
        link, request = self._passed.get(fields["number"], (0, 0))
        if link and fields["kind"] in ANSWERS:
            answer = dict(fields["fields"])
            if "request" in answer:
                answer["request"] = request
            out.append(Send(link, Message(fields["kind"], answer)))

    # --- for a neighbour's wallet -----------------------------------------------------

    def guest(self, link: LinkId, fields: Any) -> tuple[LinkId, Message]:
        """A request that a neighbour passed on, and the link to handle it as coming from."""
        if sum(home == link for home, _ in self._guests.values()) >= PASSED_MAX:
            self._guests.pop(max(self._guests))  # the oldest: numbers fall
        self._count += 1
        self._guests[-self._count] = (link, fields["number"])
        message = Message(fields["kind"], {**fields["fields"], "request": fields["number"]})
        if message.kind not in PASSABLE:
            raise Malformed(f"a request of kind {message.kind} is not passed on")
        messages.check(message)
        return -self._count, message

    def redirect(self, effects: list[Effect]) -> list[Effect]:
        """Turn what is sent to guests into answers over their neighbours' links."""
        if not self._guests:
            return effects
        result: list[Effect] = []
        for effect in effects:
            if isinstance(effect, (Send, Receive)) and effect.link < 0:
                home = self._guests.get(effect.link)
                if home is not None and isinstance(effect, Send):
                    fields = {"number": home[1], "kind": effect.message.kind,
                              "fields": effect.message.fields}  # fmt: skip
                    result.append(Send(home[0], Message("returned", fields)))
            else:
                result.append(effect)
        return result

    def link_down(self, link: LinkId) -> list[LinkId]:
        """Forget what came over a link; the guests that are gone with it."""
        self._passed = {
            number: wallet for number, wallet in self._passed.items() if wallet[0] != link
        }
        gone = [guest for guest, (home, _) in self._guests.items() if home == link]
        for guest in gone:
            del self._guests[guest]
        return gone


def refuse_fragments() -> Refused:
    """A backup too large to be passed on."""
    return Refused(
        "this guardian can only be reached through others, and takes backups of at most 4 KiB",
        hint="the other guardians hold it; a smaller secret can be kept by all",
    )
