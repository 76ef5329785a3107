"""The wallet's folder: encrypted, durable, for one process at a time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from node.wallet import folder
from node.wallet.folder import ClaimRecord, Folder
from node.wallet.screen import Screen, large
from protocol.errors import Locked, Malformed, Refused, WrongSecret
from protocol.wallet.backing_up import Backup


class Draw:
    def draw(self, size: int) -> bytes:
        return os.urandom(size)


CANARY = b"a secret that must not show 0123"
BACKUP = Backup(
    "key", CANARY, b"deal", CANARY, b"pepper", b"version", ("rosa keller",), b"label",
    {0: b"box"}, {0: b"receipt"}, (0,), (), 3, b"settled", (0,), True,
)  # fmt: skip


def created(home: Path, password: bytes = b"") -> Folder:
    return folder.create(home, password, Draw())


def filled(home: Path, password: bytes = b"") -> None:
    wallet = created(home, password)
    wallet.state.backups[bytes(32)] = BACKUP
    wallet.state.claims.append(ClaimRecord(b"raw", "1" * 15, CANARY, CANARY, "Rosa Keller", 5))
    wallet.put("part", CANARY * 1000)
    wallet.save()
    wallet.close()


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    """Everything of state and parts is there after a restart."""
    filled(tmp_path / "w")
    again = folder.open_folder(tmp_path / "w", b"", Draw())
    assert again.state.backups == {bytes(32): BACKUP}
    assert again.state.claims[0].name == "Rosa Keller"
    assert again.part("part") == CANARY * 1000
    again.drop("part")
    assert not again.has("part")
    again.close()


def test_nothing_in_the_folder_is_readable(tmp_path: Path) -> None:
    """Neither keys nor names lie in any file, and only the owner may open them."""
    filled(tmp_path / "w", b"password")
    for path in sorted((tmp_path / "w").rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        if path.is_file():
            raw = path.read_bytes()
            assert CANARY not in raw
            assert b"osa" not in raw


def test_another_password_opens_nothing(tmp_path: Path) -> None:
    """A wrong password is said to be wrong, and the right one still opens."""
    filled(tmp_path / "w", b"password")
    with pytest.raises(WrongSecret, match="nothing was changed"):
        folder.open_folder(tmp_path / "w", b"passwort", Draw())
    folder.open_folder(tmp_path / "w", b"password", Draw()).close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A second opener is refused until the first lets go."""
    wallet = created(tmp_path / "w")
    with pytest.raises(Locked, match="another window"):
        folder.open_folder(tmp_path / "w", b"", Draw())
    wallet.close()
    folder.open_folder(tmp_path / "w", b"", Draw()).close()


def test_a_wallet_is_never_overwritten(tmp_path: Path) -> None:
    """A folder with a wallet, or with anything else, is left as it is."""
    created(tmp_path / "w").close()
    with pytest.raises(Refused, match="already"):
        created(tmp_path / "w")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter").write_text("dear")
    with pytest.raises(Refused, match="letter"):
        created(tmp_path / "other")


def test_damage_is_told_from_a_wrong_password(tmp_path: Path) -> None:
    """A state that does not open under the right key is damaged, and says which file."""
    filled(tmp_path / "w")
    state = tmp_path / "w" / "state"
    raw = bytearray(state.read_bytes())
    raw[-1] ^= 1
    state.write_bytes(bytes(raw))
    with pytest.raises(Malformed, match="state"):
        folder.open_folder(tmp_path / "w", b"", Draw())
    state.unlink()
    with pytest.raises(Malformed, match="missing"):
        folder.open_folder(tmp_path / "w", b"", Draw())


def test_a_cut_in_the_middle_of_making_leaves_room(tmp_path: Path) -> None:
    """A folder without its keystore, as a power cut leaves it, may be taken again."""
    created(tmp_path / "w").close()
    (tmp_path / "w" / "keystore").unlink()
    created(tmp_path / "w").close()
    with pytest.raises(Refused, match="no wallet"):
        folder.open_folder(tmp_path / "none", b"", Draw())


def test_nothing_secret_shows_when_printed(tmp_path: Path) -> None:
    """State, claims and folder print without what they hold."""
    filled(tmp_path / "w")
    wallet = folder.open_folder(tmp_path / "w", b"", Draw())
    shown = repr(wallet) + repr(wallet.state) + repr(wallet.state.claims) + repr(BACKUP)
    assert "must not show" not in shown
    assert "Rosa" not in shown
    wallet.close()


def test_the_code_is_drawn_large_and_within_a_terminal() -> None:
    """Fifteen digits fit eighty columns, five lines high, no two digits alike."""
    lines = large("012345678901234").splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) <= 80
    drawn = {tuple(line[3:].ljust(3) for line in large(d * 15).splitlines()) for d in "0123456789"}
    assert len(drawn) == 10


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout holds the events and stderr nothing."""
    screen = Screen(True)
    screen.tell({"event": "code", "code": "1" * 15})
    screen.say("talk")
    shown = capsys.readouterr()
    assert shown.out == '{"code": "111111111111111", "event": "code"}\n'
    assert shown.err == ""


def test_a_hostile_guardian_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """What guardians write is shown, and does nothing to the terminal."""
    Screen(False).tell(
        {"event": "vote", "guardian": "eve", "verdict": "ask", "how": "", "words": "\x1b[2Jwho?"}
    )
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "who?" in shown
