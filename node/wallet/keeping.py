"""The commands of a member whose backups stand: status, name, veto, check-in, leave."""

from __future__ import annotations

from typing import Any

from node import terminal
from node.wallet import asking, backup, leaflet, ownership
from node.wallet.acts import Acts
from node.wallet.ownership import Look
from node.wallet.session import Wallet
from protocol.errors import Refused
from protocol.wallet import owning
from protocol.wallet.preparing import check_spellings

# --- status ----------------------------------------------------------------------------


async def status(acts: Acts) -> int:
    """Say who holds what, and whether anybody claims it."""
    with acts.opened() as wallet:
        if acts.options.output:
            return _write_out(acts, wallet)
        roster = wallet.roster
        looks = [await ownership.look(wallet, vault_id) for vault_id in acts.vaults(wallet)]
        if acts.options.json:
            terminal.emit(_status_map(wallet, looks), True)
        else:
            _show_status(wallet, looks)
        for seen in looks:
            if len(ownership.erased_by(wallet, seen)) == len(roster.guardians):
                ownership.forget(wallet, seen.vault)
        return terminal.DONE


def _write_out(acts: Acts, wallet: Wallet) -> int:
    """Write what is backed up to a new file: this wallet keeps a copy."""
    asking.check_output(acts.options)
    vault_id = wallet.choose(acts.options.title)
    asking.write_secret(acts.options.output, backup.payload(wallet, vault_id).secret)
    acts.screen.say(f"Written to {acts.options.output}, which only you can read.")
    return terminal.DONE


def _status_map(wallet: Wallet, looks: list[Look]) -> dict[str, Any]:
    claims = [
        {"code": claim.code, "started": claim.started, "outcome": claim.outcome}
        for claim in wallet.folder.state.claims
    ]
    return {
        "federation": wallet.roster.name,
        "phrase": leaflet.phrase(wallet.roster),
        "claims": claims,
        "backups": [_backup_map(wallet, seen) for seen in looks],
    }


def _backup_map(wallet: Wallet, seen: Look) -> dict[str, Any]:
    name = wallet.roster.named
    return {
        "title": seen.backup.title,
        "sentence": seen.standing.sentence,
        "safe": seen.standing.safe,
        "held": [name(seat) for seat in seen.standing.held],
        "missing": [name(seat) for seat in seen.standing.missing],
        "answered": [name(seat) for seat in sorted(seen.held)],
        "unanswered": {name(seat): str(error) for seat, error in sorted(seen.failed.items())},
        "spellings": list(seen.backup.spellings),
        "leaving": seen.leaving,
        "erased": [name(seat) for seat in ownership.erased_by(wallet, seen)],
        "claims": [
            {
                "claim": case.claim.hex(),
                "state": case.state,
                "approvals": case.approvals,
                "quorum": case.quorum,
                "due": case.due,
                "told_by": [name(seat) for seat in seats],
            }
            for case, seats in seen.claims
        ],
    }


def _show_status(wallet: Wallet, looks: list[Look]) -> None:
    roster = wallet.roster
    lines = [f"{roster.name}: {leaflet.phrase(roster)}"]
    for claim in wallet.folder.state.claims:
        if not claim.outcome:
            started = terminal.human_time(claim.started)
            lines.append(f"a recovery begun on {started} goes on: holdfast wallet resume")
    if not looks:
        lines.append("nothing is backed up yet: holdfast wallet backup")
    for seen in looks:
        lines += _backup_lines(wallet, seen)
    terminal.emit(lines, False)


def _backup_lines(wallet: Wallet, seen: Look) -> list[str]:
    roster = wallet.roster
    lines = [f"{seen.backup.title}: {seen.standing.sentence}"]
    for seat, error in sorted(seen.failed.items()):
        named = roster.named(seat)
        lines.append(f"  {error}" if str(error).startswith(named) else f"  {named}: {error}")
    if seen.leaving:
        when = terminal.human_time(seen.leaving)
        lines.append(f"  it is erased on {when}; to keep it: holdfast wallet leave --stay")
    for seat in ownership.erased_by(wallet, seen):
        lines.append(f"  {roster.named(seat)} has erased it and signed for it")
    for case, seats in seen.claims:
        lines.append(f"  {owning.describe_claim(case, roster, seats, wallet.now())}")
        lines.append("  if that is not you: holdfast wallet veto")
    return lines


# --- names -----------------------------------------------------------------------------


async def name(acts: Acts) -> int:
    """List, add or remove spellings under which a backup opens."""
    with acts.opened() as wallet:
        vault_id = wallet.choose(acts.options.title)
        known = wallet.backup(vault_id).spellings
        if acts.options.action == "list":
            for spelling in known:
                shown = {"spelling": spelling} if acts.options.json else spelling
                terminal.emit(shown, acts.options.json)
            return terminal.DONE
        if wallet.backup(vault_id).foreign:
            raise Refused(
                "this backup was made by another device and has to be dealt anew first",
                hint="run: holdfast wallet resume",
            )
        changed = _changed(acts, known)
        passphrase = None
        if backup.has_passphrase(wallet, vault_id):
            passphrase = asking.ask_passphrase(acts.options)
        await backup.rename(wallet, vault_id, changed, passphrase)
        return acts.stands(wallet, vault_id, await backup.deposit(wallet, vault_id))


def _changed(acts: Acts, known: tuple[str, ...]) -> tuple[str, ...]:
    named = check_spellings(asking.ask_names(acts.options))
    if acts.options.action == "add":
        return check_spellings((*known, *named))
    unknown = [spelling for spelling in named if spelling not in known]
    if unknown:
        raise Refused(
            f"the backup does not open under “{unknown[0]}”", hint="see: holdfast wallet name list"
        )
    left = tuple(spelling for spelling in known if spelling not in named)
    if not left:
        raise Refused("a backup must open under one name at least; nothing was changed")
    return left


# --- what the owner says ---------------------------------------------------------------


async def veto(acts: Acts) -> int:
    """Object to a claim on one's own vault."""
    with acts.opened() as wallet:
        words = _words(acts)
        found = False
        for vault_id in acts.vaults(wallet):
            seen = await ownership.look(wallet, vault_id)
            for case, seats in seen.claims:
                found = True
                acts.screen.say(owning.describe_claim(case, wallet.roster, seats, wallet.now()))
                if acts.confirm("Is this not you? Shall the guardians be told so?"):
                    taken = await ownership.veto(wallet, vault_id, case.claim, words)
                    acts.took_note(wallet, "veto", taken)
        if not found:
            raise Refused("no guardian that could be reached knows of a claim on your backups")
        return terminal.DONE


def _words(acts: Acts) -> str:
    if not acts.options.words_file:
        return ""
    raw = asking.read_file(acts.options.words_file, 4096)
    return raw.decode("utf-8", "replace").strip()


async def check_in(acts: Acts) -> int:
    """Say that the owner is alive."""
    with acts.opened() as wallet:
        code = terminal.DONE
        for vault_id in acts.vaults(wallet):
            taken = await ownership.check_in(wallet, vault_id)
            acts.took_note(wallet, "check-in", taken)
            code = code if taken else terminal.TRY_LATER
        return code


async def leave(acts: Acts) -> int:
    """Have a vault erased, in seven days; or take that back."""
    with acts.opened() as wallet:
        vault_id = wallet.choose(acts.options.title)
        title, stay = wallet.backup(vault_id).title, acts.options.stay
        question = f"In seven days no guardian can give “{title}” back any more. Go on?"
        if not stay and not acts.confirm(question):
            raise Refused("nothing was changed", hint="give --yes to go on without asking")
        taken = await ownership.leave(wallet, vault_id, stay=stay)
        acts.took_note(wallet, "stay" if stay else "leave", taken)
        return terminal.DONE if taken else terminal.TRY_LATER
