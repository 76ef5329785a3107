"""Wallets for measuring: a link to a guardian, and a member with a secret to lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import trio

from benchmarks import staging
from node.framing import FrameReader, pack
from node.greeting import Hello, read_frame
from node.transport import Tls
from protocol.cases import CODE_SALT, claim_code
from protocol.contract import Verified
from protocol.federation import Roster
from protocol.keys import SealingKey, SigningKey
from protocol.names import normalise
from protocol.sealing import Cost, stretch
from protocol.statements import Codec
from protocol.vault import Payload
from protocol.wallet import backing_up, recovering

SECRET: Final = b"the key to everything"


class Line:
    """A wallet's link to one guardian."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.reader = FrameReader(stream)
        self._requests = 0

    async def request(self, kind: str, **fields: Any) -> Mapping[str, Any]:
        """The answer to a request; news that comes before it is dropped."""
        self._requests += 1
        await self._stream.send_all(pack([kind, {**fields, "request": self._requests}]))
        while True:
            kind_, answer = read_frame(await self.reader.read())
            if answer.get("request") == self._requests:
                if kind_ == "refusal":
                    raise RuntimeError(answer["sentence"])
                return answer

    async def pass_on(self, frame: bytes) -> None:
        """Send a frame made before and wait for its receipt."""
        await self._stream.send_all(frame)
        while True:
            kind, answer = read_frame(await self.reader.read())
            if kind in ("refusal", "bye"):
                raise RuntimeError(answer.get("sentence") or answer["reason"])
            if "receipt" in answer:
                return

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)


async def call(address: str, key: bytes, federation: bytes) -> Line:
    """Connect as wallets do, and greet."""
    stream = await Tls().dial(address, key, False)
    await stream.send_all(Hello("benchmark", federation, "wallet").to_frame())
    line = Line(stream)
    await line.reader.read()
    return line


@dataclass(frozen=True)
class Member:
    """One person: a name unlike any other's, a backup, and the device that claims it."""

    name: str
    backup: backing_up.Backup
    deposits: Mapping[int, backing_up.Deposit]
    device: recovering.Device
    claim: Verified
    code: str


def letters(*about: object) -> str:
    """A name unlike any other."""
    drawn = staging.seed(*about)
    return "".join(chr(ord("a") + byte % 26) for byte in drawn[:9])


def enrol(codec: Codec, roster: Roster, number: int, now: int) -> Member:
    """Make all that a member of that number sends; names are stretched at a toy's cost."""
    draws = staging.draws("member", number)
    owner = SigningKey(draws.draw(32))
    name = f"{letters('first', number)} {letters('last', number)}"
    label, policy = backing_up.make_label(name), backing_up.policy_for(roster)
    dealt = backing_up.deal(codec, roster, owner, label, policy, now=now, draws=draws)
    spellings = (normalise(name),)
    stretched = backing_up.stretch_names(spellings, None, backing_up.pepper_of(dealt), Cost.TOY)
    payload = Payload(owner.seed, "raw", SECRET, "", spellings)
    backup, sealed = backing_up.seal(
        codec, roster, owner, dealt, payload, stretched,
        title="", passphrase=False, now=now, draws=draws,
    )  # fmt: skip
    device = recovering.Device(SigningKey(draws.draw(32)), SealingKey(draws.draw(32)))
    claim = recovering.make_claim(codec, roster, device, name, now=now, draws=draws)
    return Member(
        name,
        backup,
        backing_up.deposits(codec, backup, sealed.segments),
        device,
        claim,
        claim_code(stretch(claim.id, CODE_SALT, Cost.TOY)),
    )


def open_vault(recovery: recovering.Recovery, name: str) -> bytes | None:
    """The secret, once enough good pieces are here."""
    for candidate in recovery.candidates():
        password = backing_up.stretch_names((normalise(name),), None, candidate.pepper, Cost.TOY)[0]
        name_key = recovering.unlock_name(candidate, password)
        if name_key is not None:
            found = recovering.decrypt(candidate, name_key, [candidate.whole])
            return found.payload.secret
    return None
