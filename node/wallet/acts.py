"""What each wallet command does, from its options to its exit code, recovery aside."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import trio

from node import terminal
from node.wallet import asking, backup, leaflet, ownership
from node.wallet.backup import Wish
from node.wallet.folder import Folder
from node.wallet.screen import Screen
from node.wallet.session import Ports, Wallet, meet
from protocol.contract import Verified
from protocol.errors import HoldfastError, Refused
from protocol.wallet import owning
from protocol.wallet.backing_up import Standing, check_spellings
from protocol.wallet.joining import introduce_federation


class Acts:
    """The commands of one call. Every method returns an exit code."""

    def __init__(self, options: argparse.Namespace, ports: Ports) -> None:
        self.options = options
        self.ports = ports
        self.screen = Screen(options.json)

    def open(self) -> Wallet:
        """Open the wallet and hold it until `close`."""
        return self._wallet(asking.open_wallet(self.options, self.ports.entropy))

    def _wallet(self, folder: Folder) -> Wallet:
        self.screen.rest()
        return Wallet(folder, self.ports, self.screen.tell)

    def confirm(self, prompt: str) -> bool:
        """Ask; where nobody can be asked, `--yes` decides."""
        if self.options.yes or not asking.is_interactive(self.options):
            return bool(self.options.yes)
        self.screen.rest()
        return terminal.confirm(prompt, False)

    def emit(self, **event: Any) -> None:
        self.screen.tell(event)

    # --- joining and backing up -------------------------------------------------------

    async def join(self) -> int:
        """Join a federation, and go straight on to backing up a new key."""
        wallet = await self.joined()
        try:
            if self.options.no_backup:
                self.screen.say("Back something up with: holdfast wallet backup")
                return terminal.DONE
            return await self._back_up(wallet)
        finally:
            wallet.folder.close()

    async def joined(self) -> Wallet:
        """Make a wallet and join with the invite; the wallet is left open."""
        invite = asking.ask_invite(self.options)
        membership = await meet(self.ports, invite)
        roster = membership.roster
        phrase = leaflet.phrase(roster)
        for line in introduce_federation(roster):
            self.screen.say(line)
        self.screen.say()
        self.screen.say(
            "Ask a guardian, in person or on the telephone, for the federation's words."
        )
        self.screen.say(f"They must be:  {phrase}")
        if asking.is_interactive(self.options) and not terminal.confirm(
            "Are they the same?", False
        ):
            raise Refused(
                "the words were not compared, or differ; nothing was joined",
                hint="get the invite from a guardian in person and try again",
            )
        wallet = self._wallet(asking.create_wallet(self.options, self.ports.entropy))
        wallet.folder.state.membership = membership
        wallet.folder.save()
        names = [guardian.name for guardian in roster.guardians]
        self.emit(
            event="joined",
            federation=roster.name,
            guardians=names,
            threshold=roster.threshold,
            phrase=phrase,
        )
        return wallet

    async def backup(self) -> int:
        """Back a secret up."""
        wallet = self.open()
        try:
            return await self._back_up(wallet)
        finally:
            wallet.folder.close()

    async def _back_up(self, wallet: Wallet) -> int:
        options = self.options
        asking.check_output(options)
        form, secret, file = asking.ask_secret(options, self.ports.entropy)
        names = asking.ask_names(options)
        line, picture = asking.read_card(options)
        wish = Wish(
            title=self._title(wallet, options.title or file or "key"),
            form=form,
            secret=secret,
            names=names,
            file=file,
            hint=options.hint or "",
            passphrase=asking.ask_new_passphrase(options),
            card_line=line,
            card_picture=picture,
            waiting=options.waiting,
        )
        self.screen.say("Splitting and locking it …")
        vault_id = await backup.begin(wallet, wish)
        if options.output:
            asking.write_secret(options.output, secret)
        return self.stands(wallet, vault_id, await backup.deposit(wallet, vault_id))

    def _title(self, wallet: Wallet, wanted: str) -> str:
        taken = [each.title for each in wallet.folder.state.backups.values()]
        if self.options.title and wanted in taken:
            raise Refused(
                f"there is a backup called “{wanted}” already", hint="choose another --title"
            )
        number, title = 1, wanted
        while title in taken:
            number += 1
            title = f"{wanted} {number}"
        return title

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

    async def catch_up(self, wallet: Wallet) -> int:
        """Deal anew what another device dealt, and send what was not acknowledged."""
        code = terminal.DONE
        for vault_id in sorted(wallet.folder.state.backups):
            if wallet.backup(vault_id).foreign:
                if not self.confirm(
                    f"Deal “{wallet.backup(vault_id).title}” anew for this device?"
                ):
                    continue
                await self.deal_anew(wallet, vault_id)
            code = max(code, self.stands(wallet, vault_id, await backup.deposit(wallet, vault_id)))
        return code

    async def deal_anew(
        self, wallet: Wallet, vault_id: bytes, passphrase: str | None = None
    ) -> None:
        """Deal a vault anew under the key of this device."""
        if passphrase is None and backup.has_passphrase(wallet, vault_id):
            passphrase = asking.ask_passphrase(self.options)
        seen = await ownership.look(wallet, vault_id)
        await backup.deal_again(wallet, vault_id, passphrase, number=seen.number)

    # --- looking ----------------------------------------------------------------------

    async def status(self) -> int:
        """Say who holds what, and whether anybody claims it."""
        wallet = self.open()
        try:
            roster = wallet.roster
            looks = [
                await ownership.look(wallet, vault_id)
                for vault_id in sorted(wallet.folder.state.backups)
            ]
            if self.options.json:
                terminal.emit(self._status_map(wallet, looks), True)
            else:
                self._status_text(wallet, looks)
            for seen in looks:
                if len(ownership.erased_by(wallet, seen)) == len(roster.guardians):
                    ownership.forget(wallet, seen.vault)
            return terminal.DONE
        finally:
            wallet.folder.close()

    def _status_map(self, wallet: Wallet, looks: list[ownership.Look]) -> dict[str, Any]:
        name = wallet.roster.named
        return {
            "federation": wallet.roster.name,
            "phrase": leaflet.phrase(wallet.roster),
            "claims": [
                {"code": claim.code, "started": claim.started, "outcome": claim.outcome}
                for claim in wallet.folder.state.claims
            ],
            "backups": [
                {
                    "title": seen.backup.title,
                    "sentence": seen.standing.sentence,
                    "safe": seen.standing.safe,
                    "held": [name(seat) for seat in seen.standing.held],
                    "missing": [name(seat) for seat in seen.standing.missing],
                    "answered": [name(seat) for seat in sorted(seen.held)],
                    "unanswered": {name(s): str(e) for s, e in sorted(seen.failed.items())},
                    "spellings": list(seen.backup.spellings),
                    "leaving": max((held.leaving for held in seen.held.values()), default=0),
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
                for seen in looks
            ],
        }

    def _status_text(self, wallet: Wallet, looks: list[ownership.Look]) -> None:
        roster, now = wallet.roster, wallet.now()
        terminal.emit(f"{roster.name}: {leaflet.phrase(roster)}", False)
        for claim in wallet.folder.state.claims:
            if not claim.outcome:
                started = terminal.human_time(claim.started)
                terminal.emit(
                    f"a recovery begun on {started} goes on: holdfast wallet resume", False
                )
        if not looks:
            terminal.emit("nothing is backed up yet: holdfast wallet backup", False)
        for seen in looks:
            terminal.emit(f"{seen.backup.title}: {seen.standing.sentence}", False)
            for seat, error in sorted(seen.failed.items()):
                terminal.emit(f"  {roster.named(seat)}: {error}", False)
            leaving = max((held.leaving for held in seen.held.values()), default=0)
            if leaving:
                when = terminal.human_time(leaving)
                terminal.emit(f"  it is erased on {when}: holdfast wallet leave --stay", False)
            for seat in ownership.erased_by(wallet, seen):
                terminal.emit(f"  {roster.named(seat)} has erased it and signed for it", False)
            for case, seats in seen.claims:
                sentence = owning.describe_claim(case, roster, seats, now)
                terminal.emit(f"  {sentence}", False)
                terminal.emit("  if that is not you: holdfast wallet veto", False)

    async def resume(self) -> int:
        """Go on with whatever is unfinished."""
        from node.wallet.returning import Returning

        wallet = self.open()
        try:
            code = await Returning(self, wallet).resume()
            if code == terminal.DONE:
                code = await self.catch_up(wallet)
            return code
        finally:
            wallet.folder.close()

    # --- owning -----------------------------------------------------------------------

    async def veto(self) -> int:
        """Object to a claim on one's own vault."""
        wallet = self.open()
        try:
            words = _words(self.options)
            found = False
            for vault_id in sorted(wallet.folder.state.backups):
                seen = await ownership.look(wallet, vault_id)
                for case, seats in seen.claims:
                    found = True
                    self.screen.say(owning.describe_claim(case, wallet.roster, seats, wallet.now()))
                    if self.confirm("Is this not you? Shall the guardians be told so?"):
                        taken = await ownership.veto(wallet, vault_id, case.claim, words)
                        self._taken(wallet, "veto", taken)
            if not found:
                raise Refused("no guardian that could be reached knows of a claim on your backups")
            return terminal.DONE
        finally:
            wallet.folder.close()

    async def check_in(self) -> int:
        """Say that the owner is alive."""
        wallet = self.open()
        try:
            for vault_id in self._vaults(wallet):
                self._taken(wallet, "check-in", await ownership.check_in(wallet, vault_id))
            return terminal.DONE
        finally:
            wallet.folder.close()

    async def leave(self) -> int:
        """Have a vault erased, in seven days; or take that back."""
        wallet = self.open()
        try:
            vault_id = wallet.choose(self.options.title)
            title = wallet.backup(vault_id).title
            if not self.options.stay and not self.confirm(
                f"In seven days no guardian can give “{title}” back any more. Go on?"
            ):
                raise Refused("nothing was changed", hint="give --yes to go on without asking")
            taken = await ownership.leave(wallet, vault_id, stay=self.options.stay)
            self._taken(wallet, "stay" if self.options.stay else "leave", taken)
            return terminal.DONE if taken else terminal.TRY_LATER
        finally:
            wallet.folder.close()

    def _vaults(self, wallet: Wallet) -> list[bytes]:
        if self.options.title:
            return [wallet.choose(self.options.title)]
        return sorted(wallet.folder.state.backups)

    def _taken(self, wallet: Wallet, what: str, taken: list[int]) -> None:
        names = [wallet.roster.named(seat) for seat in taken]
        self.emit(event=what, guardians=names)
        shown = ", ".join(names) if names else "no guardian"
        self.screen.say(f"{shown} took note ({what}).")

    async def name(self) -> int:
        """List, add or remove spellings under which a backup opens."""
        wallet = self.open()
        try:
            vault_id = wallet.choose(self.options.title)
            known = wallet.backup(vault_id).spellings
            if self.options.action == "list":
                for spelling in known:
                    shown = {"spelling": spelling} if self.options.json else spelling
                    terminal.emit(shown, self.options.json)
                return terminal.DONE
            if wallet.backup(vault_id).foreign:
                raise Refused(
                    "this backup was made by another device and has to be dealt anew first",
                    hint="run: holdfast wallet resume",
                )
            changed = self._spellings(known)
            passphrase = None
            if backup.has_passphrase(wallet, vault_id):
                passphrase = asking.ask_passphrase(self.options)
            await backup.rename(wallet, vault_id, changed, passphrase)
            return self.stands(wallet, vault_id, await backup.deposit(wallet, vault_id))
        finally:
            wallet.folder.close()

    def _spellings(self, known: tuple[str, ...]) -> tuple[str, ...]:
        named = check_spellings(asking.ask_names(self.options))
        if self.options.action == "add":
            return check_spellings((*known, *named))
        unknown = [name for name in named if name not in known]
        if unknown:
            raise Refused(
                f"the backup does not open under “{unknown[0]}”",
                hint="see: holdfast wallet name list",
            )
        left = tuple(name for name in known if name not in named)
        if not left:
            raise Refused("a backup must open under one name at least; nothing was changed")
        return left

    # --- moving -----------------------------------------------------------------------

    async def move(self) -> int:
        """Bring all vaults to a new device while the old one works."""
        wallet = self.open()
        try:
            if self.options.take:
                return await self._take(wallet)
            if self.options.to or self.options.to_file:
                return await self._send(wallet)
            line = ownership.expect_move(wallet)
            if self.options.output:
                await trio.Path(self.options.output).write_text(line + "\n")
            terminal.emit({"event": "move", "line": line} if self.options.json else line,
                          self.options.json)  # fmt: skip
            self.screen.say("Give this line to your old device: holdfast wallet move --to LINE")
            return terminal.DONE
        finally:
            wallet.folder.close()

    async def _send(self, wallet: Wallet) -> int:
        line = self.options.to or asking.read_file(self.options.to_file, 4096).decode("ascii")
        if not self.options.output:
            raise Refused("say with --output where the packed backups are to be written")
        asking.check_output(self.options)
        owner, sealed = ownership.pack_move(wallet, line)
        if not self.confirm("All backups of this wallet then belong to the new device. Go on?"):
            raise Refused("nothing was moved", hint="give --yes to go on without asking")
        asking.write_secret(self.options.output, sealed)
        taken: list[int] = []
        for vault_id in sorted(wallet.folder.state.backups):
            taken = await ownership.hand_over(wallet, vault_id, owner)
            self._taken(wallet, "handover", taken)
        self.screen.say(
            f"Bring {self.options.output} to the new device and run there: "
            f"holdfast wallet move --take {Path(self.options.output).name}"
        )
        return terminal.DONE if taken else terminal.TRY_LATER

    async def _take(self, wallet: Wallet) -> int:
        sealed = asking.read_file(self.options.take, ownership.MOVE_BYTES_MAX)
        taken = ownership.take_move(wallet, sealed)
        self.screen.say(f"{len(taken)} backups are here. They are dealt anew for this device.")
        self.options.yes = True  # whoever takes them wants them
        return await self.catch_up(wallet)

    # --- papers -----------------------------------------------------------------------

    async def leaflet(self) -> int:
        """Print or write the page that helps after a loss."""
        wallet = self.open()
        try:
            membership = wallet.folder.state.membership
            roster = wallet.roster
            assert membership is not None  # `roster` has just said so
            output = self.options.output
            if not output:
                terminal.emit(leaflet.text(roster, membership.invite), False)
                return terminal.DONE
            asking.check_output(self.options)
            draw = leaflet.svg if output.lower().endswith(".svg") else leaflet.text
            await trio.Path(output).write_text(draw(roster, membership.invite), encoding="utf-8")
            self.screen.say(f"Written to {output}. There is no secret on it.")
            return terminal.DONE
        finally:
            wallet.folder.close()

    async def transcript(self) -> int:
        """Write down what was signed in a recovery, checkable without this wallet."""
        wallet = self.open()
        try:
            if not wallet.folder.state.claims:
                raise Refused("there has been no recovery on this device")
            document = _transcript(wallet)
            if self.options.output:
                asking.check_output(self.options)
                asking.write_secret(self.options.output, (document + "\n").encode())
            else:
                terminal.emit(document, False)
            return terminal.DONE
        finally:
            wallet.folder.close()


def _words(options: argparse.Namespace) -> str:
    if not options.words_file:
        return ""
    return asking.read_file(options.words_file, 4096).decode("utf-8", "replace").strip()


def _transcript(wallet: Wallet) -> str:
    """All statements of the last recovery, as JSON: hexadecimal beside what they say."""
    membership = wallet.folder.state.membership
    claim = wallet.folder.state.claims[-1]
    codec = wallet.codec

    def shown(raw: bytes) -> dict[str, str]:
        try:
            statement: Verified = codec.verify(raw)
        except HoldfastError:
            return {"raw": raw.hex()}
        guardian = wallet.roster.by_identity(statement.by)
        by = guardian.name if guardian else "the claiming device or the owner"
        result = {"type": statement.type, "by": by, "raw": raw.hex()}
        if statement.type == "vote":
            result |= {"verdict": statement.body["verdict"], "words": statement.body["words"]}
        return result

    document = {
        "federation": wallet.roster.id.hex(),
        "roster": membership.signed.to_bytes().hex() if membership else "",
        "code": claim.code,
        "outcome": claim.outcome,
        "claim": shown(claim.raw),
        "votes": [shown(raw) for raw in claim.heard["votes"]],
        "vetoes": [shown(raw) for raw in claim.heard["vetoes"]],
        "releases": [shown(raw) for raw in claim.heard["releases"]],
        "succession": shown(claim.succession) if claim.succession else None,
    }
    return json.dumps(document, indent=2, sort_keys=True)
