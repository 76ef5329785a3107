"""Founding a federation from the terminal: draft, accept, rehearse, invite."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import trio

from node import certificate, qr, terminal
from node.commands import guardian_words as wording
from node.commands.guardian_acts import Act, require_guardian
from node.commands.guardian_node import own_introduction
from node.keystore import open_keystore, write_durably
from node.wallet.asking import read_file
from protocol.contract import Verified
from protocol.errors import HoldfastError, Locked, NotYet, Refused
from protocol.federation import introduction_text, read_introduction, read_signed

POLL_SECONDS: Final = 0.3  # the desk is on this machine; a person waits
_LINES_BYTES_MAX: Final = 256 * 1024  # 32 introductions of 8 KiB

# --- the organiser ---------------------------------------------------------------------


async def draft(act: Act) -> int:
    """Draft a federation, or say how far the one drafted is."""
    options = act.options
    lines = _lines_given(act)
    if not lines and not options.name and options.threshold is None:
        return await _progress(act)
    if not options.name or options.threshold is None:
        raise Refused("a draft needs a name and a threshold", hint=f"for example: {_EXAMPLE}")
    own = read_introduction(own_introduction(act))
    others = [one for one in map(_checked, lines) if one.by != own.by]
    _check_meeting(own, others)
    args: dict[str, Any] = {"name": options.name, "threshold": options.threshold}
    args["introductions"] = [introduction_text(one) for one in (own, *others)]
    for key, value in (("quorum", options.quorum), ("waiting_default", options.waiting)):
        if value is not None:
            args[key] = value
    view = await act.ask("draft", **args, discard=options.discard)
    now = act.clock.now()
    act.emit(wording.draft_data(view), wording.draft_lines(view, now))
    _say_phrase(act, view)
    _say_call_lines(act, view, introduction_text(own))
    act.say(f"Each of you, you too, now looks at it and signs: {act.command('accept')}")
    act.say(f"Who has signed: {act.command('draft')}")
    return terminal.DONE


_EXAMPLE: Final = 'holdfast guardian draft --name "Elm Street" --threshold 3 --introductions FILE'


def _lines_given(act: Act) -> list[str]:
    lines = list(act.options.introductions)
    if act.options.introductions_file:
        raw = read_file(act.options.introductions_file, _LINES_BYTES_MAX)
        lines += raw.decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _checked(line: str) -> Verified:
    """Read an introduction; refuse one whose signatures do not hold."""
    try:
        one = read_introduction(line)
    except HoldfastError as error:
        raise Refused(
            f"the introduction that begins with {line[:24]} cannot be used: {error}",
            hint="have it sent once more, whole; holdfast guardian introduce prints it",
        ) from error
    if not certificate.holds(one.body["transport"], one.body["certificate"]):
        raise Refused(
            f"the certificate in the introduction of {one.body['name']} does not hold",
            hint="have them make their folder anew with holdfast guardian init",
        )
    return one


def _check_meeting(own: Verified, others: Sequence[Verified]) -> None:
    """The organiser calls those who can be called, and is called by the others."""
    hidden = [one.body["name"] for one in others if not one.body["address"]]
    if hidden and not own.body["address"]:
        raise Refused(
            f"you only dial out, and so does {wording.listed(hidden)}: your nodes can never meet",
            hint="let somebody organise whose node can be called",
        )


def _say_phrase(act: Act, view: Mapping[str, Any]) -> None:
    act.say()
    act.say(f"   {wording.eight_words(view['phrase'])}")
    act.say()
    act.say("These eight words stand for the whole draft. Everybody has to see the same ones.")


def _say_call_lines(act: Act, view: Mapping[str, Any], own: str) -> None:
    hidden = [one["name"] for one in view["guardians"] if not one["address"]]
    if hidden:
        act.say(f"Nobody can call {wording.listed(hidden)}. They call you, with your introduction:")
        act.say(f"   holdfast guardian accept --call {own}")


async def _progress(act: Act) -> int:
    """Who has signed, who is missing, and whose port does not answer."""
    view = await act.ask("status")
    if view["phase"] == "live":
        act.say(f"{view['federation']} is founded: all have signed.")
        act.emit({"phase": "live", "federation": view["federation"]}, [])
        return terminal.DONE
    made = view["draft"]
    if made is None:
        raise Refused("there is no draft here yet", hint=f"for example: {_EXAMPLE}")
    lines = wording.draft_lines(made, act.clock.now(), view.get("unreachable", ()))
    if made["organiser"]:
        _say_call_lines(act, made, own_introduction(act))
    shown = {**wording.draft_data(made), "phase": "founding"}
    act.emit({**shown, "unreachable": view.get("unreachable", [])}, lines)
    return terminal.DONE


# --- every guardian --------------------------------------------------------------------


async def accept(act: Act) -> int:
    """Show the draft, have its words compared, sign it."""
    if act.options.call:
        called = await act.ask("join", organiser=act.options.call)
        act.say(f"Calling {called['calling']} at {called['address']} …")
    view = await act.ask("status")
    made = None if view["phase"] == "live" else await _arrived(act, view)
    if made is not None and not made["accepted"]:
        made = await _sign(act, made)
    if made is not None and act.options.until_live:
        await _until_live(act, made["id"])
        made = None
    return _say_signed(act, made, await act.ask("status"))


async def _arrived(act: Act, view: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The draft that is here, or comes; None when the federation has gone live meanwhile."""
    wait = act.options.wait or act.options.until_live
    if wait and view["draft"] is None:
        act.say("Waiting for the organiser's draft …")
    while view["phase"] != "live":
        if view["draft"] is not None:
            found: Mapping[str, Any] = view["draft"]
            return found
        if not wait:
            raise NotYet(
                "no draft has arrived at this node yet",
                hint="keep the node running; the organiser's node hands the draft out. If yours "
                "only dials out, say whom to call: holdfast guardian accept --call LINE",
            )
        await trio.sleep(POLL_SECONDS)
        view = await act.ask("status")
    return None


async def _sign(act: Act, made: Mapping[str, Any]) -> Mapping[str, Any]:
    for line in wording.draft_lines(made, act.clock.now()):
        act.say(line)
    _say_phrase(act, made)
    act.say("Compare them in one call in which you hear all the others.")
    if not act.confirm("Do all of you see these eight words?"):
        raise Refused(
            "nothing was signed",
            hint="if the words differ, the draft was changed on its way: have the organiser draft "
            "it once more, and compare again",
        )
    signed: Mapping[str, Any] = await act.ask("accept", draft=made["id"])
    return signed


async def _until_live(act: Act, draft_id: bytes) -> None:
    act.say("Signed. Waiting for the others …")
    while True:
        view = await act.ask("status")
        if view["phase"] == "live":
            return
        if view["draft"] is None or view["draft"]["id"] != draft_id:
            raise NotYet(
                "the organiser has changed the draft, so your signature counts no more",
                hint="look at it and sign again: holdfast guardian accept",
            )
        await trio.sleep(POLL_SECONDS)


def _say_signed(act: Act, made: Mapping[str, Any] | None, view: Mapping[str, Any]) -> int:
    if view["phase"] == "live":
        act.say(f"{view['federation']} is founded: all {len(view['guardians'])} have signed.")
        act.say(f"Next, one of you rehearses: {act.command('rehearse')}")
        act.emit({"signed": True, "phase": "live", "federation": view["federation"]}, [])
        return terminal.DONE
    assert made is not None  # a node that is not live has the draft it signed
    act.say("You have signed. With the last signature the federation is founded by itself;")
    act.say("keep your node running.")
    act.emit({**wording.draft_data(made), "signed": True, "phase": "founding"}, [])
    return terminal.DONE


# --- before the first member -----------------------------------------------------------


async def rehearse(act: Act) -> int:
    """Deal a dummy key to all guardians and get it back."""
    from node import rehearsal

    require_guardian(act.home)
    view = await act.ask("status")
    if view["phase"] != "live":
        raise Refused(
            "the federation is not founded yet: not all have signed",
            hint="who has: holdfast guardian draft",
        )
    if view["locked"]:
        raise Locked("this node is locked", hint="unlock it first: holdfast guardian unlock")
    signed = read_signed((await act.ask("federation"))["signed"])
    keys = open_keystore(act.home, act.passphrase())
    began = act.clock.now()
    outcome = await rehearsal.rehearse(
        signed.roster,
        keys.identity,
        listens=view["listens"],
        clock=act.clock,
        entropy=act.entropy,
        tell=act.say,
    )
    shown = {
        "passed": outcome.passed,
        "held": outcome.held,
        "released": outcome.released,
        "failed": dict(outcome.failed),
        "guardians": len(signed.roster.guardians),
        "seconds": round((act.clock.now() - began) / 1000, 1),
    }
    if outcome.passed:
        await act.ask("rehearsed")
        act.emit(shown, [f"all {len(outcome.released)} hold and release: passed"])
        act.say(f"Members can come: {act.command('invite')}")
        return terminal.DONE
    act.emit(shown, [f"{name} {why}" for name, why in outcome.failed.items()])
    error = (
        f"the rehearsal did not pass: {len(outcome.held)} of {len(signed.roster.guardians)} took "
        f"a piece and {len(outcome.released)} released a good one"
    )
    hint = f"mend what is said of {wording.listed(list(outcome.failed))}, then rehearse once more"
    raise Refused(error, hint=hint) if outcome.false else NotYet(error, hint=hint)


async def invite(act: Act) -> int:
    """Show the invite as text and as a QR code."""
    made = await act.ask("invite")
    line, eight = made["invite"], wording.eight_words(made["phrase"])
    for path, draw in ((act.options.png, qr.png), (act.options.svg, qr.svg)):
        if path:
            write_durably(Path(path), draw(line), replace=False)
            act.say(f"Drawn in {path}.")
    if not act.options.json:
        if sys.stderr.isatty():
            terminal.show(qr.terminal(line))
        act.say(f"Invite to {made['federation']}. It is no secret. Members compare these words:")
        act.say(f"   {eight}")
        act.say()
    act.emit({**made, "phrase": eight}, [line])
    return terminal.DONE


ACTS: Final = {"draft": draft, "accept": accept, "rehearse": rehearse, "invite": invite}
