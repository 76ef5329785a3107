"""The command `recover`, and what `resume` does for a recovery: from the code to the secret."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import trio

from node import terminal
from node.wallet import asking, backup, recovery
from node.wallet.acts import Acts, deal_anew, join_with_invite
from node.wallet.folder import ClaimRecord, exists
from node.wallet.recovery import Opening, Watch
from node.wallet.session import Wallet
from protocol.errors import Refused, WrongSecret
from protocol.names import normalise
from protocol.vault import Payload
from protocol.wallet import backing_up
from protocol.wallet.preparing import check_spellings
from protocol.wallet.recovering import Recovered, Recovery

COUNTDOWN_SECONDS: Final = 1.0
PASSPHRASE_TRIES: Final = 3
_PRINTABLE: Final = ("words", "hex")


async def recover(acts: Acts) -> int:
    """Claim what lies under a name, wait for the guardians, and give it back."""
    asking.check_output(acts.options)
    if not exists(Path(acts.options.home)):
        folder = await join_with_invite(acts)  # a new device has to join first
    else:
        folder = asking.open_wallet(acts.options, acts.ports.entropy)
    try:
        return await _recover(acts, acts.wallet(folder))
    finally:
        folder.close()


async def _recover(acts: Acts, wallet: Wallet) -> int:
    pending = [claim for claim in wallet.folder.state.claims if not claim.outcome]
    if pending and not acts.options.again:
        raise Refused(
            "a recovery on this device goes on already; nothing was changed",
            hint="go on with: holdfast wallet resume, or begin anew with --again",
        )
    name = asking.ask_name(acts.options)
    for claim in pending:
        claim.outcome = "given up"
    return await Returning(acts, wallet).go_on(await recovery.begin(wallet, name))


class Returning:
    """One recovery, on its way or being taken up again."""

    def __init__(self, acts: Acts, wallet: Wallet) -> None:
        self._acts = acts
        self._options = acts.options
        self._screen = acts.screen
        self._wallet = wallet

    async def resume(self) -> int | None:
        """Go on with a recovery that is unfinished; None when there was none."""
        for record in self._wallet.folder.state.claims:
            if not record.outcome:
                return await self.go_on(record)
        done = [claim for claim in self._wallet.folder.state.claims if claim.vault]
        if done:
            if self._options.older:
                await self._give_older(done[-1])
            else:
                self._give_again(done[-1])
            await self._tell_owner(done[-1])
        return None

    async def go_on(self, record: ClaimRecord) -> int:
        """Show the code, wait for enough pieces, open them, and become the owner."""
        heard = recovery.restore(self._wallet, record)
        if heard.missing() != 0:
            self._acts.emit(event="code", code=record.code)
            if self._options.code_file:
                asking.write_note(self._options.code_file, record.code + "\n")
            if self._options.no_wait:
                return await self._announce(record)
        for caught in heard.caught:
            recovery.tell_caught(self._wallet, caught)
        if heard.missing() != 0:
            await self._wait(Watch(self._wallet, record, heard))
        opening, passphrase = await self._open(heard, record)
        recovered = await recovery.open_secret(self._wallet, heard, opening)
        self._keep(record, recovered, opening)
        self._give(record, recovered.payload)
        await self._tell_owner(record)
        if self._acts.confirm("Deal it anew, so that the pieces belong to this device?"):
            await deal_anew(self._acts, self._wallet, record.vault, passphrase)
            standing = await backup.deposit(self._wallet, record.vault)
            self._acts.stands(self._wallet, record.vault, standing)
        else:
            self._screen.say("Later: holdfast wallet resume --yes deals it anew for this device.")
        return terminal.DONE

    async def _announce(self, record: ClaimRecord) -> int:
        failed = await recovery.announce(self._wallet, record)
        for seat, error in sorted(failed.items()):
            backup.tell_failure(self._wallet, seat, error)
        reached = len(self._wallet.roster.guardians) - len(failed)
        self._acts.emit(event="announced", reached=reached)
        self._screen.say(f"{reached} guardians know. Go on with: holdfast wallet resume")
        return terminal.DONE if reached else terminal.TRY_LATER

    async def _wait(self, watch: Watch) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._count_down)
            await watch.until_enough()
            nursery.cancel_scope.cancel()
        self._screen.rest()

    async def _count_down(self) -> None:
        while True:
            self._screen.countdown(self._wallet.now())
            await trio.sleep(COUNTDOWN_SECONDS)

    # --- opening ----------------------------------------------------------------------

    async def _open(self, heard: Recovery, record: ClaimRecord) -> tuple[Opening, str | None]:
        """Find the name key: under the name and passphrase, then under spellings near it."""
        name = asking.ask_name(self._options) if self._options.name_file else record.name
        locked = any(candidate.needs_passphrase for candidate in heard.candidates())
        can_ask = asking.is_interactive(self._options)
        older: int = self._options.older
        passphrase: str | None
        if locked and can_ask and not self._options.passphrase_file:
            found, passphrase = await self._ask_passphrase(heard, name)
        else:
            passphrase = self._passphrase_file()
            found = await recovery.find_key(
                self._wallet, heard, name, passphrase, near=False, older=older
            )
        # With a passphrase in the lock it is the likelier mistake: only a person who waits,
        # or who asked for it, is made to wait for hundreds of spellings.
        tries_near = not locked or can_ask or self._options.near
        if found is None and older:
            raise Refused(f"no version {older} before the newest one came back with the pieces")
        if found is None and tries_near:
            self._screen.say("The name does not open it as it is written. Trying others like it …")
            found = await recovery.find_key(self._wallet, heard, name, passphrase, near=True)
            self._screen.rest()
        if found is None and can_ask:
            found = await self._ask_other_name(heard, passphrase)
        if found is None:
            raise recovery.why_not_open(heard, passphrase)
        if found.spelling != normalise(name):
            self._screen.say(f"It opened under “{found.spelling}”.")
        return found, passphrase

    def _passphrase_file(self) -> str | None:
        if not self._options.passphrase_file:
            return None
        return asking.passphrase_file(self._options)

    async def _ask_passphrase(self, heard: Recovery, name: str) -> tuple[Opening | None, str]:
        """Ask until one opens it, or the person says that it is right and the name is not."""
        passphrase = asking.ask_passphrase(self._options)
        for _ in range(PASSPHRASE_TRIES):
            found = await recovery.find_key(
                self._wallet, heard, name, passphrase, near=False, older=self._options.older
            )
            if found is not None:
                return found, passphrase
            self._screen.say("This passphrase, with the name you gave, does not open it.")
            again = terminal.ask_secret("Another passphrase (Enter if this one is right):")
            if not again:
                break
            passphrase = asking.checked_passphrase(again)
        return None, passphrase

    async def _ask_other_name(self, heard: Recovery, passphrase: str | None) -> Opening | None:
        for _ in range(PASSPHRASE_TRIES):
            name = terminal.ask("Another way your name may be written (Enter to stop):")
            if not name:
                return None
            try:
                found = await recovery.find_key(self._wallet, heard, name, passphrase, near=False)
            except Refused as error:
                terminal.say(str(error))
                continue
            if found is not None:
                return found
        return None

    def _keep(self, record: ClaimRecord, recovered: Recovered, opening: Opening) -> None:
        """Write down what was recovered, before anybody is told of it."""
        wallet = self._wallet
        device = record.device.signing
        known = check_spellings([record.name])[0] in recovered.payload.spellings
        adopted = backing_up.adopt(
            recovered.deal,
            recovered.version,
            recovered.secret,
            opening.candidate.pepper,
            device,
            recovered.payload,
            title=recovered.payload.title or "key",
            full_name=record.name if known else opening.spelling,
        )
        wallet.folder.put(backup.payload_part(wallet, adopted), recovered.payload.to_bytes())
        record.vault = bytes(recovered.deal.body["vault"])
        record.succession = recovery.succession(wallet, record, recovered.deal).raw
        record.outcome = "recovered"
        wallet.keep(record.vault, adopted)

    # --- giving back ------------------------------------------------------------------

    def _give(self, record: ClaimRecord, payload: Payload) -> None:
        """Write the secret where it was asked for, or show it to whoever asks to see it."""
        output = self._options.output or ""
        if output:
            asking.write_secret(output, payload.secret)
        self._acts.emit(event="recovered", form=payload.form, output=output)
        what = {"words": "recovery words", "hex": "key", "raw": "key"}.get(payload.form, "file")
        self._screen.say(f"Your {what} came back, complete and checked.")
        if output:
            self._screen.say(f"Written to {output}, which only you can read.")
        elif self._options.print or (
            asking.is_interactive(self._options) and terminal.confirm("Show it here now?", False)
        ):
            _print(payload)
        else:
            self._screen.say("Write it to a file: holdfast wallet resume --output FILE")

    def _give_again(self, record: ClaimRecord) -> None:
        """Give out once more, when asked for it, what was recovered earlier."""
        known = record.vault in self._wallet.folder.state.backups
        if not known or not (self._options.output or self._options.print):
            return
        asking.check_output(self._options)
        self._give(record, backup.payload(self._wallet, record.vault))

    async def _give_older(self, record: ClaimRecord) -> None:
        """Give out, beside what was recovered, what stood before it."""
        asking.check_output(self._options)
        heard = recovery.restore(self._wallet, record)
        opening, _ = await self._open(heard, record)
        recovered = await recovery.open_secret(self._wallet, heard, opening)
        self._give(record, recovered.payload)

    async def _tell_owner(self, record: ClaimRecord) -> None:
        """Tell the guardians who owns the vault now."""
        wallet = self._wallet
        if len(record.told) == len(wallet.roster.guardians):
            return
        failed = await recovery.succeed(wallet, record)
        for seat, error in sorted(failed.items()):
            backup.tell_failure(wallet, seat, error)
        names = [wallet.roster.named(seat) for seat in record.told]
        self._acts.emit(event="succession", guardians=names)


def _print(payload: Payload) -> None:
    """Write the secret to stdout, as text where it is text."""
    if payload.form == "raw":
        terminal.emit(payload.secret.hex(), False)
        return
    try:
        terminal.emit(payload.secret.decode(), False)
    except UnicodeDecodeError:
        if sys.stdout.isatty():
            raise WrongSecret(
                "this file is no text, and would only disturb the terminal",
                hint="write it to a file: holdfast wallet resume --output FILE",
            ) from None
        sys.stdout.buffer.write(payload.secret)
        sys.stdout.buffer.flush()
