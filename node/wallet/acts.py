"""The commands `join`, `backup` and `resume`, and what all commands of one call share."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from node import terminal
from node.wallet import asking, backup, leaflet, ownership
from node.wallet.backup import Wish
from node.wallet.folder import Folder
from node.wallet.screen import Screen
from node.wallet.session import Ports, Wallet, meet
from protocol.errors import Refused
from protocol.federation import Roster
from protocol.wallet.joining import introduce_federation
from protocol.wallet.standing import Standing


class Acts:
    """One call of the wallet: its options, its outside world and its screen."""

    def __init__(self, options: argparse.Namespace, ports: Ports) -> None:
        self.options = options
        self.ports = ports
        self.screen = Screen(options.json)

    @contextmanager
    def opened(self) -> Iterator[Wallet]:
        """Open the wallet folder, and let go of it at the end."""
        folder = asking.open_wallet(self.options, self.ports.entropy)
        try:
            yield self.wallet(folder)
        finally:
            folder.close()

    def wallet(self, folder: Folder) -> Wallet:
        return Wallet(folder, self.ports, self.screen.tell)

    def confirm(self, prompt: str) -> bool:
        """Ask; where nobody can be asked, `--yes` decides."""
        if self.options.yes or not asking.is_interactive(self.options):
            return bool(self.options.yes)
        self.screen.rest()
        return terminal.confirm(prompt, False)

    def emit(self, **event: Any) -> None:
        """Show one event."""
        self.screen.tell(event)

    def vaults(self, wallet: Wallet) -> list[bytes]:
        """The vault that `--title` names, or all."""
        if self.options.title:
            return [wallet.choose(self.options.title)]
        return sorted(wallet.folder.state.backups)

    def stands(self, wallet: Wallet, vault_id: bytes, standing: Standing) -> int:
        """Say who holds a piece; the exit code says whether that is enough."""
        name = wallet.roster.named
        self.emit(
            event="standing",
            title=wallet.backup(vault_id).title,
            held=[name(seat) for seat in standing.held],
            missing=[name(seat) for seat in standing.missing],
            needed=standing.needed,
            safe=standing.safe,
            sentence=standing.sentence,
        )
        return terminal.DONE if standing.safe else terminal.TRY_LATER

    def took_note(self, wallet: Wallet, what: str, seats: list[int]) -> None:
        """Say which guardians took a statement of the owner."""
        names = [wallet.roster.named(seat) for seat in seats]
        self.emit(event=what, guardians=names)
        shown = ", ".join(names) if names else "no guardian"
        self.screen.say(f"{shown} took note ({what}).")


# --- joining ---------------------------------------------------------------------------


async def join(acts: Acts) -> int:
    """Join a federation, and go straight on to backing up a new key."""
    folder = await join_with_invite(acts)
    try:
        if acts.options.no_backup:
            acts.screen.say("Joined. Back something up with: holdfast wallet backup")
            return terminal.DONE
        return await _back_up(acts, acts.wallet(folder))
    finally:
        folder.close()


async def join_with_invite(acts: Acts) -> Folder:
    """Make a wallet and join with the invite; the folder is left open."""
    invite = asking.ask_invite(acts.options)
    membership = await meet(acts.ports, invite)
    roster = membership.roster
    _compare(acts, roster)
    folder = asking.create_wallet(acts.options, acts.ports.entropy)
    folder.state.membership = membership
    folder.save()
    acts.emit(
        event="joined",
        federation=roster.name,
        guardians=[guardian.name for guardian in roster.guardians],
        threshold=roster.threshold,
        phrase=leaflet.phrase(roster),
    )
    return folder


def _compare(acts: Acts, roster: Roster) -> None:
    """Show whom the member joins, and the words to compare with a guardian."""
    say = acts.screen.say
    for line in introduce_federation(roster):
        say(line)
    say()
    say("Ask a guardian, in person or on the telephone, for the federation's words.")
    say(f"They must be:  {leaflet.phrase(roster)}")
    if asking.is_interactive(acts.options) and not acts.confirm("Are they the same?"):
        raise Refused(
            "the words were not compared, or differ; nothing was joined",
            hint="get the invite from a guardian in person and try again",
        )


# --- backing up ------------------------------------------------------------------------


async def back_up(acts: Acts) -> int:
    """Back a secret up."""
    with acts.opened() as wallet:
        return await _back_up(acts, wallet)


async def _back_up(acts: Acts, wallet: Wallet) -> int:
    options = acts.options
    asking.check_output(options)
    form, secret, file = asking.ask_secret(options, acts.ports.entropy)
    names = asking.ask_names(options)
    line, picture = asking.read_card(options)
    title = _title(wallet, options.title, file or "key")
    wish = Wish(
        title=title,
        form=form,
        secret=secret,
        names=names,
        file=file,
        hint=_hint(acts, wallet, title),
        passphrase=asking.ask_new_passphrase(options),
        card_line=line,
        card_picture=picture,
        waiting=options.waiting,
    )
    acts.screen.say("Splitting and locking it …")
    vault_id = await backup.begin(wallet, wish)
    if options.output:
        asking.write_secret(options.output, secret)
    elif not file:
        acts.screen.say("The wallet keeps it; to a file: holdfast wallet status --output FILE")
    return acts.stands(wallet, vault_id, await backup.deposit(wallet, vault_id))


def _hint(acts: Acts, wallet: Wallet, title: str) -> str:
    """What tells this vault from the member's others, for guardians, once a claim is open."""
    if acts.options.hint is not None:
        return str(acts.options.hint)
    if not wallet.folder.state.backups:
        return ""
    acts.screen.say(f"Once it is claimed, guardians see “{title}” beside your name.")
    return title


def _title(wallet: Wallet, wanted: str | None, usual: str) -> str:
    taken = [each.title for each in wallet.folder.state.backups.values()]
    if wanted is not None:
        if wanted in taken:
            raise Refused(
                f"there is a backup called “{wanted}” already", hint="choose another --title"
            )
        return wanted
    number, title = 1, usual
    while title in taken:
        number += 1
        title = f"{usual} {number}"
    return title


# --- going on --------------------------------------------------------------------------


async def resume(acts: Acts) -> int:
    """Go on with whatever is unfinished: a recovery first, then backups."""
    from node.wallet.returning import Returning

    with acts.opened() as wallet:
        code = await Returning(acts, wallet).resume()
        return await catch_up(acts, wallet) if code is None else code


async def catch_up(acts: Acts, wallet: Wallet) -> int:
    """Deal anew what another device dealt, and send what was not acknowledged."""
    code = terminal.DONE
    for vault_id in sorted(wallet.folder.state.backups):
        title = wallet.backup(vault_id).title
        if wallet.backup(vault_id).foreign:
            if not acts.confirm(f"Deal “{title}” anew, so that the pieces belong to this device?"):
                continue
            await deal_anew(acts, wallet, vault_id)
        standing = await backup.deposit(wallet, vault_id)
        code = max(code, acts.stands(wallet, vault_id, standing))
    return code


async def deal_anew(
    acts: Acts, wallet: Wallet, vault_id: bytes, passphrase: str | None = None
) -> None:
    """Deal a vault anew under the key of this device."""
    if not backup.has_passphrase(wallet, vault_id):
        passphrase = None
    elif passphrase is None:
        passphrase = asking.ask_passphrase(acts.options)
    seen = await ownership.look(wallet, vault_id)
    await backup.deal_again(wallet, vault_id, passphrase, number=seen.number)
