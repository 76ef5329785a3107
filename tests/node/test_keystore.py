"""A guardian's folder: what is in it, who can read it, and what a crash leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import keystore
from node.keystore import (
    FRESH_BYTES,
    SEEDS_BYTES,
    add_sealing_key,
    change_passphrase,
    create,
    create_sealed,
    drop_sealing_keys,
    find_passphrase,
    open_keystore,
    read_sealed,
    replace_sealed,
    transport_key,
    write_durably,
)
from protocol.errors import Locked, Malformed, Refused, WrongSecret
from protocol.keys import SealingKey, SigningKey
from protocol.sealing import Cost

SEEDS = bytes(i // 32 + 1 for i in range(SEEDS_BYTES))
FRESH = b"f" * FRESH_BYTES
PASSPHRASE = b"correct horse"
TOY = Cost.TOY


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "guardian"
    create(folder, PASSPHRASE, SEEDS, cost=TOY)
    return folder


def test_created(home: Path) -> None:
    """A new folder is its owner's alone and holds the keys of the seeds."""
    assert home.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in home.iterdir()) == ["keystore", "transport.key"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in home.iterdir())
    keys = open_keystore(home, PASSPHRASE)
    assert keys.identity == SigningKey(b"\1" * 32)
    assert keys.sealing == (SealingKey(b"\2" * 32),)
    assert keys.generations == (0,)
    assert transport_key(home) == SigningKey(b"\3" * 32)


def test_secrets_are_not_shown(home: Path) -> None:
    """Neither the file nor what is printed shows a seed."""
    raw = (home / "keystore").read_bytes()
    assert b"\1" * 32 not in raw
    assert b"\2" * 32 not in raw
    shown = repr(open_keystore(home, PASSPHRASE))
    assert "\\x01" not in shown
    assert "0101" not in shown


def test_production_cost(tmp_path: Path) -> None:
    """Without saying otherwise, guessing costs what libsodium recommends for people who wait."""
    create(tmp_path / "g", PASSPHRASE, SEEDS)
    assert b"interactive" in (tmp_path / "g" / "keystore").read_bytes()
    assert open_keystore(tmp_path / "g", PASSPHRASE).generations == (0,)


def test_wrong_passphrase(home: Path) -> None:
    """Another passphrase opens nothing."""
    with pytest.raises(WrongSecret, match="does not open"):
        open_keystore(home, b"incorrect horse")


def test_never_overwrites(home: Path, tmp_path: Path) -> None:
    """A folder that holds anything is refused and left alone; an empty one is taken."""
    with pytest.raises(Refused, match="already holds something"):
        create(home, b"other", bytes(SEEDS_BYTES), cost=TOY)
    assert open_keystore(home, PASSPHRASE).identity == SigningKey(b"\1" * 32)
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o755)
    create(empty, PASSPHRASE, SEEDS, cost=TOY)
    assert empty.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Refused, match="cannot be made"):
        create(tmp_path / "file", PASSPHRASE, SEEDS, cost=TOY)


def test_change_passphrase(home: Path) -> None:
    """The new passphrase opens what the old one did, and the old one opens nothing."""
    change_passphrase(home, PASSPHRASE, b"new", FRESH, cost=TOY)
    assert open_keystore(home, b"new").identity == SigningKey(b"\1" * 32)
    with pytest.raises(WrongSecret):
        open_keystore(home, PASSPHRASE)
    with pytest.raises(WrongSecret):
        change_passphrase(home, PASSPHRASE, b"newer", FRESH, cost=TOY)


def test_generations(home: Path) -> None:
    """Sealing keys are added at the end and dropped from the front; numbers never return."""
    add_sealing_key(home, PASSPHRASE, b"s" * 32, FRESH, cost=TOY)
    keys = add_sealing_key(home, PASSPHRASE, b"t" * 32, FRESH, cost=TOY)
    assert keys == open_keystore(home, PASSPHRASE)
    assert keys.generations == (0, 1, 2)
    keys = drop_sealing_keys(home, PASSPHRASE, 1, FRESH, cost=TOY)
    assert keys == open_keystore(home, PASSPHRASE)
    assert keys.generations == (1, 2)
    assert keys.sealing == (SealingKey(b"s" * 32), SealingKey(b"t" * 32))
    keys = drop_sealing_keys(home, PASSPHRASE, 99, FRESH, cost=TOY)
    assert keys.generations == (2,)


@pytest.mark.parametrize("name", ["keystore", "transport.key"])
def test_readable_by_others(home: Path, name: str) -> None:
    """A key that others on the machine can read is refused, with the way out."""
    (home / name).chmod(0o640)
    with pytest.raises(Refused, match="Other people") as caught:
        open_keystore(home, PASSPHRASE)
        transport_key(home)
    assert f"chmod 600 {home / name}" in caught.value.hint


def test_missing(tmp_path: Path) -> None:
    """A folder without keys is named in the refusal."""
    with pytest.raises(Refused, match="There is no file"):
        open_keystore(tmp_path, PASSPHRASE)
    with pytest.raises(Refused, match="There is no file"):
        transport_key(tmp_path)


@pytest.mark.parametrize("raw", [b"", b"x" * 31, b"x" * 33])
def test_damaged_transport_key(home: Path, raw: bytes) -> None:
    """A transport key of another length is damaged."""
    (home / "transport.key").write_bytes(raw)
    with pytest.raises(Malformed, match="damaged"):
        transport_key(home)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_keystore(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any damage to a keystore is noticed."""
    path = tmp_path_factory.mktemp("d") / "keystore"
    create_sealed(path, b"plain", PASSPHRASE, FRESH, cost=TOY)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises((Malformed, WrongSecret)):
        read_sealed(path, PASSPHRASE)


@pytest.mark.parametrize(
    "plain", [b"", b"\xa0", b"canary-canary", b"\xa2hidentity\x01gsealing\x80"]
)
def test_foreign_content(home: Path, plain: bytes) -> None:
    """A keystore that holds something else is of another version, and its content is not told."""
    replace_sealed(home / "keystore", plain, PASSPHRASE, FRESH, cost=TOY)
    with pytest.raises(Malformed, match="another version") as caught:
        open_keystore(home, PASSPHRASE)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_wallet_files(tmp_path: Path) -> None:
    """A wallet's files are sealed, made once, and replaced on purpose only."""
    path = tmp_path / "wallet"
    create_sealed(path, b"one", PASSPHRASE, FRESH, cost=TOY)
    with pytest.raises(Refused, match="already a file"):
        create_sealed(path, b"two", PASSPHRASE, FRESH, cost=TOY)
    assert read_sealed(path, PASSPHRASE) == b"one"
    replace_sealed(path, b"two", PASSPHRASE, b"g" * FRESH_BYTES, cost=TOY)
    assert read_sealed(path, PASSPHRASE) == b"two"


def test_wrong_amount_of_randomness(tmp_path: Path) -> None:
    """Too little randomness is an error of ours, before anything is written."""
    with pytest.raises(ValueError, match=str(SEEDS_BYTES)):
        create(tmp_path / "g", PASSPHRASE, b"", cost=TOY)
    with pytest.raises(ValueError, match=str(FRESH_BYTES)):
        create_sealed(tmp_path / "w", b"", PASSPHRASE, b"", cost=TOY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_crash_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """A write that fails half way leaves the old file, and nothing else."""
    path = tmp_path / "f"
    write_durably(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if fails == "fsync" else Path, fails, fail)
    with pytest.raises(Refused, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_order_of_a_durable_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is durable before it takes its place, and the place is made durable after."""
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(handle: int) -> None:
        steps.append("folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "content")
        sync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        steps.append("place")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_durably(tmp_path / "f", b"new")
    assert steps == ["content", "place", "folder"]


def test_leftover_and_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut left beside is cleared; file systems without hard links serve too."""
    path = tmp_path / "f"
    (tmp_path / ".f.new").write_bytes(b"half")

    def unsupported(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", unsupported)
    write_durably(path, b"one", replace=False)
    with pytest.raises(Refused, match="already a file"):
        write_durably(path, b"two", replace=False)
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_passphrase_sources(tmp_path: Path) -> None:
    """A file named by flag wins over systemd's credential, and that over asking."""
    file = tmp_path / "p"
    file.write_bytes(b"from file\n")
    (tmp_path / "passphrase").write_bytes(b"from systemd\r\n")
    systemd = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    ask = lambda: "from prompt"  # noqa: E731
    assert find_passphrase(file, environment=systemd, prompt=ask) == b"from file"
    assert find_passphrase(environment=systemd, prompt=ask) == b"from systemd"
    assert find_passphrase(environment={}, prompt=ask) == b"from prompt"
    elsewhere = {"CREDENTIALS_DIRECTORY": str(tmp_path / "none")}
    assert find_passphrase(environment=elsewhere, prompt=ask) == b"from prompt"
    with pytest.raises(Locked, match="nobody to ask"):
        find_passphrase(environment={})


def test_passphrase_forms(tmp_path: Path) -> None:
    """However a keyboard writes an accent, the passphrase is one; empty and endless are none."""
    assert find_passphrase(environment={}, prompt=lambda: "cafe\u0301") == "café".encode()
    file = tmp_path / "p"
    file.write_bytes(b"\xff\xfe\n")
    assert find_passphrase(file, environment={}) == b"\xff\xfe"
    for raw in (b"", b"\n", b"x" * 1025, b"x" * 1024 + b"\r\n\r\n"):
        file.write_bytes(raw)
        with pytest.raises(Refused, match="passphrase"):
            find_passphrase(file, environment={})
    file.write_bytes(b"x" * 1024 + b"\r\n")
    assert find_passphrase(file, environment={}) == b"x" * 1024
    with pytest.raises(Refused, match="There is no file"):
        find_passphrase(tmp_path / "none", environment={})


def test_names() -> None:
    """The folder's file names are part of what people back up."""
    assert (keystore.KEYSTORE, keystore.TRANSPORT_KEY) == ("keystore", "transport.key")
