"""Joining and owning: what is believed of what guardians answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.encoding import encode
from protocol.errors import BadSignature, Malformed, Refused
from protocol.federation import Endpoint, Invite, Roster, Signed, draft, introduce, sign_roster
from protocol.keys import SealingKey, SigningKey
from protocol.statements import NOTHING, Codec
from protocol.wallet import joining, owning
from protocol.wallet.owning import Held, OpenCase

NOW = 1_750_000_000_000
KEYS = [SigningKey(bytes([10 + seat]) * 32) for seat in range(3)]


def founded(name: str = "Keepers") -> Signed:
    introductions = [
        introduce(
            KEYS[seat], name=f"g{seat}", sealing=SealingKey(bytes([20 + seat]) * 32).public,
            transport=bytes([30 + seat]) * 32, certificate=bytes(64), address=f"h:{seat + 1}",
            contact="+1 555", languages=["en"], hours="", now=NOW,
        )
        for seat in range(3)
    ]  # fmt: skip
    roster = draft(name, 2, introductions, now=NOW, nonce=bytes(16))
    return Signed(roster, tuple(sign_roster(key, roster).raw[-64:] for key in KEYS))


SIGNED = founded()
ROSTER: Roster = SIGNED.roster
INVITE = Invite(ROSTER.id, 0, ROSTER.id, (Endpoint("h:1", bytes([30]) * 32),))


def address(seat: int, number: int, where: str, signer: int | None = None) -> bytes:
    fields = {
        "epoch": 0, "seat": seat, "incarnation": 0, "seq": number, "prev": NOTHING,
        "number": number, "address": where, "transport": bytes([40 + seat]) * 32,
        "certificate": bytes(64),
    }  # fmt: skip
    return Codec(ROSTER.id).sign(KEYS[seat if signer is None else signer], "address", fields).raw


def test_an_invite_reads_back_however_it_is_pasted() -> None:
    """Line breaks, spaces, small letters and a scheme in front do not matter."""
    text = INVITE.to_text()
    for pasted in (text, f"holdfast:{text}", text.lower(), f" {text[:30]}\n  {text[30:]}\n"):
        assert joining.read_any_invite(pasted) == INVITE
    with pytest.raises(Refused, match="no invite"):
        joining.read_any_invite("  ")


def test_the_roster_that_the_invite_names_is_believed() -> None:
    """The list of guardians hashes to the federation's id, and every guardian signed it."""
    assert joining.check_roster(INVITE, SIGNED.to_bytes()) == SIGNED


def test_another_federation_is_refused() -> None:
    """A guardian of another federation answers in vain."""
    with pytest.raises(Refused, match="another federation"):
        joining.check_roster(INVITE, founded("Others").to_bytes())


def test_a_missing_or_false_signature_is_refused() -> None:
    """Nobody's name stands in a list that they did not sign."""
    fewer = encode({"body": ROSTER.body, "signatures": list(SIGNED.signatures[:2])})
    with pytest.raises(Malformed, match="each of its guardians"):
        joining.check_roster(INVITE, fewer)
    swapped = (SIGNED.signatures[1], *SIGNED.signatures[1:])
    with pytest.raises(BadSignature):
        joining.check_roster(INVITE, Signed(ROSTER, swapped).to_bytes())


def test_a_fork_stops_the_wallet() -> None:
    """Two lists for one epoch: the wallet goes no further."""
    with pytest.raises(Refused, match="two different lists"):
        joining.check_roster(replace(INVITE, roster=bytes(32)), SIGNED.to_bytes())
    with pytest.raises(Refused, match="epoch 0"):
        joining.check_roster(replace(INVITE, epoch=1), SIGNED.to_bytes())


def test_the_newest_address_a_guardian_signed_counts() -> None:
    """Addresses count by number and signature, whoever passed them on."""
    heard = [address(1, 2, "new:1"), address(1, 1, "old:1"), address(2, 9, "evil:1", signer=0)]
    known = joining.newest_addresses(ROSTER, {}, [*heard, b"nonsense"])
    assert sorted(known) == [1]
    found = joining.endpoints(ROSTER, known)
    assert found[1] == Endpoint("new:1", bytes([41]) * 32)
    assert found[2] == Endpoint("h:3", bytes([32]) * 32)
    silent = joining.newest_addresses(ROSTER, known, [address(1, 3, "")])
    assert 1 not in joining.endpoints(ROSTER, silent)


def test_a_member_sees_whom_they_join() -> None:
    """The federation's name, how many give a key back, and each guardian's contact."""
    lines = joining.introduce_federation(ROSTER)
    assert "3 guardians, any 2" in lines[0]
    assert all("+1 555" in line for line in lines[1:])


# --- owning ----------------------------------------------------------------------------


def held(*cases: OpenCase) -> Held:
    return Held(bytes(32), 1, (), NOW, 0, cases, b"")


def test_a_claim_is_shown_as_the_guardian_furthest_on_tells_it() -> None:
    """Of two guardians the one who knows more counts; expired claims are not shown."""
    few = OpenCase(bytes([1]) * 32, NOW, 1, 2, 0, "open")
    more = replace(few, approvals=2, due=NOW + 3_600_000, state="waiting")
    over = OpenCase(bytes([2]) * 32, NOW, 2, 2, 0, "expired")
    ((case, seats),) = owning.claims_on({0: held(few), 2: held(more, over)})
    assert (case, seats) == (more, (0, 2))
    assert owning.describe_claim(case, ROSTER, seats, NOW) == (
        "somebody claims this backup (2 of 2 guardians approved, "
        "pieces are released in 1 h; told by g0, g2)"
    )


def test_an_answer_without_its_parts_is_refused() -> None:
    """What a guardian says of a vault is checked before any of it is used."""
    good = {
        "deal": bytes(32), "number": 1, "versions": [[bytes(32), 1, True, NOW]], "since": NOW,
        "leaving": 0, "cases": [], "erased": b"",
    }  # fmt: skip
    assert owning.read_held(good).holds(bytes(32))
    for key in ("deal", "versions", "cases"):
        with pytest.raises(Malformed):
            owning.read_held({**good, key: "nonsense"})
    assert owning.read_held({"erased": b"receipt"}).erased == b"receipt"


def test_an_erasure_counts_by_the_guardians_own_signature() -> None:
    """Another guardian's word, or one about another vault, is no erasure receipt."""
    codec, vault = Codec(ROSTER.id), bytes([7]) * 32
    raw = codec.sign(KEYS[1], "erased", {"vault": vault, "seat": 1, "at": NOW}).raw
    assert owning.take_erased(codec, ROSTER, 1, vault, raw)
    assert not owning.take_erased(codec, ROSTER, 0, vault, raw)
    assert not owning.take_erased(codec, ROSTER, 1, bytes(32), raw)
    assert not owning.take_erased(codec, ROSTER, 1, vault, b"nonsense")


def test_a_veto_says_no_more_than_fits() -> None:
    """The message to the guardians has 280 characters."""
    codec = Codec(ROSTER.id)
    with pytest.raises(Refused, match="281"):
        owning.veto(codec, KEYS[0], bytes(32), bytes(32), "x" * 281, NOW)
    assert owning.veto(codec, KEYS[0], bytes(32), bytes(32), "x" * 280, NOW).body["words"]


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0, "0 s"), (900, "1 s"), (61_000, "1 min 1 s"), (86_400_000, "1 d"), (90_061_000, "1 d 1 h")],
)
def test_durations_read_as_people_say_them(ms: int, shown: str) -> None:
    """The two largest units, rounded up to the second."""
    assert owning.duration(ms) == shown
