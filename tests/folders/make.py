"""Make the folders that a release leaves behind, to be opened by every later one.

    .venv/bin/python tests/folders/make.py 0.1.0

Runs a small federation of real nodes through a backup, a claim and its release, and keeps the
folder of one guardian and of one member's wallet under tests/folders/VERSION. Nobody's secrets
are in them. Run it once for each release, with the code of that release, and never again.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import trio

from protocol.errors import HoldfastError

HERE = Path(__file__).parent
KEPT = ("guardian.toml", "introduction", "keystore", "transport.key", "guardian.db")
SECRET = b"a key that is nobody's\n"
NAME = "Rosa Keller"


def _stage() -> ModuleType:
    found = importlib.util.spec_from_file_location("stage", HERE.parent / "attack" / "conftest.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["stage"] = module
    found.loader.exec_module(module)
    return module


async def _live(stage: ModuleType, folder: Path) -> None:
    federation = stage._make(folder, ("ada", "ben", "cleo"), 2)
    try:
        await federation.start()
        await _happen(folder, federation)
        await federation.agree()
    finally:
        federation.stop()


async def _happen(folder: Path, federation: Any) -> None:
    """What a guardian and a member live through, so that there is something to be read."""
    from node.clock import SystemClock, SystemEntropy
    from node.commands.wallet import parser, perform
    from node.transport import Tls
    from node.wallet.acts import Acts
    from node.wallet.session import Ports
    from node.workers import ThreadWorkers
    from protocol.federation import invite
    from protocol.sealing import Cost

    points = {seat: federation.endpoint(seat) for seat in federation.roster.seats}
    given = {
        "invite": invite(federation.roster.id, federation.roster, points).to_text().encode(),
        "secret": SECRET,
        "name": NAME.encode() + b"\n",
    }
    for name, content in given.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    words = ["join", "--invite-file", "invite", "--secret-file", "secret", "--name-file", "name"]
    options = parser().parse_args(
        [str(folder / word) if word in given else word for word in words]
        + ["--form", "file", "--home", str(folder / "wallet"), "--json", "--yes"]
    )
    ports = Ports(Tls(), SystemClock(), SystemEntropy(), ThreadWorkers(), Cost.TOY)
    assert await perform(Acts(options, ports)) == 0
    phone = await federation.member(NAME).claim([0, 1])
    await federation.guardians[0].ask("open", code=phone.code)
    for seat in (0, 1):
        with trio.fail_after(20):
            while True:
                try:
                    await federation.guardians[seat].ask(
                        "approve", code=phone.code, how="in person"
                    )
                    break
                except HoldfastError:
                    await trio.sleep(0.1)  # the case, or its code, is on its way
    waiting = await federation.member("Omar Haddad").claim([0])
    await federation.guardians[0].ask("open", code=waiting.code)
    await federation.guardians[0].ask("reject", case=waiting.code, words="I do not know you")


def main(version: str) -> None:
    target = HERE / version
    if target.exists():
        raise SystemExit(f"there is a folder of {version} already; it is never made again")
    stage = _stage()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        trio.run(_live, stage, folder)
        (target / "guardian").mkdir(parents=True)
        for name in KEPT:
            shutil.copy(folder / "ada" / name, target / "guardian" / name)
        shutil.copytree(folder / "wallet", target / "wallet")


if __name__ == "__main__":
    main(*sys.argv[1:])
