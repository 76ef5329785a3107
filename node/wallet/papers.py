"""The commands `leaflet` and `transcript`: what is kept outside the wallet."""

from __future__ import annotations

import json
from typing import Any

from node import terminal
from node.wallet import asking
from node.wallet import leaflet as page
from node.wallet.acts import Acts
from node.wallet.folder import ClaimRecord
from node.wallet.session import Wallet
from protocol.errors import HoldfastError, Refused


async def leaflet(acts: Acts) -> int:
    """Print or write the page that helps after a loss. `--output` ending in .svg draws it."""
    with acts.opened() as wallet:
        roster = wallet.roster
        invite = wallet.membership.invite
        output = acts.options.output
        if not output:
            terminal.emit(page.text(roster, invite), False)
            return terminal.DONE
        asking.check_output(acts.options)
        draw = page.svg if output.lower().endswith(".svg") else page.text
        asking.write_note(output, draw(roster, invite))
        acts.screen.say(f"Written to {output}. There is no secret on it.")
        return terminal.DONE


async def transcript(acts: Acts) -> int:
    """Write down what was signed in the last recovery, checkable without this wallet."""
    with acts.opened() as wallet:
        if not wallet.folder.state.claims:
            raise Refused("there has been no recovery on this device")
        document = _transcript(wallet, wallet.folder.state.claims[-1])
        text = json.dumps(document, indent=2, sort_keys=True)
        if acts.options.output:
            asking.check_output(acts.options)
            asking.write_secret(acts.options.output, (text + "\n").encode())
        else:
            terminal.emit(text, False)
        return terminal.DONE


def _transcript(wallet: Wallet, claim: ClaimRecord) -> dict[str, Any]:
    """Every statement in hexadecimal, beside what it says."""
    heard = {
        kind: [_shown(wallet, raw) for raw in claim.heard[kind]]
        for kind in ("votes", "vetoes", "releases")
    }
    return {
        "federation": wallet.roster.id.hex(),
        "roster": wallet.membership.signed.to_bytes().hex(),
        "code": claim.code,
        "outcome": claim.outcome,
        "claim": _shown(wallet, claim.raw),
        "succession": _shown(wallet, claim.succession) if claim.succession else None,
        **heard,
    }


def _shown(wallet: Wallet, raw: bytes) -> dict[str, str]:
    try:
        statement = wallet.codec.verify(raw)
    except HoldfastError:
        return {"raw": raw.hex()}
    guardian = wallet.roster.by_identity(statement.by)
    by = guardian.name if guardian else "the claiming device, or the owner"
    shown = {"type": statement.type, "by": by, "raw": raw.hex()}
    if statement.type == "vote":
        shown |= {key: statement.body[key] for key in ("verdict", "how", "words")}
    return shown
