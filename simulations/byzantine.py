"""Guardians that lie. Each keeps to the protocol but for one thing, named by its class.

`python -m simulations.byzantine --home FOLDER --passphrase-file FILE` runs a real node that
releases a false share: what an honest wallet must catch, and name.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import trio

from protocol import sharing, vault
from protocol.casework import Casework
from protocol.contract import Core, Ledger, Verified
from protocol.custody import DealRow, Settings
from protocol.guardian import GuardianCore, Keys, open_core
from protocol.policy import policy_of


class FalseShare(Casework):
    """Releases a share that is off by one, on every vault but a rehearsal's."""

    def own_piece(self, deal: Verified, row: DealRow) -> vault.Piece | None:
        piece = super().own_piece(deal, row)
        if piece is None or policy_of(deal).rehearsal:
            return piece
        share = (sharing.decode_scalar(piece.share) + 1) % sharing.L
        return replace(piece, share=sharing.encode_scalar(share))


def open_liar(ledger: Ledger, me: Verified, keys: Keys | None, settings: Settings) -> Core:
    """Build the core of a guardian that releases false shares."""
    core = open_core(ledger, me, keys, settings)
    if isinstance(core, GuardianCore):
        core.casework.__class__ = FalseShare
    return core


def main() -> None:
    from node.config import read_config
    from node.daemon import CONFIG, Daemon

    parser = argparse.ArgumentParser(description="Run a guardian's node that lies.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--passphrase-file", type=Path, required=True)
    options = parser.parse_args()
    daemon = Daemon(
        options.home, read_config(options.home / CONFIG, flags={}, environment={}),
        open_core=open_liar,
    )  # fmt: skip
    daemon.unlock(options.passphrase_file.read_bytes().rstrip(b"\n"))
    trio.run(daemon.run, sys.stderr)


if __name__ == "__main__":
    main()
