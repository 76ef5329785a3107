"""What a guardian types and reads, with a desk that answers from a script."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.commands import attempt, guardian
from node.commands import guardian_words as wording
from node.commands.guardian_acts import Act, run_verb
from node.config import read_config
from node.keystore import open_keystore, transport_key
from protocol.encoding import decode
from protocol.errors import Locked, NotYet, Refused, WrongSecret
from protocol.federation import read_introduction
from protocol.limits import DAY, HOUR, MINUTE
from protocol.verbs import HOW
from simulations.hosts.bare import START, Bare, make_host
from simulations.hosts.member import Claimant, Member

Capture = pytest.CaptureFixture[str]
Clock = trio.testing.MockClock  # a test has to ask for it itself, or it really sleeps

WORDS = "five random words are enough"
NOW = START  # 15 January 2027, 08:00 UTC, a Friday


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("HOLDFAST_HOME", raising=False)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class At:
    def __init__(self, now: int = NOW) -> None:
        self._now = now

    def now(self) -> int:
        return self._now

    async def sleep_until(self, at: int) -> None:
        await trio.lowlevel.checkpoint()


class Draw:
    def draw(self, size: int) -> bytes:
        return os.urandom(size)


class Script:
    """A desk. `answers` maps verbs to values, to errors, or to lists taken one by one."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.heard: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, verb: str, args: Mapping[str, Any]) -> Any:
        await trio.lowlevel.checkpoint()
        self.heard.append((verb, dict(args)))
        answer = self.answers[verb]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def asked(self, verb: str) -> list[dict[str, Any]]:
        return [args for heard, args in self.heard if heard == verb]


def run(home: Path, *arguments: str, desk: Any = None, now: int = NOW) -> int:
    """Run one command in a folder, against a desk."""

    async def nobody(verb: str, args: Mapping[str, Any]) -> Any:
        raise AssertionError(f"nobody should be asked to {verb}")

    options = guardian.parser().parse_args([*arguments, "--home", str(home)])
    act = Act(options, home, desk or nobody, At(now), Draw())
    return trio.run(run_verb, act, strict_exception_groups=True)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(WORDS + "\n")
    path.chmod(0o600)
    return path


def init(home: Path, secret: Path, *more: str) -> int:
    return run(home, "init", "ada", "--passphrase-file", str(secret), *more)


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Answer what is asked."""
    keyboard = io.StringIO("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(keyboard, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", keyboard)


# --- options ---------------------------------------------------------------------------


def test_every_command_explains_itself(capsys: Capture) -> None:
    """Each verb has help, and only knows long options."""
    for verb in guardian.VERBS:
        assert attempt(["guardian", verb], partial(guardian.run, [verb, "--help"])) == 0
        assert "--home" in capsys.readouterr().out
    assert attempt(["guardian"], lambda: guardian.run([])) == 64
    assert attempt(["guardian"], lambda: guardian.run(["status", "--js"])) == 64


@pytest.mark.parametrize(
    ("text", "ms"), [("0", 0), ("24h", DAY), ("90m", 90 * MINUTE), ("7d", 7 * DAY), ("30s", 30_000)]
)
def test_durations(text: str, ms: int) -> None:
    """A waiting period is written as people write one."""
    assert guardian.duration(text) == ms


def test_how_is_the_protocols_how() -> None:
    """The ways of checking who somebody is are those that a vote can name."""
    assert guardian.HOW == HOW
    assert guardian.parser().parse_args(["approve", "--how", "By-Video"]).how == "by video"


def test_no_guardian_in_the_folder(tmp_path: Path, capsys: Capture) -> None:
    """A wrong folder is a sentence with the next step."""
    home = str(tmp_path / "nowhere")
    code = attempt(["guardian", "claims"], lambda: guardian.run(["claims", "--home", home]))
    assert code == 1
    said = capsys.readouterr().err
    assert said.startswith("holdfast guardian claims: error: there is no guardian in")
    assert "holdfast guardian init" in said


def test_the_node_is_off(tmp_path: Path, secret: Path, capsys: Capture) -> None:
    """With the node off, the command that starts it is named."""
    init(tmp_path / "ada", secret)
    home = str(tmp_path / "ada")
    assert attempt(["guardian", "claims"], lambda: guardian.run(["claims", "--home", home])) == 1
    assert "start it with holdfast guardian run" in capsys.readouterr().err


# --- the folder ------------------------------------------------------------------------


def test_init_makes_everything(tmp_path: Path, secret: Path, capsys: Capture) -> None:
    """A new folder holds keys, settings and an introduction that names them."""
    home = tmp_path / "ada"
    contact = ("--contact", "Elm Street 4", "--language", "en", "--language", "pt-BR")
    assert init(home, secret, *contact, "--hours", "from nine to five") == 0
    out, err = capsys.readouterr()
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    keys = open_keystore(home, WORDS.encode())
    one = read_introduction(out.strip())
    assert one.by == keys.identity.public
    assert one.body["sealing"] == keys.sealing[-1].public
    assert one.body["transport"] == transport_key(home).public
    assert one.body["address"] == "127.0.0.1:7001"
    assert (one.body["contact"], one.body["languages"]) == ("Elm Street 4", ["en", "pt-BR"])
    assert read_config(home / "guardian.toml").hours == "from nine to five"
    assert f"holdfast guardian run --home {home}" in err
    assert "only be called from this machine" in err

    assert run(home, "introduce") == 0
    assert capsys.readouterr().out == out
    assert run(home, "introduce", "--json", "--qr") == 0
    assert json.loads(capsys.readouterr().out) == {"introduction": out.strip()}


def test_init_of_who_only_dials_out(tmp_path: Path, secret: Path, capsys: Capture) -> None:
    """A machine that nobody can call says so in its introduction."""
    assert init(tmp_path / "ada", secret, "--dials-out-only", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["advertise"] == read_introduction(made["introduction"]).body["address"] == ""


def test_init_wants_an_address_that_can_be_called(tmp_path: Path, secret: Path) -> None:
    """To listen everywhere is no address; nothing is made before one is named."""
    with pytest.raises(Refused, match="not the address of one machine") as refused:
        init(tmp_path / "ada", secret, "--listen", ":7001")
    assert "--advertise" in refused.value.hint
    assert not (tmp_path / "ada").exists()


def test_init_overwrites_nothing(tmp_path: Path, secret: Path) -> None:
    """A second init in one folder is refused, and the first one stays."""
    init(tmp_path / "ada", secret)
    before = (tmp_path / "ada" / "introduction").read_bytes()
    with pytest.raises(Refused, match="already holds something"):
        init(tmp_path / "ada", secret)
    assert (tmp_path / "ada" / "introduction").read_bytes() == before


def test_a_new_passphrase(tmp_path: Path, secret: Path) -> None:
    """The keystore opens with the new passphrase only."""
    home, new = tmp_path / "ada", tmp_path / "new"
    init(home, secret)
    new.write_text("quite other words\n")
    files = ("--passphrase-file", str(secret), "--new-passphrase-file", str(new))
    assert run(home, "passphrase", *files) == 0
    assert open_keystore(home, b"quite other words")
    with pytest.raises(WrongSecret):
        run(home, "passphrase", *files)


def test_unlock_gives_the_passphrase_to_the_desk(tmp_path: Path, secret: Path) -> None:
    """The passphrase travels to the node over its socket, never as an argument."""
    desk = Script(status={}, unlock={"locked": False})
    assert run(tmp_path, "unlock", "--passphrase-file", str(secret), desk=desk) == 0
    assert desk.asked("unlock") == [{"passphrase": WORDS.encode()}]


# --- founding --------------------------------------------------------------------------


def person(name: str, *, signed: bool = False, address: str | None = None) -> dict[str, Any]:
    at = f"{name}.example:7001" if address is None else address
    return {
        "name": name,
        "address": at,
        "contact": "",
        "signed": signed,
        "signed_at": NOW if signed else 0,
    }


def a_draft(**changes: Any) -> dict[str, Any]:
    people = [person(name, signed=name != "ben") for name in ("ada", "ben", "cleo")]
    return {
        "id": b"d" * 32,
        "name": "Elm Street",
        "threshold": 2,
        "phrase": bytes(11),
        "created": NOW - 3 * DAY,
        "organiser": True,
        "accepted": False,
        "waiting_default": DAY,
        "guardians": people,
        **changes,
    }


def founding(made: Any, **more: Any) -> dict[str, Any]:
    return {"phase": "founding", "me": "ada", "locked": False, "draft": made, "listens": [],
            "unreachable": [], **more}  # fmt: skip


LIVE = {
    "phase": "live",
    "federation": "Elm Street",
    "me": "ada",
    "locked": False,
    "threshold": 2,
    "guardians": [
        {"name": "ada", "linked": True, "misbehaved": False, "entries": 1},
        {"name": "ben", "linked": False, "misbehaved": False, "entries": 1},
        {"name": "cleo", "linked": True, "misbehaved": True, "entries": 1},
    ],
    "vaults": 12,
    "open_cases": 1,
    "waiting_for_code": 2,
    "rehearsed": False,
    "clock_skew": -90_000,
    "listens": ["127.0.0.1:7001"],
    "unreachable": [{"seat": 1, "address": "x", "since": NOW - 2 * DAY, "why": "nobody answers"}],
}


def lines_of(names: list[str]) -> list[str]:
    from node.certificate import certificate_signature
    from protocol.federation import introduce, introduction_text
    from protocol.keys import SealingKey, SigningKey

    result = []
    for number, name in enumerate(names):
        transport = SigningKey(bytes([9, number] * 16))
        one = introduce(
            SigningKey(bytes([7, number] * 16)), name=name,
            sealing=SealingKey(bytes([8, number] * 16)).public, transport=transport.public,
            certificate=certificate_signature(transport),
            address="" if name == "fay" else f"{name}:7001", contact="", languages=[], hours="",
            now=NOW,
        )  # fmt: skip
        result.append(introduction_text(one))
    return result


def test_a_draft_goes_to_the_desk(tmp_path: Path, secret: Path, capsys: Capture) -> None:
    """The organiser's own line stands first, is not doubled, and the phrase is shown."""
    home = tmp_path / "ada"
    init(home, secret, "--json")
    own = json.loads(capsys.readouterr().out)["introduction"]
    others = lines_of(["ben", "fay"])
    listed = tmp_path / "lines"
    listed.write_text("\n".join([others[0], own, "", others[1]]) + "\n")
    view = a_draft(guardians=[person("ada"), person("ben"), person("fay", address="")])
    desk = Script(draft=view)
    arguments = ("draft", "--name", "Elm Street", "--threshold", "2", "--waiting", "0")
    assert run(home, *arguments, "--introductions", str(listed), desk=desk) == 0
    [asked] = desk.asked("draft")
    assert asked["introductions"] == [own, *others]
    assert (asked["threshold"], asked["waiting_default"], asked["discard"]) == (2, 0, False)
    out, err = capsys.readouterr()
    assert "abandon " * 7 + "abandon" in err
    assert f"holdfast guardian accept --call {own}" in err
    assert "fay          only dials out" in out
    assert "signed 0 of 3, ada, ben and fay missing since Tuesday" in out


def test_a_draft_with_a_bad_introduction(tmp_path: Path, secret: Path) -> None:
    """A line that was cut off, and a certificate that is not theirs, are refused at once."""
    home = tmp_path / "ada"
    init(home, secret)
    arguments = ("draft", "--name", "Elm Street", "--threshold", "2")
    with pytest.raises(Refused, match="cannot be used"):
        run(home, *arguments, lines_of(["ben"])[0][:-9])
    from protocol.federation import introduction_text

    forged = introduction_text(make_host("ben", 1).introduction)
    with pytest.raises(Refused, match="certificate in the introduction of ben"):
        run(home, *arguments, forged)


def test_two_who_only_dial_out_never_meet(tmp_path: Path, secret: Path) -> None:
    """An organiser that cannot be called cannot organise for one that cannot either."""
    home = tmp_path / "ada"
    init(home, secret, "--dials-out-only")
    with pytest.raises(Refused, match="your nodes can never meet"):
        run(home, "draft", "--name", "x", "--threshold", "2", *lines_of(["ben", "fay"]))


def test_who_has_not_signed(tmp_path: Path, secret: Path, capsys: Capture) -> None:
    """The organiser sees who is missing since when, and whose port does not answer."""
    home = tmp_path / "ada"
    init(home, secret)
    silent = {"seat": None, "address": "ben.example:7001", "since": NOW - HOUR, "why": "refused"}
    desk = Script(status=founding(a_draft(), unreachable=[silent]))
    capsys.readouterr()
    assert run(home, "draft", desk=desk) == 0
    out = capsys.readouterr().out
    assert "signed 2 of 3, ben missing since Tuesday" in out
    assert "port does not answer since 07:00: refused" in out
    assert run(home, "draft", "--json", desk=desk) == 0
    assert json.loads(capsys.readouterr().out)["phrase"].startswith("abandon")


def test_accept_before_a_draft_is_here(tmp_path: Path) -> None:
    """Without a draft there is nothing to sign yet: try later."""
    with pytest.raises(NotYet, match="no draft has arrived"):
        run(tmp_path, "accept", desk=Script(status=founding(None)))


def test_accept_asks_for_the_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Nobody signs a phrase that was not compared; whoever did signs exactly that draft."""
    made = a_draft(organiser=False)
    desk = Script(status=founding(made), accept={**made, "accepted": True})
    type_in(monkeypatch, "n")
    with pytest.raises(Refused, match="nothing was signed"):
        run(tmp_path, "accept", desk=desk)
    assert desk.asked("accept") == []
    type_in(monkeypatch, "y")
    assert run(tmp_path, "accept", desk=desk) == 0
    assert desk.asked("accept") == [{"draft": b"d" * 32}]
    said = capsys.readouterr().err
    assert "Do all of you see these eight words?" in said
    assert "any 2 give a key back, after a waiting period of 1 day" in said


async def test_accept_waits(tmp_path: Path, autojump_clock: Clock, capsys: Capture) -> None:
    """Unattended, it waits for the draft, signs it, and waits until all have."""
    made = a_draft(organiser=False)
    states = [founding(None), founding(None), founding(made), founding(made), LIVE]
    desk = Script(status=states, accept={**made, "accepted": True})
    options = guardian.parser().parse_args(["accept", "--wait", "--until-live", "--yes", "--json"])
    assert await run_verb(Act(options, tmp_path, desk, At(), Draw())) == 0
    assert json.loads(capsys.readouterr().out)["phase"] == "live"


async def test_a_draft_that_changes_after_signing(tmp_path: Path, autojump_clock: Clock) -> None:
    """Whoever waits is told that their signature counts no more."""
    made, other = a_draft(organiser=False), a_draft(organiser=False, id=b"e" * 32)
    states = [founding(made), founding(made), founding(other)]
    desk = Script(status=states, accept={**made, "accepted": True})
    options = guardian.parser().parse_args(["accept", "--until-live", "--yes"])
    with pytest.raises(NotYet, match="changed the draft"):
        await run_verb(Act(options, tmp_path, desk, At(), Draw()))


def test_accept_calls_the_organiser(tmp_path: Path) -> None:
    """A guardian that only dials out says whom to call."""
    desk = Script(join={"calling": "ada", "address": "ada:7001"}, status=founding(None))
    with pytest.raises(NotYet):
        run(tmp_path, "accept", "--call", "HFINTRO1X", desk=desk)
    assert desk.asked("join") == [{"organiser": "HFINTRO1X"}]


def test_no_rehearsal_before_the_founding(tmp_path: Path, secret: Path) -> None:
    """A rehearsal takes a federation, and a node that is not locked."""
    init(tmp_path / "ada", secret)
    with pytest.raises(Refused, match="not founded yet"):
        run(tmp_path / "ada", "rehearse", desk=Script(status=founding(None)))
    with pytest.raises(Locked):
        run(tmp_path / "ada", "rehearse", desk=Script(status={**LIVE, "locked": True}))


def test_the_invite(tmp_path: Path, capsys: Capture) -> None:
    """The invite is text on stdout, and a picture where one is asked for; never over a file."""
    made = {"invite": "HF1QQQ", "federation": "Elm Street", "phrase": bytes(11)}
    desk = Script(invite=made)
    picture = tmp_path / "invite.svg"
    assert run(tmp_path, "invite", "--svg", str(picture), desk=desk) == 0
    assert capsys.readouterr().out == "HF1QQQ\n"
    assert picture.read_bytes().startswith(b"<?xml")
    with pytest.raises(Refused, match="already a file"):
        run(tmp_path, "invite", "--svg", str(picture), desk=desk)
    assert run(tmp_path, "invite", "--json", desk=desk) == 0
    assert json.loads(capsys.readouterr().out) == {**made, "phrase": "abandon " * 7 + "abandon"}


def test_status_says_who_cannot_be_reached(capsys: Capture) -> None:
    """Who is unreachable since when, what waits, and what is wrong: in lines for people."""
    trouble = [{**LIVE["unreachable"][0], "guardian": "ben"}]  # type: ignore[index]
    lines = wording.status_lines({**LIVE, "unreachable": trouble, "locked": True}, NOW)
    assert lines == [
        "Elm Street: ada, one of 3 guardians, any 2 give a key back; this node is LOCKED: "
        "holdfast guardian unlock",
        "listening on 127.0.0.1:7001",
        "  ada          you",
        "  ben          unreachable since Wednesday: nobody answers",
        "  cleo         linked  PROVEN to have signed two different things",
        "12 vaults kept, 1 case open",
        "2 claims wait for a code: have the person read it to you, then holdfast guardian open",
        "not rehearsed from here yet: holdfast guardian rehearse",
        "this machine's clock is 1 minute 30 seconds off the others'; set it",
    ]


# --- cases -----------------------------------------------------------------------------


class Town:
    """Bare cores behind desks, and Rosa Keller, who has lost her phone."""

    def __init__(self) -> None:
        self.world = Bare(waiting=DAY)
        self.world.mesh()
        self.rosa = Member(self.world, "Rosa Keller")
        self.rosa.back_up()
        self.world.pass_time(40 * DAY)
        self.device = Claimant(self.world, "Rosa Keller", [0, 1, 2])

    def desk(self, number: int) -> Any:
        async def ask(verb: str, args: Mapping[str, Any]) -> Any:
            await trio.lowlevel.checkpoint()
            return self.world.tell(number, verb, **args)

        return ask

    def run(self, number: int, *arguments: str) -> int:
        return run(Path("unused"), *arguments, desk=self.desk(number), now=self.world.now)


@pytest.fixture
def town() -> Town:
    return Town()


def test_a_case_from_open_to_release(town: Town, capsys: Capture) -> None:
    """A shopkeeper sees whose key it is, how old, and what their own vote would do."""
    code = town.device.code
    assert town.run(0, "open", code) == 0
    out = capsys.readouterr().out
    assert "“Rosa Keller” asks for a key back" in out
    assert "1  Rosa Keller: the same name; kept since January 2027, old phone last seen" in out
    assert "yours is approval 1 of 3" in out
    for number in (0, 1):
        assert town.run(number, "approve", code, "--how", "in person", "--yes") == 0
    capsys.readouterr()
    assert town.run(2, "open", code[:6], code[6:]) == 0
    seen = capsys.readouterr().out
    tomorrow = "release tomorrow 08:00 unless the old phone objects"
    assert f"yours is approval 3 of 3; {tomorrow}" in seen
    assert "ben approved vault 1, in person, today 08:00" in seen
    said = ("--how", "other", "--words", "her sister was there")
    assert town.run(2, "approve", code, "--yes", *said) == 0
    assert capsys.readouterr().out == f"you approved: 3 of 3; {tomorrow}\n"

    assert town.run(3, "claims") == 0
    listed = capsys.readouterr().out
    assert f"Rosa Keller: 3 of 3 approved; {tomorrow}; opened today 08:00; you have not" in listed
    town.world.pass_time(DAY + HOUR)
    town.run(4, "claims")
    assert "3 of 3 approved; released; opened yesterday 08:00" in capsys.readouterr().out
    town.run(4, "show", town.device.claim.id.hex()[:8])
    assert "released by ada, ben, cleo, dev and eve" in capsys.readouterr().out


def test_no_output_shows_the_code(town: Town, tmp_path: Path, capsys: Capture) -> None:
    """The code is what ties the person to the claim, so nothing repeats it."""
    typed = tmp_path / "code"
    typed.write_text(town.device.code + "\n")
    case = town.device.claim.id.hex()[:8]
    for way in ((), ("--json",)):
        town.run(0, "open", "--code-file", str(typed), *way)
        town.run(0, "claims", *way)
        town.run(0, "show", case, *way)
        town.run(0, "ask", case, "--words", "where did we meet?", *way)
        town.run(0, "reject", case, "--words", "not her", *way)
        town.run(0, "approve", "--code-file", str(typed), "--how", "by video", "--yes", *way)
        town.run(0, "transcript", case, *way)
    out, err = capsys.readouterr()
    shown = "".join(c for c in out + err if c.isdigit() or c.isalpha())
    assert town.device.code not in shown


def test_approving_is_asked_once_more(
    town: Town, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A person is asked how they checked, told what their vote does, and may still say no."""
    type_in(monkeypatch, town.device.code, "1", "n")
    with pytest.raises(Refused, match="nothing was signed"):
        town.run(0, "approve")
    asked = capsys.readouterr().err
    assert "Give Rosa Keller's key back, as far as it is up to you? (yours is approval 1" in asked
    type_in(monkeypatch, town.device.code, "1", "y")
    assert town.run(0, "approve") == 0
    with pytest.raises(Refused, match="say how you checked"):
        town.run(1, "approve", town.device.code, "--yes")


def test_several_vaults_want_a_number(town: Town, capsys: Capture) -> None:
    """Namesakes are listed, and approving wants to know which one is meant."""
    Member(town.world, "Rosa Kellner").back_up()
    town.run(0, "open", town.device.code)
    seen = capsys.readouterr().out
    assert "2  Rosa Kellner: a name much like it; kept since 08:00" in seen
    approve = ("approve", town.device.code, "--how", "in person", "--yes")
    with pytest.raises(Refused, match="2 vaults are under that name"):
        town.run(0, *approve)
    with pytest.raises(Refused, match="there is no vault 3 here; there are: 1, 2"):
        town.run(0, *approve, "--vault", "3")
    assert town.run(0, *approve, "--vault", "1", "--json") == 0
    views = json.loads(capsys.readouterr().out)
    assert [each["approvals"] for each in views["vaults"]] == [1, 0]


def test_an_objection_is_shown_and_stops(town: Town, capsys: Capture) -> None:
    """When the old phone objects, a vote takes a word that says so."""
    for number in (0, 1, 2):
        town.run(number, "approve", town.device.code, "--how", "in person", "--yes")
    town.rosa.veto(town.device.claim, 0)
    capsys.readouterr()
    town.run(3, "show", town.device.claim.id.hex()[:8])
    seen = capsys.readouterr().out
    assert "3 of 3 approved; CONTESTED by the owner's old device" in seen
    assert "the old phone objects, today 08:00: “not me”" in seen
    assert "so it takes --despite-veto" in seen
    approve = ("approve", town.device.code, "--how", "in person", "--yes")
    with pytest.raises(Refused, match="says that this claim is not theirs"):
        town.run(3, *approve)
    assert town.run(3, *approve, "--despite-veto") == 0
    assert "dev approved vault 1, in person, despite the" in _shown(town, 3, capsys)


def _shown(town: Town, number: int, capsys: Capture) -> str:
    capsys.readouterr()
    town.run(number, "show", town.device.claim.id.hex()[:8])
    return capsys.readouterr().out


def test_a_wrong_code(town: Town) -> None:
    """A code that fits nothing may fit later; one that is too short never does."""
    with pytest.raises(NotYet, match="no claim with this code"):
        town.run(0, "open", "123 456 789 012 345")
    with pytest.raises(Refused, match="fifteen digits"):
        town.run(0, "open", "123")


def test_a_card(tmp_path: Path, capsys: Capture) -> None:
    """The card's line is shown, its picture lands in a new file."""
    view = {
        "case": "0a1b2c3d", "name": "Rosa Keller", "created": NOW, "opened": NOW, "due": 0,
        "expires": NOW + DAY, "approvals": 0, "quorum": 3, "state": "open", "votes": [],
        "vetoes": [], "released": [],
        "vaults": [{"number": 1, "vault": "aa" * 32, "name": "Rosa Keller", "hint": "",
                    "likeness": 1000, "since": NOW, "seen": NOW, "has_card": True, "approvals": 0,
                    "quorum": 3, "waiting": 0}],
    }  # fmt: skip
    desk = Script(show=view, status=LIVE, card={"line": "she sings", "picture": b"PNG"})
    picture = tmp_path / "face"
    assert run(tmp_path, "show", "0a1b2c3d", "--card", str(picture), desk=desk) == 0
    assert desk.asked("card") == [{"vault": "aa" * 32}]
    assert picture.read_bytes() == b"PNG"
    assert "the card says: “she sings”" in capsys.readouterr().out


def test_a_transcript(town: Town, tmp_path: Path, capsys: Capture) -> None:
    """What was signed is kept as it was signed, and said in words beside it."""
    town.run(0, "open", town.device.code)
    town.run(0, "approve", town.device.code, "--how", "in person", "--yes")
    town.run(1, "ask", town.device.claim.id.hex()[:8], "--words", "which\x1b[2J school?")
    kept = tmp_path / "case"
    capsys.readouterr()
    case = town.device.claim.id.hex()[:8]
    assert town.run(0, "transcript", case, "--output", str(kept)) == 0
    record = decode(kept.read_bytes(), limit=10**6)
    assert record["claim"] == town.device.claim.raw
    assert len(record["votes"]) == 2
    said = (tmp_path / "case.txt").read_text()
    assert "ada approved, in person\n" in said
    assert "ben asked: “which\\u001b[2J school?”" in said
    with pytest.raises(Refused, match="already a file"):
        town.run(0, "transcript", case, "--output", str(kept))


def test_admitting(tmp_path: Path, capsys: Capture) -> None:
    """A member's number may be typed in groups."""
    desk = Script(admit={"admitted": "0123456789"})
    assert run(tmp_path, "admit", "01234", "56789", desk=desk) == 0
    assert desk.asked("admit") == [{"number": "0123456789"}]


# --- time, as people say it ------------------------------------------------------------


def test_times_near_now() -> None:
    """Days near today go by their names, others by their dates."""
    assert wording.moment(NOW, NOW) == "today 08:00"
    assert wording.moment(NOW + DAY, NOW) == "tomorrow 08:00"
    assert wording.moment(NOW + 5 * DAY, NOW) == "Wednesday 08:00"
    assert wording.moment(NOW - 2 * DAY, NOW) == "last Wednesday 08:00"
    assert wording.moment(NOW + 30 * DAY, NOW) == "14 Feb 2027, 08:00"
    assert wording.since(NOW - HOUR, NOW) == "since 07:00"
    assert wording.since(NOW - DAY, NOW) == "since yesterday"
    assert wording.since(NOW - 20 * DAY, NOW) == "since 26 December 2026"
    assert wording.age(NOW - 300 * DAY, NOW) == "since March 2026"
    assert wording.seen(NOW - DAY, NOW) == "yesterday"
    assert wording.seen(NOW - 12 * DAY, NOW) == "12 days ago"
    assert wording.seen(NOW - 100 * DAY, NOW) == "in October 2026"


def test_a_locked_node_says_so(town: Town, capsys: Capture) -> None:
    """Without its keys a node knows neither name nor vaults, and says what to do."""
    town.run(1, "approve", town.device.code, "--how", "in person", "--yes")
    town.world.boot(0, locked=True)
    seen = _shown(town, 0, capsys)
    assert "this node is LOCKED and sees neither name nor vaults" in seen
    assert "ben approved, in person, today 08:00" in seen
    with pytest.raises(Refused, match="sees no vault") as refused:
        town.run(0, "approve", town.device.code, "--how", "in person", "--yes")
    assert "unlock" in refused.value.hint
