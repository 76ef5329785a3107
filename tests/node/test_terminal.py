"""The rules of the terminal: what goes where, what is asked how, what a person reads."""

from __future__ import annotations

import getpass
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import terminal
from protocol.errors import Refused
from protocol.limits import DAY, HOUR, MINUTE, SECOND, SECRET_BYTES_MAX


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def utc_plus_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_data_and_talk_never_mix(capsys: pytest.CaptureFixture[str]) -> None:
    """What a script reads is on stdout, what a person reads is on stderr."""
    terminal.say("Five guardians answered.")
    terminal.emit({"guardians": 5, "done": True, "note": None}, as_json=False)
    terminal.emit(["Anna", "Berta"], as_json=False)
    terminal.emit({"held": [{"by": "Anna", "pieces": 2}]}, as_json=False)
    terminal.emit("holdfast1", as_json=False)
    terminal.show("\x1b[0m█\n")

    out, err = capsys.readouterr()

    assert out == (
        "guardians: 5\ndone: yes\nnote: -\nAnna\nBerta\nheld: by=Anna, pieces=2\nholdfast1\n"
    )
    assert err == "Five guardians answered.\n\x1b[0m█\n"


def test_json_is_one_sorted_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Every JSON object is a line of its own, keys sorted, in plain ASCII."""
    value = {"b": "Łukasz\x1b[2J\u2028\ud800", "a": [1, None, True]}
    terminal.emit(value, as_json=True)
    terminal.emit([], as_json=True)

    first, second, rest = capsys.readouterr().out.split("\n")

    assert json.loads(first) == value
    assert first.startswith('{"a": [1, null, true], "b": "')
    assert first.isascii()
    assert (second, rest) == ("[]", "")


def test_a_failure_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Sentences lose their capital and full stop; names in capitals keep theirs."""
    terminal.fail("wallet", "There are 2 QR codes. Cut one off.", "QR codes need light.")
    terminal.fail("guardian run", "a folder is missing")

    assert capsys.readouterr().err == (
        "holdfast wallet: error: there are 2 QR codes. Cut one off\n"
        "holdfast wallet: hint: QR codes need light\n"
        "holdfast guardian run: error: a folder is missing\n"
    )


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_nothing_written_by_others_moves_the_cursor(text: str) -> None:
    """Whatever is in a name or a reason, the terminal gets letters, breaks and tabs."""
    shown = terminal.harmless(text)
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert not any(c in shown for c in "\u202e\u2066\u2028\u2029")
    shown.encode()
    assert terminal.harmless(shown) == shown


def test_letters_of_every_script_stay() -> None:
    """Names are shown as they are, with their own marks of direction."""
    for name in ("Łukasz Żółć", "김민준", "עדה\u200f", "می\u200cخواهم", "a\tb\nc"):
        assert terminal.harmless(name) == name
    assert terminal.harmless("\x1b[2Jx\u202ey\r") == "\\u001b[2Jx\\u202ey\\u000d"


def test_a_terminal_without_the_script_shows_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message with letters the terminal does not have is still shown."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    terminal.say("Żółć")
    assert raw.getvalue() == b"\\u017b\\xf3\\u0142\\u0107\n"


def test_questions_are_talk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A question goes to stderr, so that output can be piped; no answer is a refusal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(" Anna \n\ny\nYES\nno\n\n"))
    assert terminal.ask("Your name:") == "Anna"
    assert terminal.ask("And then:") == ""
    assert terminal.confirm("Really?", yes=False)
    assert terminal.confirm("Really?", yes=False)
    assert not terminal.confirm("Really?", yes=False)
    assert not terminal.confirm("Really?", yes=False)
    assert terminal.confirm("Really?", yes=True)
    with pytest.raises(Refused, match="nobody answered"):
        terminal.ask("Still there?")

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Your name: And then: Really? [y/N] ")


def test_a_secret_is_never_asked_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where typing would be seen, the secret is not asked for at all."""

    def in_the_open(prompt: str) -> str:
        warnings.warn("Can not control echo", getpass.GetPassWarning, stacklevel=2)
        return "seen"

    monkeypatch.setattr(getpass, "getpass", in_the_open)
    with pytest.raises(Refused, match="no terminal"):
        terminal.ask_secret("Passphrase:")


def test_a_new_secret_is_typed_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip is told and asked again, three times; the secret itself is never shown."""
    typed = iter(["", "canary", "canarx", "canary", "canary", *("a", "b") * 3])
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(typed))

    assert terminal.ask_twice("New passphrase:") == "canary"
    with pytest.raises(Refused, match="3 tries") as caught:
        terminal.ask_twice("New passphrase:")

    said = "".join(capsys.readouterr()) + str(caught.value)
    assert "not alike" in said
    assert "Nothing was typed" in said
    assert "canar" not in said


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b"secret", b"secret"),
        (b"secret\r", b"secret\r"),
        (b"two\nlines\n\n", b"two\nlines\n"),
        (b"", b""),
    ],
)
def test_a_secret_file_loses_one_line_break(tmp_path: Path, written: bytes, read: bytes) -> None:
    """The line break that an editor adds is no part of the secret; all else is."""
    path = tmp_path / "secret"
    path.write_bytes(written)
    path.chmod(0o600)
    assert terminal.read_secret_file(path) == read
    assert terminal.read_secret_file(str(path)) == read


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o777])
def test_a_file_that_others_can_read_is_no_secret(tmp_path: Path, mode: int) -> None:
    """It is refused with the command that closes it."""
    path = tmp_path / "secret"
    path.write_bytes(b"canary")
    path.chmod(mode)
    with pytest.raises(Refused, match="may be no secret any more") as caught:
        terminal.read_secret_file(path)
    assert "chmod 600" in caught.value.hint
    assert "canary" not in str(caught.value)


def test_files_that_cannot_be_a_secret_are_refused(tmp_path: Path) -> None:
    """Too large, missing and a folder: each with a sentence."""
    path = tmp_path / "secret"
    path.write_bytes(bytes(SECRET_BYTES_MAX))
    path.chmod(0o600)
    assert len(terminal.read_secret_file(path)) == SECRET_BYTES_MAX
    path.write_bytes(bytes(SECRET_BYTES_MAX + 1))
    with pytest.raises(Refused, match="larger than 1 MiB"):
        terminal.read_secret_file(path)
    with pytest.raises(Refused, match="no such file"):
        terminal.read_secret_file(tmp_path / "missing")
    with pytest.raises(Refused, match="is a directory"):
        terminal.read_secret_file(tmp_path)


def test_a_secret_comes_through_a_pipe() -> None:
    """A shell's `<(pass show …)` is readable by its owner only, and is read."""
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    os.close(writing)
    try:
        assert terminal.read_secret_file(f"/dev/fd/{reading}") == b"secret"
    finally:
        os.close(reading)


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal one line fills and goes; in a log file there is nothing."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "80")
    with terminal.Progress("Trying spellings", 200) as progress:
        for done in range(201):
            progress.update(done)
        progress.update(500, "Anna\x1b[2J")
        progress.update(200, "x" * 200)
    lines = screen.getvalue().split("\r\x1b[K")
    assert lines[1] == "Trying spellings " + "░" * 24 + "   0 %"
    assert len(lines[-2]) == 79
    assert lines[-3] == "Trying spellings " + "█" * 24 + " 100 %  Anna\\u001b[2J"
    assert lines[-1] == ""
    assert len(lines) < 130

    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with terminal.Progress("Trying spellings", 0) as progress:
        progress.update(1)
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "no time"),
        (999, "less than a second"),
        (SECOND, "1 second"),
        (59_999, "59 seconds"),
        (MINUTE + SECOND, "1 minute 1 second"),
        (HOUR, "1 hour"),
        (DAY - 1, "23 hours 59 minutes"),
        (2 * DAY + 3 * HOUR + 59 * MINUTE, "2 days 3 hours"),
        (DAY + MINUTE, "1 day"),
        (30 * DAY, "30 days"),
        (-HOUR, "minus 1 hour"),
    ],
)
def test_durations_in_words(ms: int, text: str) -> None:
    """A person reads days and hours, never more than they would say."""
    assert terminal.human_duration(ms) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1024 * 1024 - 1, "1023.9 KiB"),
        (1024**2, "1 MiB"),
        (5 * 1024**3 + 1024**3 // 4, "5.2 GiB"),
        (1024**6, "1048576 TiB"),
    ],
)
def test_sizes_in_words(size: int, text: str) -> None:
    """A person reads a short number with its unit."""
    assert terminal.human_size(size) == text


def test_times_are_local(utc_plus_two: None) -> None:
    """A person reads their own clock, in one wording everywhere."""
    assert terminal.human_time(0) == "1 Jan 1970, 02:00"
    assert terminal.human_time(1_795_364_099_999) == "22 Nov 2026, 18:14"
    assert terminal.human_time(2**63) == "a time beyond any calendar"
