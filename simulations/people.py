"""People: guardians who sleep, hesitate and err, members who lose phones, thieves and heirs.

Everything a person decides or needs time for is drawn from a stream of its own, labelled by
who, what and which claim. So the same people decide the same things at the same times in
every engine, whatever a network does between. Where the figures come from stands in
`docs/model.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from protocol.contract import Id, Seat
from protocol.errors import HoldfastError, NotYet
from protocol.limits import DAY, MINUTE
from simulations.chances import MILLION, Stream
from simulations.hosts.stage import Dark

if TYPE_CHECKING:
    from simulations.federation import Federation
    from simulations.members import Claim

AGAIN: Final = 10 * MINUTE  # until someone tries again what did not work
PATIENCE: Final = 20 * DAY  # then a guardian gives a visit up
HOLIDAY: Final = 7 * DAY  # away, and out of reach
TIRED_AFTER: Final = 30 * DAY  # earlier visits are forgotten
YEAR: Final = 365 * DAY


class Person:
    """The human being at a guardian's node."""

    def __init__(self, seed: int, federation: int, seat: Seat, table: Mapping[str, Any]) -> None:
        self._labels = (seed, "guardian", federation, seat)
        self.seat = seat
        self.table = table
        self.zone = self._stream("zone").weighted(table["zones"]) * MINUTE
        self.visits: list[int] = []
        self.colludes = bool(table["colludes"])

    def _stream(self, purpose: str, about: int = 0) -> Stream:
        seed, what, federation, seat = self._labels
        return Stream(seed, what, federation, seat, purpose, about)

    def plan(self, length: int) -> None:
        """Draw holidays, the time of death and that of losing the keys; -1 for never."""
        # Weeks off fall anywhere; a run sees its share of the year's, by chance the last one.
        weeks, rest = divmod(self.table["holidays"] * length, 7 * YEAR)
        weeks += self._stream("weeks").below(7 * YEAR) < rest
        begins = [self._stream("holiday", number).below(max(length, 1)) for number in range(weeks)]
        holidays = [(begin, begin + HOLIDAY) for begin in begins]
        self.holidays = sorted(holidays)
        self.dies = self._once("dies", length)
        self.loses = self._once("loses-keys", length)

    def _once(self, what: str, length: int) -> int:
        # The chance is that of a year; a run sees its share of it.
        stream = self._stream(what)
        happens = stream.below(MILLION * YEAR) < self.table[what] * max(length, 1)
        return stream.below(max(length, 1)) if happens else -1

    def is_gone(self, at: int) -> bool:
        return 0 <= self.dies <= at

    def awake_from(self, at: int) -> int:
        """The first moment from `at` on at which this person is awake and not away."""
        begin, end = self.table["awake"]
        while True:
            for leaves, returns in self.holidays:
                if leaves <= at < returns:
                    at = returns
            local = (at + self.zone) % DAY
            if local < begin * MINUTE:
                at += begin * MINUTE - local
            elif local >= end * MINUTE:
                at += DAY - local + begin * MINUTE
            else:
                return at

    def answers(self, asked: int, claim: int) -> int:
        """When someone asked at a time has been met and made up their mind about."""
        median, sigma = self.table["answer"]
        needs = self._stream("answer", claim).lognormal(median, sigma)
        return self.awake_from(self.awake_from(asked) + needs)

    def judges(self, by: str, claim: int, at: int) -> tuple[bool, bool]:
        """Whether this person approves, and whether they were deceived into it."""
        recent = sum(at - visit < TIRED_AFTER for visit in self.visits)
        self.visits.append(at)
        stream = self._stream("judge", claim)
        if by == "thief":
            if self.colludes:
                return True, False
            likely = min(MILLION, self.table["deceived"] + recent * self.table["fatigue"])
            fooled = stream.chance(likely)
            return fooled, fooled
        return not stream.chance(self.table["mistaken"]), False


class Visit:
    """One guardian's dealings with one claimant, from the first call to the vote."""

    def __init__(self, federation: Federation, seat: Seat, claim: Claim) -> None:
        self.federation = federation
        self.stage = federation.stage
        self.truth = federation.truth
        self.person = federation.people[seat]
        self.seat = seat
        self.claim = claim

    async def live(self, asked: int) -> None:
        """Answer when ready; approve, or send the person away."""
        at = self.person.answers(asked, self.claim.number)
        await self.stage.until(at)
        if self.person.is_gone(at):
            return
        approves, deceived = self.person.judges(self.claim.by, self.claim.number, at)
        if not approves or self.seat in self.federation.silent:
            return
        known = self.truth.claims.get(self.claim.id)
        if known is None:
            return  # told to its end, and forgotten
        knowing = self.claim.by == "owner" and self.claim.is_contested
        self.truth.approves(self.seat, self.claim.id, deceived=deceived, knowing=knowing)
        while self.stage.now < min(at + PATIENCE, known.expires) and not self.claim.over:
            if await self._try(knowing):
                return
            await self.stage.until(self.stage.now + AGAIN)
            if self.person.is_gone(self.stage.now):
                return

    async def _try(self, knowing: bool) -> bool:
        """One attempt at the node. True when there is nothing more to try."""
        try:
            if await self._voted():
                self.truth.approved(self.seat, self.claim.id)
                return True
            vault = await self._vault()
            if vault is None:
                return False
            args: dict[str, Any] = {
                "code": self.claim.code,
                "how": "in person",
                "vault": vault.hex(),
            }
            if knowing:
                args["despite_veto"] = True
            await self.stage.tell(self.seat, "approve", args)
        except Dark:
            return False
        except NotYet:
            return False
        except HoldfastError as error:
            if "old device says" in str(error):
                return await self._hears_veto()
            return False
        self.truth.approved(self.seat, self.claim.id)
        return True

    async def _hears_veto(self) -> bool:
        # In person, to someone they know, a guardian approves all the same; a stranger's
        # story does not survive a call from the owner.
        if self.claim.by == "owner":
            self.claim.is_contested = True
            self.truth.approves(self.seat, self.claim.id, deceived=False, knowing=True)
            args = {"code": self.claim.code, "how": "in person", "despite_veto": True,
                    "vault": self.claim.vault.hex()}  # fmt: skip
            try:
                await self.stage.tell(self.seat, "approve", args)
            except (Dark, HoldfastError):
                return False
            self.truth.approved(self.seat, self.claim.id)
            return True
        self.truth.takes_back(self.seat, self.claim.id)
        return True

    async def _voted(self) -> bool:
        """Whether the vote stands already: its answer may have been lost in a crash."""
        listed = await self.stage.tell(self.seat, "claims", {})
        mine = [case for case in listed["cases"] if case["claim"] == self.claim.id.hex()]
        return bool(mine) and mine[0]["my_vote"] == "approve"

    async def _vault(self) -> Id | None:
        view = await self.stage.tell(self.seat, "open", {"code": self.claim.code})
        exact = [one for one in view["vaults"] if one["likeness"] == 1000]
        return bytes.fromhex(exact[0]["vault"]) if exact else None


def make_people(federation: Federation, seed: int, length: int) -> list[Person]:
    """Everybody at a guardian's node; a group's table goes before the default's."""
    scenario = federation.scenario
    people = []
    for seat in range(scenario.guardians):
        table = scenario.humans["default"]
        for name, group in scenario.humans.items():
            if name != "default" and seat in federation.select(group["seats"], f"humans {name}"):
                table = group
        person = Person(seed, federation.number, seat, table)
        person.plan(length)
        people.append(person)
    return people
