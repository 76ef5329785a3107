"""A guardian's own folder and node: init, introduce, run, status, lock, unlock, stop, …"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import trio

from node import daemon, desk, qr, terminal
from node.certificate import certificate_signature
from node.commands import guardian_words as wording
from node.commands.guardian_acts import Act, require_guardian
from node.config import GuardianConfig, read_config, split_address, write_config
from node.keystore import (
    FRESH_BYTES,
    SEEDS_BYTES,
    change_passphrase,
    create,
    find_passphrase,
    open_keystore,
    transport_key,
    write_durably,
)
from protocol.errors import Locked, Refused
from protocol.federation import (
    Roster,
    introduce,
    introduction_text,
    read_introduction,
    read_signed,
)

_LOOPBACK: Final = ("localhost", "::1")
STOP_SECONDS: Final = 10.0  # links get two to say goodbye, and the disk some

# --- the folder ------------------------------------------------------------------------


async def init(act: Act) -> int:
    """Make keystore, transport key, settings and introduction."""
    options = act.options
    if not options.name.strip():
        raise Refused("a guardian needs a name by which the others know them")
    config = GuardianConfig(
        name=options.name.strip(),
        listen=options.listen,
        advertise=_advertised(act),
        contact=options.contact,
        languages=tuple(options.language),
        hours=options.hours,
    )
    if not options.passphrase_file:
        act.say("Your keys are locked with a passphrase. Without it nobody can use them, and")
        act.say("nobody can bring it back: four or five random words, written down, do well.")
    passphrase = act.passphrase(lambda: terminal.ask_twice("New passphrase:"))
    create(act.home, passphrase, act.entropy.draw(SEEDS_BYTES))
    write_config(act.home / daemon.CONFIG, config)
    line = _write_introduction(act, config, passphrase)
    fields = {"home": str(act.home), "name": config.name, "introduction": line}
    _say_next(act, config)
    act.emit({**fields, "listen": config.listen, "advertise": config.advertise}, [line])
    return terminal.DONE


def _advertised(act: Act) -> str:
    options = act.options
    if options.dials_out_only:
        return ""
    if options.advertise:
        return str(options.advertise)
    host, port = split_address(options.listen)
    if not host or host in ("0.0.0.0", "::") or not port:  # noqa: S104  # we listen nowhere here
        raise Refused(
            f"nobody can call {options.listen}: it is not the address of one machine",
            hint="say under which others reach you, as in --advertise guardian.example.org:7001, "
            "or --dials-out-only",
        )
    return str(options.listen)


def _say_next(act: Act, config: GuardianConfig) -> None:
    act.say(f"{config.name}'s keys and settings are in {act.home}.")
    host = split_address(config.advertise)[0] if config.advertise else ""
    if host in _LOOPBACK or host.startswith("127."):
        act.say(f"Note: {config.advertise} can only be called from this machine. For others, begin")
        act.say("again with --listen :7001 and --advertise and the address they reach you under,")
        act.say("or with --dials-out-only.")
    act.say("")
    act.say(f"1. Start your node, and keep it running:   {act.command('run')}")
    act.say("2. Give this line, your introduction, to whoever organises the federation.")
    act.say(f"   It is no secret; {act.command('introduce')} prints it again.")
    act.say("")


def _write_introduction(act: Act, config: GuardianConfig, passphrase: bytes) -> str:
    """Sign the introduction that fits the settings, and write it down."""
    keys = open_keystore(act.home, passphrase)
    transport = transport_key(act.home)
    made = introduce(
        keys.identity,
        name=config.name,
        sealing=keys.sealing[-1].public,
        transport=transport.public,
        certificate=certificate_signature(transport),
        address=config.advertise,
        contact=config.contact,
        languages=config.languages,
        hours=config.hours,
        now=act.clock.now(),
    )
    line = introduction_text(made)
    write_durably(act.home / daemon.INTRODUCTION, (line + "\n").encode())
    return line


def own_introduction(act: Act) -> str:
    """The line in the file `introduction`. Raises `Refused` when there is no guardian here."""
    require_guardian(act.home)
    line = (act.home / daemon.INTRODUCTION).read_text(encoding="utf-8").strip()
    read_introduction(line)  # what is damaged must not be handed on
    return line


async def introduce_self(act: Act) -> int:
    """Print the one-line introduction; the node may be off."""
    line = own_introduction(act)
    if act.options.qr:
        terminal.show(qr.terminal(line))
    act.emit({"introduction": line}, [line])
    return terminal.DONE


async def new_passphrase(act: Act) -> int:
    """Lock the keystore with another passphrase."""
    require_guardian(act.home)
    old = act.passphrase(lambda: terminal.ask_secret("Passphrase of your keys until now:"))
    open_keystore(act.home, old)  # before a new one is thought of and typed twice
    file = act.options.new_passphrase_file
    new = find_passphrase(
        Path(file) if file else None,
        environment={},
        prompt=lambda: terminal.ask_twice("New passphrase:"),
    )
    change_passphrase(act.home, old, new, act.entropy.draw(FRESH_BYTES))
    act.emit({"changed": True}, [])
    act.say("The passphrase is changed. Copies of the keystore made before open with the old one.")
    return terminal.DONE


# --- the process -----------------------------------------------------------------------


async def run(act: Act) -> int:
    """Run the node until it is told to stop."""
    require_guardian(act.home)
    flags = {"listen": act.options.listen, "log": act.options.log}
    config = read_config(act.home / daemon.CONFIG, flags=flags, environment=os.environ)
    daemon.set_up_logging(config.log, sys.stderr)
    passphrase = _passphrase_to_start(act)
    node = daemon.Daemon(act.home, config)
    if passphrase is not None:
        node.unlock(passphrase)
    await node.run(sys.stderr)
    return terminal.DONE


def _passphrase_to_start(act: Act) -> bytes | None:
    """The passphrase, or None to start locked: a machine that restarts has nobody to ask."""
    if act.options.locked:
        return None
    if act.options.passphrase_file or act.is_interactive:
        return act.passphrase()
    try:
        return find_passphrase(None, environment=os.environ)
    except Locked:
        return None


async def status(act: Act) -> int:
    """Say how the node is, founding or live."""
    view = await act.ask("status")
    now = act.clock.now()
    if view["phase"] == "founding":
        if view["draft"] is not None:
            view = {**view, "draft": wording.draft_data(view["draft"])}
        act.emit(view, wording.founding_lines(view, now))
        return terminal.DONE
    roster = await the_roster(act)
    found = [
        {**each, "guardian": roster.named(each["seat"]) if each["seat"] is not None else ""}
        for each in view["unreachable"]
    ]
    view = {**view, "unreachable": found}
    act.emit(view, wording.status_lines(view, now))
    return terminal.DONE


async def the_roster(act: Act) -> Roster:
    """The roster of the live federation."""
    return read_signed((await act.ask("federation"))["signed"]).roster


async def lock(act: Act) -> int:
    """Make the node forget its keys."""
    act.emit(await act.ask("lock"), [])
    act.say("The node is locked: it relays, and neither votes nor releases.")
    act.say(f"Unlock it with: {act.command('unlock')}")
    return terminal.DONE


async def unlock(act: Act) -> int:
    """Give the node its passphrase, over the socket that only the folder's owner can use."""
    await act.ask("status")  # nobody types a passphrase for a node that is not there
    act.emit(await act.ask("unlock", passphrase=act.passphrase()), [])
    act.say("The node is unlocked.")
    return terminal.DONE


async def stop(act: Act) -> int:
    """End the node, and wait until its folder is free."""
    await act.ask("stop")
    with trio.move_on_after(STOP_SECONDS) as waiting:
        while (act.home / desk.SOCKET).exists():
            await trio.sleep(0.05)
    act.emit({"stopped": not waiting.cancelled_caught}, [])
    act.say("The node takes no more calls and ends when all is written down."
            if waiting.cancelled_caught else "The node has ended.")  # fmt: skip
    return terminal.TRY_LATER if waiting.cancelled_caught else terminal.DONE


ACTS: Final = {
    "init": init,
    "introduce": introduce_self,
    "passphrase": new_passphrase,
    "run": run,
    "status": status,
    "lock": lock,
    "unlock": unlock,
    "stop": stop,
}
