"""What every piece of a wallet's work has at hand: the folder, the ports, and who guards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from node.ports import Clock, Entropy, Transport, Workers
from node.transport import Unreachable
from node.wallet.folder import Folder, membership_of
from node.wallet.guardians import TRIES, Guardians, Link, Work
from protocol.errors import HoldfastError, Malformed, Refused
from protocol.federation import Endpoint, Invite, Roster, Signed
from protocol.sealing import Cost
from protocol.statements import Codec
from protocol.wallet import joining
from protocol.wallet.backing_up import Backup
from protocol.wallet.drawing import SEED_BYTES, Draws
from protocol.wallet.joining import Membership

ROSTER_TRIES: Final = 4  # about four seconds for a guardian that is just starting

Event = Mapping[str, Any]
Tell = Callable[[Event], None]


def quiet(event: Event) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Ports:
    """The outside world of a wallet. `cost` is what stretching a name costs, `code_cost` a code:
    guardians have to use the same."""

    transport: Transport
    clock: Clock
    entropy: Entropy
    workers: Workers
    cost: Cost = Cost.MODERATE
    code_cost: Cost = Cost.INTERACTIVE


@dataclass
class Wallet:
    """An open folder and the world around it. `tell` hears of everything worth showing."""

    folder: Folder
    ports: Ports
    tell: Tell = field(default=quiet)

    @property
    def roster(self) -> Roster:
        return self.membership.roster

    @property
    def membership(self) -> Membership:
        """Raises `Refused` when the wallet has not joined yet."""
        return membership_of(self.folder.state)

    @property
    def codec(self) -> Codec:
        return Codec(self.roster.id)

    def now(self) -> int:
        return self.ports.clock.now()

    def draws(self) -> Draws:
        """Return fresh randomness for one act."""
        return Draws(self.ports.entropy.draw(SEED_BYTES))

    def guardians(self) -> Guardians:
        roster = self.roster
        return Guardians(
            transport=self.ports.transport,
            endpoints=joining.endpoints(roster, self.membership.addresses),
            names={guardian.seat: guardian.name for guardian in roster.guardians},
            federation=roster.id,
        )

    async def each(
        self,
        work: Work,
        seats: Sequence[int] | None = None,
        *,
        tries: int = TRIES,
        patient: bool = False,
    ) -> dict[int, HoldfastError]:
        """Do the work with these guardians, all if None, as `Guardians.each` does.

        Who cannot be reached is looked for where the others say that they listen now.
        """
        wanted = self.roster.seats if seats is None else tuple(seats)
        failed = await self.guardians().each(work, wanted, tries=tries, patient=patient)
        away = [seat for seat, error in failed.items() if isinstance(error, Unreachable)]
        reached = [seat for seat in wanted if seat not in away]
        if not away or not reached:
            return failed
        moved = [seat for seat in await learn_addresses(self, reached) if seat in away]
        again = await self.guardians().each(work, moved, tries=tries, patient=patient)
        return {seat: error for seat, error in failed.items() if seat not in moved} | again

    def backup(self, vault: bytes) -> Backup:
        return self.folder.state.backups[vault]

    def keep(self, vault: bytes, backup: Backup) -> None:
        """Write down how a backup stands now."""
        self.folder.state.backups[vault] = backup
        self.folder.save()

    def choose(self, title: str | None) -> bytes:
        """Return the vault of that title, or the only one there is.

        Raises `Refused` with the titles there are.
        """
        backups = self.folder.state.backups
        if not backups:
            raise Refused(
                "this wallet has no backup yet", hint="make one with: holdfast wallet backup"
            )
        if title is None and len(backups) == 1:
            return next(iter(backups))
        found = [vault for vault, backup in sorted(backups.items()) if backup.title == title]
        if len(found) == 1:
            return found[0]
        titles = ", ".join(backup.title for _, backup in sorted(backups.items()))
        raise Refused(
            f"there is no single backup called “{title}”" if title else "there are several backups",
            hint=f"say which one with --title; there are: {titles}",
        )


# --- joining ---------------------------------------------------------------------------


async def meet(ports: Ports, invite: Invite) -> Membership:
    """Call the guardians named in an invite until one shows a roster that fits it.

    Raises the sentence of the one that came furthest when none does.
    """
    names = {number: point.address for number, point in enumerate(invite.endpoints)}
    endpoints: dict[int, Endpoint] = dict(enumerate(invite.endpoints))
    found: dict[int, tuple[Signed, list[bytes]]] = {}

    async def ask(number: int, link: Link) -> None:
        answer = await link.ask("roster", {})
        signed, addresses = answer.get("signed"), answer.get("addresses")
        if type(signed) is not bytes or type(addresses) is not list:
            raise Malformed(f"{link.name} did not show the list of guardians")
        heard = [raw for raw in addresses if type(raw) is bytes]
        found[number] = (joining.check_roster(invite, signed), heard)

    guardians = Guardians(ports.transport, endpoints, names, invite.federation)
    failed = await guardians.each(ask, tries=ROSTER_TRIES)
    if not found:
        raise _nobody(failed)
    signed = max((signed for signed, _ in found.values()), key=lambda each: each.roster.epoch)
    heard = [raw for number in sorted(found) for raw in found[number][1]]
    return Membership(invite, signed, joining.newest_addresses(signed.roster, {}, heard))


def _nobody(failed: Mapping[int, HoldfastError]) -> HoldfastError:
    refusals = [error for _, error in sorted(failed.items()) if isinstance(error, Refused)]
    if refusals:
        return refusals[0]
    first = failed[min(failed)]
    return type(first)(
        f"none of the {len(failed)} guardians in the invite could be reached: {first}",
        hint="check that this device is connected, and try again",
    )


async def learn_addresses(wallet: Wallet, seats: Sequence[int]) -> list[int]:
    """Ask these guardians where all listen now; the seats that have moved.

    Failing that, what is known stays.
    """
    membership = wallet.membership
    heard: list[bytes] = []

    async def ask(seat: int, link: Link) -> None:
        addresses = (await link.ask("roster", {})).get("addresses")
        if type(addresses) is list:
            heard.extend(raw for raw in addresses if type(raw) is bytes)

    before = wallet.guardians()
    await before.each(ask, seats, tries=1)
    known = joining.newest_addresses(wallet.roster, membership.addresses, heard)
    if known == dict(membership.addresses):
        return []
    wallet.folder.state.membership = replace(membership, addresses=known)
    wallet.folder.save()
    after = wallet.guardians().endpoints
    return [seat for seat in sorted(after) if after[seat] != before.endpoints.get(seat)]
