"""What must hold whatever happens: in any order, with losses, copies, crashes and liars."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.cases import Case
from protocol.contract import (
    Command,
    Effect,
    Event,
    Heard,
    LinkDown,
    LinkUp,
    Message,
    Persist,
    Place,
    PutEntry,
    Received,
    Table,
    Told,
    Verified,
)
from protocol.encoding import decode, encode
from protocol.errors import HoldfastError
from protocol.limits import DAY, HOUR, SECOND
from protocol.sealing import seal
from protocol.statements import NOTHING
from protocol.vault import read_release
from protocol.wallet import owning
from protocol.wallet.recovering import Recovery
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member

SEEDS = st.integers(0, 2**32)


class Rough(Bare):
    """A world where what is in flight is shuffled, lost and doubled, and nodes crash.

    A crash comes before an event's writes are durable, or after them and before anything
    else of it has happened. Links come and go in order; everything else in any.
    """

    def __init__(self, seed: int, **more: Any) -> None:
        self.chaos = random.Random(seed)
        self.loss = self.copies = self.crashes = 0.0
        self.crashed: list[int] = []
        self.relinks = True
        self.watch: Callable[[int, Verified], None] | None = None
        super().__init__(seed=seed, **more)

    def run(self, pick: Callable[[int], int] | None = None) -> None:
        self.deliver(10**6)

    def deliver(self, steps: int) -> None:
        """Let at most so many events happen."""
        for _ in range(steps):
            if not self.queue:
                return
            number, event = self.queue.pop(self._next())
            if isinstance(event, Heard | Received) and event.link in self.hosts[number].links:
                if self.chaos.random() < self.loss:
                    continue
                if self.chaos.random() < self.copies:
                    self.queue.append((number, event))
            self._step(number, event)

    def _next(self) -> int:
        for index, (_, event) in enumerate(self.queue):
            if isinstance(event, LinkUp | LinkDown):
                return index
        return self.chaos.randrange(len(self.queue))

    def _step(self, number: int, event: Event) -> None:
        core = self.hosts[number].core
        if core is None:
            return
        if self.chaos.random() < self.crashes / 2:
            self.crash(number)
            return
        effects = list(core.handle(self._moment(), event))
        if self.chaos.random() < self.crashes / 2:
            self._perform(number, [effect for effect in effects if isinstance(effect, Persist)])
            self.crash(number)
            return
        self._perform(number, effects)

    def crash(self, number: int) -> None:
        self.crashed.append(number)
        self.boot(number)
        for other in range(len(self.hosts)) if self.relinks else ():
            if other != number and self.hosts[other].core is not None:
                self.link(number, other)

    def _perform(self, number: int, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist) and isinstance(effect.change, PutEntry):
                entry = self.codec.read(effect.change.raw)
                if self.watch is not None and entry.body["seat"] == number:
                    self.watch(number, entry)
            super()._perform(number, [effect])

    def calm(self) -> None:
        """No more trouble: all nodes on, all links up, and time for the digests."""
        self.loss = self.copies = self.crashes = 0.0
        for _ in range(4):
            self.mesh()
            self.run()
            self.pass_time(20 * SECOND)

    def say(self, number: int, verb: str, **args: Any) -> None:
        """A person says something and does not wait for what follows."""
        self._step(number, Told(0, Command(verb, args)))


class Story:
    """A member, a few devices that claim the vault, and guardians who vote at random."""

    def __init__(self, seed: int, *, claims: int = 2, members: int = 1, **more: Any) -> None:
        self.world = Rough(seed, **more)
        self.rng = random.Random(seed + 1)
        self.world.mesh()
        self.members = [Member(self.world, "Rosa Keller") for _ in range(members)]
        for member in self.members:
            member.back_up()
        self.vaults = [member.vault for member in self.members]
        self.devices = [self.members[0].claim(list(range(5))) for _ in range(claims)]
        for device in self.devices:
            for seat in self.rng.sample(range(5), 2):
                self.world.tell(seat, "open", code=device.code)
        self.world.run()

    def trouble(self, *, loss: float = 0.3, copies: float = 0.2, crashes: float = 0.0) -> None:
        self.world.loss, self.world.copies, self.world.crashes = loss, copies, crashes

    def act(self, *, vetoes: bool = True) -> None:
        """One thing that people may do, and a few deliveries."""
        rng, world = self.rng, self.world
        seat, device = rng.randrange(5), rng.choice(self.devices)
        verb = rng.choices(["approve", "reject", "ask", "veto"], [8, 2, 1, 1 if vetoes else 0])[0]
        if verb == "approve":
            despite = rng.random() < 0.5
            vault = rng.choice(self.vaults).hex()
            world.say(seat, "approve", code=device.code, how="in person", vault=vault,
                      despite_veto=despite)  # fmt: skip
        elif verb == "veto":
            self._veto(seat, device)
        else:
            world.say(seat, verb, case=device.code, words="because")
        world.deliver(rng.randrange(12))

    def _veto(self, seat: int, device: Claimant) -> None:
        member = self.rng.choice(self.members)
        word = owning.veto(
            self.world.codec, member.owner, member.vault, device.claim.id, "no", self.world.now
        )
        fields = {"raw": word.raw, "request": 1}
        self.world._step(seat, Received(self.world.wallet(seat), Message("owner", fields)))

    def cases(self, seat: int) -> list[Case]:
        docket = self.world.hosts[seat].guardian.casework.docket
        return [docket.cases[device.claim.id] for device in self.devices]


def picture(case: Case) -> object:
    """Everything of a case that all guardians must agree on."""
    return (
        case.claim.id if case.claim else None,
        {
            seat: {number: vote.id for number, vote in votes.items()}
            for seat, votes in sorted(case.votes.items())
        },
        sorted(case.vetoes),
        {seat: release.id for seat, release in sorted(case.releases.items())},
    )


def digests(world: Bare) -> list[bytes]:
    return [host.guardian.gossip.digest() for host in world.hosts]


# --- one truth -----------------------------------------------------------------------------


@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_any_order_loss_and_copies_lead_to_the_same_cases(seed: int) -> None:
    """Whatever was shuffled, lost or doubled, all guardians end with the same cases and digest."""
    story = Story(seed, waiting=HOUR)
    story.trouble(loss=0.4, copies=0.3)
    for _ in range(25):
        story.act()
    story.world.calm()

    assert len(set(digests(story.world))) == 1
    for cases in zip(*(story.cases(seat) for seat in range(5)), strict=True):
        assert len({repr(picture(case)) for case in cases}) == 1
    standings = {
        repr([
            (standing.approvals, standing.naming, standing.vetoed)
            for case in story.cases(seat)
            for standing, _, _ in story.world.hosts[seat].guardian.casework.standings(
                case, story.world.now)
        ])
        for seat in range(5)
    }  # fmt: skip
    assert len(standings) == 1


@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_the_same_entries_in_any_order_make_the_same_case(seed: int) -> None:
    """Logs heard interleaved at random, claims last or first, give one picture."""
    story = Story(seed, waiting=HOUR)
    for _ in range(20):
        story.act()
    story.world.calm()
    logs: dict[tuple[int, int], list[Verified]] = {}
    for place, raw in story.world.hosts[0].ledger.entries():
        entry = story.world.codec.verify(raw)
        logs.setdefault((place.seat, place.incarnation), []).append(entry)

    late = Rough(seed, names=("ada", "ben", "cleo", "dev", "eve"), waiting=HOUR)
    host = late.hosts[0]
    host.ledger._rows[Table.VAULT] = dict(story.world.hosts[0].ledger._rows[Table.VAULT])
    host.ledger._rows[Table.DEAL] = dict(story.world.hosts[0].ledger._rows[Table.DEAL])
    host.ledger._rows[Table.VERSION] = dict(story.world.hosts[0].ledger._rows[Table.VERSION])
    late.now = story.world.now
    late.boot(0, locked=True)
    late.link(0, 1)
    late.run()
    link = next(iter(host.links))
    while logs:
        log = story.rng.choice(sorted(logs))
        size = story.rng.randrange(1, 4)
        late._step(0, Heard(link, tuple(logs[log][:size])))
        logs[log] = logs[log][size:]
        if not logs[log]:
            del logs[log]

    docket = host.guardian.casework.docket
    for case in story.cases(0):
        assert picture(docket.cases[case.id]) == picture(case)


# --- nothing below the quorum ----------------------------------------------------------------


class Oracle:
    """Counts votes by itself, from nothing but the entries a guardian holds."""

    def __init__(self, world: Rough, quorum: int, holders: int = 5) -> None:
        self.world, self.quorum, self.holders = world, quorum, holders
        self.releases = 0

    def watch(self, number: int, entry: Verified) -> None:
        if entry.type != "release":
            return
        self.releases += 1
        entries = [
            self.world.codec.verify(raw) for _, raw in self.world.hosts[number].ledger.entries()
        ]
        body = entry.body
        standing = self.standing(entries, body["claim"], body["vault"], body["deal"])
        assert len(standing) >= self.quorum, "released below the quorum"
        claims = {vote.body["claim"] for vote in entries if vote.type == "vote"}
        for other in claims - {body["claim"]}:
            rivals = self.standing(entries, other, body["vault"], body["deal"])
            assert len(rivals) < self.quorum, "released beside a rival that has a quorum too"
        named = {vote.id for vote in entries}
        assert set(body["votes"]) <= named
        self._check_vetoes(entries, body)

    def standing(
        self, entries: list[Verified], claim: bytes, vault: bytes, deal: bytes
    ) -> list[Verified]:
        """The approvals that stand: last words, not given to another claim since, by holders
        who never signed two votes of one revision."""
        result = []
        for seat in range(self.holders):
            votes = [vote for vote in entries if vote.type == "vote" and vote.body["seat"] == seat]
            told = [(vote.body["claim"], vote.body["revision"]) for vote in votes]
            mine = [vote for vote in votes if vote.body["claim"] == claim]
            if not mine or len(set(told)) != len(told):
                continue
            last = max(mine, key=lambda vote: int(vote.body["revision"]))
            given = (last.body["verdict"], last.body["vault"], last.body["deal"])
            later = [
                vote
                for vote in votes
                if vote.body["vault"] == vault
                and vote.body["verdict"] == "approve"
                and vote.body["seq"] > last.body["seq"]
            ]
            if given == ("approve", vault, deal) and not later:
                result.append(last)
        return result

    def _check_vetoes(self, entries: list[Verified], body: Any) -> None:
        vetoes = {}
        for entry in entries:
            if entry.type == "carry":
                inner = self.world.codec.verify(entry.body["raw"])
                if inner.type == "veto" and inner.body["claim"] == body["claim"]:
                    vetoes[inner.id] = inner.body["vault"]
        assert set(body["vetoes"]) == set(vetoes)
        if body["vault"] in vetoes.values():
            # An override once complete stays so; that it ever was is in the votes of all times.
            ever = {
                entry.body["seat"]
                for entry in entries
                if entry.type == "vote" and entry.body["veto"] in vetoes
            }
            assert len(ever) >= self.quorum + 1, "released in spite of a veto"


@given(seed=SEEDS)
@settings(max_examples=12, deadline=None)
def test_nothing_is_released_below_the_quorum(seed: int) -> None:
    """Random votes, rivals, vetoes, losses and crashes: a quorum stands at every release."""
    story = Story(seed, claims=2, members=2)
    oracle = Oracle(story.world, 3)
    story.world.watch = oracle.watch
    story.trouble(loss=0.2, copies=0.2, crashes=0.03)
    for _ in range(30):
        story.act()
    story.world.calm()

    made = [case.releases for case in story.cases(0) if case.releases]
    assert bool(made) == bool(oracle.releases)


@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_two_quorums_of_two_release_nothing_together(seed: int) -> None:
    """With rivals that can both be complete, no guardian releases while it sees both."""
    story = Story(seed, claims=2, threshold=2, waiting=HOUR)
    oracle = Oracle(story.world, 2)
    story.world.watch = oracle.watch
    story.trouble(loss=0.2)
    for _ in range(20):
        story.act(vetoes=False)
        if story.rng.random() < 0.2:
            story.world.pass_time(story.rng.randrange(HOUR))
    story.world.calm()
    story.world.pass_time(3 * HOUR)


@given(seed=SEEDS, liar=st.integers(0, 4))
@settings(max_examples=8, deadline=None)
def test_a_liar_adds_nothing_to_a_quorum(seed: int, liar: int) -> None:
    """One guardian that votes both ways at one place never completes a quorum of three."""
    story = Story(seed, claims=1)
    world, rng, device = story.world, story.rng, story.devices[0]
    honest = [seat for seat in range(5) if seat != liar]
    deal = world.hosts[honest[0]].guardian.custody.deals(story.vaults[0])[0][0].id
    world.kill(liar)
    head = world.hosts[honest[0]].guardian.gossip.heads.get((liar, 0), (0, NOTHING))
    forks = [_vote(world, liar, head, device, story.vaults[0], deal, words) for words in "ab"]
    for seat in honest:
        world.queue.append((seat, LinkUp(9000 + seat, liar)))
        world.queue.append((seat, Heard(9000 + seat, (rng.choice(forks),))))
    world.run()
    for seat in rng.sample(honest, 2):
        world.say(seat, "approve", code=device.code, how="in person")
        world.deliver(rng.randrange(20))
    for seat in honest:
        world.queue.append((seat, LinkDown(9000 + seat)))
    world.calm()

    told = {
        world.hosts[seat].ledger.entry(Place(liar, 0, head[0] + 1)) for seat in honest
    } - {None}  # fmt: skip
    if len(told) == 2:
        for seat in honest:
            assert world.hosts[seat].guardian.gossip.is_excluded(liar)
            case = world.hosts[seat].guardian.casework.docket.cases[device.claim.id]
            standing = world.hosts[seat].guardian.casework.standings(case, world.now)
            assert not any(liar in one.approvals for one, _, _ in standing)
    # Whoever had heard one fork alone could not know better: it acted on three valid votes.


def _vote(
    world: Rough, seat: int, head: tuple[int, bytes], device: Claimant, vault: bytes,
    deal: bytes, words: str,
) -> Verified:  # fmt: skip
    fields = {
        "epoch": 0, "seat": seat, "incarnation": 0, "seq": head[0] + 1, "prev": head[1],
        "claim": device.claim.id, "vault": vault, "deal": deal, "verdict": "approve",
        "how": "in person", "words": words, "revision": 0, "veto": NOTHING, "at": world.now,
    }  # fmt: skip
    return world.codec.sign(world.hosts[seat].keys.identity, "vote", fields)


# --- crashes ---------------------------------------------------------------------------------


def own_entries(world: Rough) -> Iterator[tuple[int, Place, Verified]]:
    """Every entry that any guardian holds, whoever wrote it."""
    for number, host in enumerate(world.hosts):
        for place, raw in host.ledger.entries():
            yield number, place, world.codec.verify(raw)


@given(seed=SEEDS)
@settings(max_examples=12, deadline=None)
def test_no_crash_makes_a_guardian_contradict_itself(seed: int) -> None:
    """Never two entries at one place, nor two votes of one revision, nor a second release."""
    story = Story(seed, claims=2)
    story.trouble(loss=0.1, copies=0.2, crashes=0.15)
    for _ in range(25):
        story.act()
    story.world.calm()

    places: dict[Place, bytes] = {}
    votes: dict[tuple[int, bytes, int], bytes] = {}
    releases: dict[tuple[int, bytes], bytes] = {}
    for _, place, entry in own_entries(story.world):
        assert places.setdefault(place, entry.raw) == entry.raw
        body = entry.body
        if entry.type == "vote":
            key = (place.seat, body["claim"], body["revision"])
            assert votes.setdefault(key, entry.id) == entry.id
        if entry.type == "release":
            assert releases.setdefault((place.seat, body["claim"]), entry.raw) == entry.raw
    assert not any(host.guardian.gossip.proven for host in story.world.hosts)
    assert len(set(digests(story.world))) == 1


@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_a_core_built_anew_goes_on_where_it_was(seed: int) -> None:
    """What a core keeps in memory follows from its ledger alone."""
    story = Story(seed, claims=2, waiting=DAY, members=2)
    story.trouble(loss=0.1)
    for _ in range(20):
        story.act()
        if story.rng.random() < 0.2:
            story.world.pass_time(story.rng.randrange(12 * HOUR))
    story.world.calm()
    for seat in range(5):
        core = story.world.hosts[seat].guardian
        before = [(picture(case), case.facts) for case in story.cases(seat)]
        heads, index = core.gossip.heads, core.custody.index_key
        story.world.boot(seat)
        again = story.world.hosts[seat].guardian
        assert again.gossip.heads == heads
        assert again.custody.index_key == index
        assert [(picture(case), case.facts) for case in story.cases(seat)] == before
        story.world.mesh()
        story.world.run()


@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_no_crash_loses_what_a_receipt_vouched_for(seed: int) -> None:
    """Whoever signed a receipt has the piece and the ciphertext, whatever happened since."""
    world = Rough(seed)
    world.relinks = False
    rosa = Member(world, "Rosa Keller")
    world.crashes = 0.3
    for _ in range(3):
        rosa.prepare(again=rosa.backup is not None)
        for _ in range(4):
            try:
                rosa.deposit()
            except IndexError:
                continue  # the answer was lost with the node, and the wallet asks again
        world.crashes = 0.0
        assert rosa.backup is not None
        version = world.codec.read(rosa.backup.version)
        deal = world.codec.read(rosa.backup.deal)
        for seat in rosa.backup.receipts:
            custody = world.hosts[seat].guardian.custody
            pair = custody.deal(rosa.vault, deal.id)
            assert pair is not None
            assert custody.piece(pair[1]).share
            held = {each.id: row.whole for each, row in custody.versions(deal.id)}
            assert held[version.id] == rosa.sealed.whole
        rosa.deposit()
        assert set(rosa.settle()) == {"settled"}
        world.crashes = 0.3


# --- any threshold of good pieces ------------------------------------------------------------


@given(seed=SEEDS, good=st.sets(st.integers(0, 4), min_size=3), spoil=st.integers(0, 4))
@settings(max_examples=8, deadline=None)
def test_any_good_threshold_among_bad_pieces_gives_the_secret(
    seed: int, good: set[int], spoil: int
) -> None:
    """Three good pieces are enough whatever the others send, and each bad one is named."""
    story = Story(seed, claims=1)
    world, device, rosa = story.world, story.devices[0], story.members[0]
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")
    heard = device.recovery()
    assert sorted(heard.good) == [0, 1, 2, 3, 4]
    mixed = Recovery(world.codec, world.roster, device.claim, device.device)
    releases = story.cases(0)[0].releases
    for seat, release in releases.items():
        raw = release.raw if seat in good else _spoilt(world, release, spoil, device)
        mixed.take_release(raw)

    assert set(mixed.good) == good
    assert {caught.seat for caught in mixed.caught} <= set(range(5)) - good
    device.recovery = lambda: mixed  # type: ignore[method-assign]
    recovered = device.open()
    assert recovered is not None
    assert recovered.payload.secret == rosa.secret


def _spoilt(world: Rough, release: Verified, how: int, device: Claimant) -> bytes:
    """A guardian's release with something wrong in it, signed by the guardian all the same."""
    body = {key: value for key, value in release.body.items() if key not in ("type", "by")}
    plain = decode(device.device.sealing.open(body["box"]), limit=60_000)
    match how:
        case 0:
            plain["share"] = bytes(31) + b"\x01"
        case 1:
            plain["pepper"] = bytes(16)
        case 2:
            plain["versions"] = [[raw, bytes(len(whole))] for raw, whole in plain["versions"]]
        case 3:
            plain["deal"] = plain["deal"][:-1] + bytes((plain["deal"][-1] ^ 1,))
        case _:
            plain = {"nothing": 1}
    body["box"] = seal(device.device.sealing.public, encode(plain), bytes(32))
    key = world.hosts[body["seat"]].keys.identity
    return world.codec.sign(key, "release", body).raw


@given(raw=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_no_bytes_in_a_release_cause_anything_but_blame(raw: bytes) -> None:
    """What a guardian sealed is its own responsibility, and reading it is safe."""
    world = Bare()
    try:
        read_release(world.codec, 0, raw, NOTHING)
    except HoldfastError as error:
        assert str(error)
    else:
        raise AssertionError("read as a release")
