"""The command `move`: bring all backups to a new device while the old one still works.

The new device shows a line; the old one packs everything for that device alone, and says to
the guardians whose the vaults are now; the new one takes the packet and deals anew.
"""

from __future__ import annotations

from pathlib import Path

from node import terminal
from node.wallet import asking, ownership
from node.wallet.acts import Acts, catch_up
from node.wallet.session import Wallet
from protocol.errors import Refused


async def move(acts: Acts) -> int:
    """Do the step of the move that the options name."""
    with acts.opened() as wallet:
        if acts.options.take:
            return await _take(acts, wallet)
        if acts.options.to or acts.options.to_file:
            return await _send(acts, wallet)
        return await _expect(acts, wallet)


async def _expect(acts: Acts, wallet: Wallet) -> int:
    asking.check_output(acts.options)
    line = ownership.expect_move(wallet)
    if acts.options.output:
        asking.write_note(acts.options.output, line + "\n")
    shown = {"event": "move", "line": line} if acts.options.json else line
    terminal.emit(shown, acts.options.json)
    acts.screen.say("Give this line to your old device: holdfast wallet move --to LINE")
    return terminal.DONE


async def _send(acts: Acts, wallet: Wallet) -> int:
    options = acts.options
    line = options.to or asking.read_file(options.to_file, 4096).decode("ascii", "replace")
    if not options.output:
        raise Refused("say with --output where the packed backups are to be written")
    asking.check_output(options)
    owner, sealed = ownership.pack_move(wallet, line)
    if not acts.confirm("All backups of this wallet then belong to the new device. Go on?"):
        raise Refused("nothing was moved", hint="give --yes to go on without asking")
    # On the disk before a guardian hears of it: afterwards the old key opens nothing.
    asking.write_secret(options.output, sealed)
    taken: list[int] = []
    for vault_id in sorted(wallet.folder.state.backups):
        taken = await ownership.hand_over(wallet, vault_id, owner)
        acts.took_note(wallet, "handover", taken)
    acts.screen.say(
        f"Bring {options.output} to the new device and run there: "
        f"holdfast wallet move --take {Path(options.output).name}"
    )
    return terminal.DONE if taken else terminal.TRY_LATER


async def _take(acts: Acts, wallet: Wallet) -> int:
    sealed = asking.read_file(acts.options.take, ownership.MOVE_BYTES_MAX)
    taken = ownership.take_move(wallet, sealed)
    acts.screen.say(f"{len(taken)} backups are here. They are dealt anew for this device.")
    acts.options.yes = True  # whoever takes them wants them
    return await catch_up(acts, wallet)
