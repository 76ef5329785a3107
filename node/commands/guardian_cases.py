"""A guardian's casework from the terminal: open, look, vote, and write down what was said.

What is typed as a code is never shown again, by no command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from node import terminal
from node.commands import guardian_words as wording
from node.commands.guardian import HOW
from node.commands.guardian_acts import CODE_FILE_BYTES_MAX, Act
from node.keystore import write_durably
from node.wallet.asking import read_file
from protocol.contract import Verified
from protocol.encoding import encode
from protocol.errors import HoldfastError, Refused
from protocol.federation import Roster, read_signed
from protocol.statements import Codec

View = Mapping[str, Any]

# --- looking ---------------------------------------------------------------------------


async def claims(act: Act) -> int:
    """List the cases."""
    view = await act.ask("claims")
    act.emit(view, wording.claims_lines(view, act.clock.now()))
    return terminal.DONE


async def open_claim(act: Act) -> int:
    """Open a claim with its code, for all guardians to see."""
    view = await act.ask("open", code=_code(act))
    act.emit(view, await _case_lines(act, view))
    act.say("The others are told. If you are sure who it is: " + act.command("approve"))
    return terminal.DONE


async def show(act: Act) -> int:
    """Look at a case once more, or at the verification card of one of its vaults."""
    view = await act.ask("show", case=_case(act))
    lines = await _case_lines(act, view)
    if act.options.card is None:
        act.emit(view, lines)
        return terminal.DONE
    each = _vault(act, view)
    card = await act.ask("card", vault=each["vault"])
    shown = {"line": card["line"], "picture": ""}
    if card["picture"]:
        write_durably(Path(act.options.card), card["picture"], replace=False)
        shown["picture"] = act.options.card
        lines.append(f"  the card's picture is in {act.options.card}")
    lines.append(
        f"  the card says: “{card['line']}”" if card["line"] else "  no line is on the card"
    )
    act.emit({**view, "card": shown}, lines)
    return terminal.DONE


def _vault(act: Act, view: View) -> View:
    """The vault that is meant: the one named with --vault, or the only one."""
    numbers: dict[str, View] = {str(each["number"]): each for each in view["vaults"]}
    wanted = act.options.vault
    if not numbers:
        raise Refused(
            "this node sees no vault under that name or one like it",
            hint="if the node is locked: holdfast guardian unlock",
        )
    # Backups that were replaced are chosen by number alone, when the member asks for it.
    today = [each for each in numbers.values() if not each.get("replaced")]
    if wanted is None and len(today) == 1 and (len(numbers) == 1 or not act.is_interactive):
        return today[0]
    if wanted is None and act.is_interactive:
        wanted = terminal.ask(f"Which vault, of {', '.join(numbers)}?")
    if wanted is None:
        raise Refused(
            f"{len(numbers)} vaults are under that name or one like it",
            hint="look at them with holdfast guardian show, and say --vault NUMBER",
        )
    if wanted not in numbers:
        raise Refused(f"there is no vault {wanted[:20]} here; there are: {', '.join(numbers)}")
    return numbers[wanted]


def _code(act: Act) -> str:
    """The code as typed, from the arguments, a file, or the person."""
    if act.options.code:
        return " ".join(act.options.code)
    if act.options.code_file:
        return read_file(act.options.code_file, CODE_FILE_BYTES_MAX).decode("utf-8", "replace")
    return terminal.ask("The code that the person reads to you, from their own screen:")


def _case(act: Act) -> str:
    return " ".join(act.options.case)


async def _case_lines(act: Act, view: View) -> list[str]:
    status = await act.ask("status")
    now = act.clock.now()
    return wording.case_lines(view, str(status["me"]), now, locked=bool(status["locked"]))


# --- voting ----------------------------------------------------------------------------


async def approve(act: Act) -> int:
    """Vote for giving the key back, after a last look at what that does."""
    code = _code(act)
    view = await act.ask("open", code=code)
    for line in await _case_lines(act, view):
        act.say(line)
    each = _vault(act, view)
    how = _how(act)
    words = act.options.words or ""
    if how == "other" and not words.strip() and act.is_interactive:
        words = terminal.ask("How did you check who it is?")
    me = str((await act.ask("status"))["me"])
    effect = wording.effect(view, each, me, act.clock.now())
    if not act.confirm(f"Give {each['name']}'s key back, as far as it is up to you? ({effect})"):
        raise Refused("nothing was signed")
    view = await act.ask(
        "approve",
        code=code,
        vault=each["vault"],
        deal=each.get("deal", ""),
        how=how,
        words=words,
        despite_veto=act.options.despite_veto,
    )
    same = (each["vault"], each.get("deal"))
    voted = next((one for one in view["vaults"] if (one["vault"], one.get("deal")) == same), each)
    act.emit(view, [wording.effect(view, voted, me, act.clock.now())])
    return terminal.DONE


def _how(act: Act) -> str:
    if act.options.how:
        return str(act.options.how)
    if not act.is_interactive:
        raise Refused(
            "say how you checked who it is", hint='with --how "in person", "by video" or "other"'
        )
    answer = terminal.ask("How did you check who it is? 1 in person, 2 by video, 3 other:")
    if answer not in ("1", "2", "3"):
        raise Refused("nothing was signed: the answer is 1, 2 or 3")
    return HOW[int(answer) - 1]


async def reject(act: Act) -> int:
    """Vote against it."""
    return await _speak(act, "Why? The person and the other guardians read it:", "You rejected")


async def ask(act: Act) -> int:
    """Put a question to the person."""
    return await _speak(act, "Your question to the person:", "You asked about")


async def _speak(act: Act, prompt: str, done: str) -> int:
    words = act.options.words or (terminal.ask(prompt) if act.is_interactive else "")
    view = await act.ask(act.options.verb, case=_case(act), words=words)
    act.emit(
        view, [f"{done} case {view['case']}, “{view['name']}”: the others and the person see it"]
    )
    return terminal.DONE


async def admit(act: Act) -> int:
    """Let a member leave things with this federation."""
    done = await act.ask("admit", number="".join(act.options.number))
    act.emit(done, [f"the member with the number {done['admitted']} may leave things with you all"])
    return terminal.DONE


# --- what is kept for later ------------------------------------------------------------


async def transcript(act: Act) -> int:
    """Write down everything that was signed in a case, and the same in words."""
    record = await act.ask("record", case=_case(act))
    lines = transcript_lines(record)
    if not act.options.output:
        act.emit(record, lines)
        return terminal.DONE
    path = Path(act.options.output)
    beside = path.with_name(path.name + ".txt")
    if beside.exists():
        raise Refused(
            f"there is already a file {beside}, and it was not changed",
            hint="choose another name for --output",
        )
    write_durably(path, encode(dict(record)), replace=False)
    write_durably(beside, ("\n".join(lines) + "\n").encode(), replace=False)
    act.emit({"transcript": str(path), "summary": str(beside)}, [str(path), str(beside)])
    return terminal.DONE


def transcript_lines(record: View) -> list[str]:
    """A case in words, from statements whose signatures are checked here once more."""
    roster = read_signed(record["signed"]).roster
    codec = Codec(roster.id)
    claim = codec.verify(record["claim"], "claim")
    lines = [
        f"{roster.name}: {len(roster.guardians)} guardians, any {roster.threshold} give a key back",
        f"Words of the federation: {wording.eight_words(roster.phrase)}",
        f"Case {claim.id.hex()[:8]}, a claim of {_at(claim, 'created')}, "
        f"good until {_at(claim, 'expires')}",
        "",
    ]
    told: list[tuple[int, int, Verified]] = []
    for order, key in enumerate(("votes", "vetoes", "releases", "successions")):
        for raw in record[key]:
            try:
                statement = codec.verify(raw)
            except HoldfastError as error:
                lines.append(f"A statement does not hold and is left out: {error}")
                continue
            told.append((statement.body["at"], order, statement))
    told.sort(key=lambda one: one[:2])
    vaults = _numbered([statement for _, _, statement in told])
    lines += [_told(statement, roster, vaults) for _, _, statement in told]
    return [terminal.harmless(line) for line in lines]


def _numbered(statements: Sequence[Verified]) -> dict[bytes, str]:
    """What to call the vaults approved, where guardians chose different ones."""
    approved = [
        statement.body["vault"]
        for statement in statements
        if statement.type == "vote" and statement.body["verdict"] == "approve"
    ]
    different = list(dict.fromkeys(approved))
    if len(different) < 2:
        return dict.fromkeys(different, "")
    return {vault: f" vault {number}" for number, vault in enumerate(different, start=1)}


def _at(statement: Verified, key: str) -> str:
    return terminal.human_time(statement.body[key])


def _told(statement: Verified, roster: Roster, vaults: Mapping[bytes, str]) -> str:
    body = statement.body
    guardian = roster.by_identity(statement.by)
    who = guardian.name if guardian else "somebody who is no guardian"
    words = f": “{body['words']}”" if body.get("words") else ""
    when = _at(statement, "at")
    match statement.type:
        case "vote":
            done = {"approve": "approved", "reject": "rejected", "ask": "asked"}[body["verdict"]]
            how = f", {body['how']}" if body["how"] else ""
            vault = vaults.get(body["vault"], "")
            again = f", vote {body['revision'] + 1} of theirs" if body["revision"] else ""
            return f"{when}  {who} {done}{vault}{how}{again}{words}"
        case "veto":
            return f"{when}  the owner's device objected{words}"
        case "release":
            return f"{when}  {who} released a piece on {len(body['votes'])} votes"
    return f"{when}  the device that made the claim became the owner"


ACTS: Final = {
    "claims": claims,
    "open": open_claim,
    "show": show,
    "approve": approve,
    "reject": reject,
    "ask": ask,
    "admit": admit,
    "transcript": transcript,
}
