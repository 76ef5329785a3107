"""The rules of the terminal: stdout is data, stderr is talk, secrets are neither.

1. `emit` alone writes to stdout. With `--json` it writes one object a line, keys sorted.
2. What others wrote (names, reasons, questions) cannot move the cursor: see `harmless`.
3. Secrets are asked for on the terminal itself, unseen, or come from a file that nobody
   else can read; never from an argument, which every process on the machine can see.
4. Nothing is asked twice, nothing waits for a person when there is none.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import stat
import sys
import unicodedata
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, TextIO

from protocol.errors import Refused
from protocol.limits import DAY, HOUR, MINUTE, SECOND, SECRET_BYTES_MAX

# Exit codes. Those from 64 are the names that BSD's sysexits.h gave them.
DONE: Final = 0
REFUSED: Final = 1
USAGE: Final = 64
BUG: Final = 70  # of ours
TRY_LATER: Final = 75

SECRET_TRIES: Final = 3  # at typing a new secret alike twice
BAR_CELLS: Final = 24  # of a progress line: fits beside its words on 80 columns
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CLEAR_LINE: Final = "\r\x1b[K"


# --- saying ----------------------------------------------------------------------------


def say(text: str = "") -> None:
    """Write a line, or several, to the person: to stderr, made harmless."""
    _write(sys.stderr, harmless(text) + "\n")


def show(picture: str) -> None:
    """Write our own drawing (a QR code with its colours) to the person, as it is."""
    _write(sys.stderr, picture)


def emit(value: object, as_json: bool) -> None:
    """Write data to stdout: one JSON object a line, or text that a script can read too.

    Without JSON, a mapping becomes lines of `key: value`, a list one line an item.
    """
    if as_json:
        _write(sys.stdout, json.dumps(value, sort_keys=True) + "\n")
        return
    for line in _lines(value):
        _write(sys.stdout, harmless(line) + "\n")


def fail(command: str, error: str, hint: str = "") -> None:
    """Say what went wrong and what to do next, each on a line of its own.

    Sentences are given as the errors hold them; here they lose capital and full stop.
    """
    say(f"holdfast {command}: error: {_uncapped(error)}")
    if hint:
        say(f"holdfast {command}: hint: {_uncapped(hint)}")


def harmless(text: str) -> str:
    """Return text that cannot move the cursor, colour the screen or turn its own order round.

    Line breaks and tabs stay. Control characters, and marks that reverse the direction of
    the rest of the line, are shown by their number.
    """
    return "".join(c if _is_harmless(c) else f"\\u{ord(c):04x}" for c in text)


def _is_harmless(c: str) -> bool:
    if c in "\n\t":
        return True
    # Embeddings, overrides and isolates. Left-to-right and right-to-left marks are in names.
    return unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") and not (
        "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"
    )


def _uncapped(sentence: str) -> str:
    first_word = sentence.split(" ", 1)[0]
    # A name in capitals (QR, PNG, JSON) or the word I keeps them.
    if first_word[:1].isupper() and not first_word[1:2].isupper() and first_word != "I":
        sentence = sentence[0].lower() + sentence[1:]
    return sentence.removesuffix(".")


def _lines(value: object) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {_plain(item)}" for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return [_plain(value)]


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(f"{key}={_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        # A terminal without this script: better shown by number than not at all.
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
    stream.flush()


# --- asking ----------------------------------------------------------------------------


def ask(prompt: str) -> str:
    """Return what a person answers, trimmed.

    Raises:
        Refused: input has ended: there is nobody to answer.
    """
    _write(sys.stderr, f"{harmless(prompt)} ")
    line = sys.stdin.readline()
    if not line:
        say()
        raise Refused(
            "A question was asked and nobody answered.",
            hint="Run it where you can type, or give the answer as an option; --help lists them.",
        )
    return line.strip()


def ask_secret(prompt: str) -> str:
    """Return what a person types unseen, on the terminal even when stdin is something else.

    Raises:
        Refused: there is no terminal on which it would stay unseen.
    """
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would go on in the open, after this warning.
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"{harmless(prompt)} ")
    except (getpass.GetPassWarning, EOFError, OSError):
        raise Refused(
            "A secret was asked for, and there is no terminal to type it on unseen.",
            hint="Run it in a terminal, or give the secret in a file; --help names the option.",
        ) from None


def ask_twice(prompt: str) -> str:
    """Return a new secret that was typed alike twice, and is not empty.

    Raises:
        Refused: it was not alike in `SECRET_TRIES` tries, or there is no terminal.
    """
    for _ in range(SECRET_TRIES):
        secret = ask_secret(prompt)
        if not secret:
            say("Nothing was typed.")
        elif secret == ask_secret("The same again:"):
            return secret
        else:
            say("The two were not alike.")
    raise Refused(
        f"The secret was not typed alike twice in {SECRET_TRIES} tries. Nothing was changed.",
        hint="Begin again, and write it down first.",
    )


def confirm(prompt: str, yes: bool) -> bool:
    """Tell whether a person agrees: `yes` (the option) agrees at once, anything but y does not.

    Raises:
        Refused: input has ended: there is nobody to answer.
    """
    return yes or ask(f"{prompt} [y/N]").lower() in ("y", "yes")


def read_secret_file(path: str | Path) -> bytes:
    """Return the bytes of a file that only its owner can read, less one line break at its end.

    Raises:
        Refused: it cannot be read, is over `SECRET_BYTES_MAX`, or others could read it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            # Of the file that was opened: the name may point elsewhere by now.
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO) and os.name == "posix":
                raise Refused(
                    f"Others on this machine can read or change {path}, so what is in it may be "
                    "no secret any more. It was not used.",
                    hint=f"If it still is one: chmod 600 {path}",
                )
            data = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise Refused(f"The file {path} cannot be read: {_reason(error)}.") from None
    if len(data) > SECRET_BYTES_MAX:
        raise Refused(
            f"The file {path} is larger than {human_size(SECRET_BYTES_MAX)}, the most that a "
            "secret may have.",
            hint="Keep the file itself elsewhere, encrypted, and give its password here.",
        )
    return data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data


def _reason(error: OSError) -> str:
    return (error.strerror or "the system gives no reason").lower()


# --- waiting ---------------------------------------------------------------------------


class Progress:
    """One line on stderr that shows how far long work is, and is gone when it is done.

    Silent where stderr is not a terminal. Use it with `with`.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = harmless(what)
        self._total = max(total, 1)
        self._shown = ""
        self._visible = sys.stderr.isatty()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of the total is done; cheap to call for every single item."""
        if not self._visible:
            return
        part = min(max(done, 0), self._total)
        cells = BAR_CELLS * part // self._total
        bar = "█" * cells + "░" * (BAR_CELLS - cells)
        line = f"{self._what} {bar} {100 * part // self._total:3d} %"
        line += f"  {harmless(note)}" if note else ""
        # A line that wraps could not be cleared again.
        line = line[: shutil.get_terminal_size().columns - 1]
        if line != self._shown:
            self._shown = line
            _write(sys.stderr, _CLEAR_LINE + line)

    def __enter__(self) -> Progress:
        self.update(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            _write(sys.stderr, _CLEAR_LINE)


# --- numbers for people ----------------------------------------------------------------


def human_duration(ms: int) -> str:
    """Return a duration in its two largest units, rounded down: `2 days 3 hours`."""
    if ms < 0:
        return f"minus {human_duration(-ms)}"
    if ms < SECOND:
        return "no time" if ms == 0 else "less than a second"
    units = (("day", DAY), ("hour", HOUR), ("minute", MINUTE), ("second", SECOND))
    at = next(i for i, (_, length) in enumerate(units) if ms >= length)
    parts = []
    for name, length in units[at : at + 2]:
        count, ms = divmod(ms, length)
        if count:
            parts.append(f"{count} {name}" if count == 1 else f"{count} {name}s")
    return " ".join(parts)


def human_size(size: int) -> str:
    """Return a number of bytes with one decimal, rounded down: `1.5 MiB`."""
    if size < 1024:
        return "1 byte" if size == 1 else f"{size} bytes"
    unit = min((size.bit_length() - 1) // 10, 4)
    tenths = size * 10 >> (10 * unit)
    name = ("KiB", "MiB", "GiB", "TiB")[unit - 1]
    return f"{tenths // 10} {name}" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10} {name}"


def human_time(ms: int) -> str:
    """Return milliseconds since 1970 as a local date: `22 Nov 2026, 16:14`.

    In English and to the minute, whatever the locale: it is read aloud on the telephone.
    """
    try:
        local = (_EPOCH + timedelta(milliseconds=ms)).astimezone()
    except (OverflowError, ValueError, OSError):
        return "a time beyond any calendar"
    return f"{local.day} {_MONTHS[local.month - 1]} {local.year}, {local:%H:%M}"
