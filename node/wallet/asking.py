"""Get from files or from the person what a wallet needs to know: secrets, names, the invite.

Nothing secret is ever an argument. What a file gives is not asked for; where nobody can be
asked, the refusal names the option.
"""

from __future__ import annotations

import argparse
import stat
import sys
import unicodedata
from pathlib import Path
from typing import Final

from node import terminal, words
from node.keystore import write_durably
from node.ports import Entropy
from node.wallet import folder
from node.wallet.folder import Folder
from protocol.errors import Refused, WrongSecret
from protocol.federation import Invite
from protocol.limits import PICTURE_BYTES_MAX, SECRET_BYTES_MAX
from protocol.wallet.joining import read_any_invite
from protocol.wallet.preparing import check_passphrase, check_spellings

NEW_KEY_BYTES: Final = 32  # 24 words
HEX_KEY_DIGITS: Final = (32, 48, 64, 128)  # keys of 128, 192, 256 and 512 bits
RAW_KEY_BYTES: Final = (16, 24, 32, 64)
TRIES: Final = 3
INVITE_PICTURE_BYTES_MAX: Final = 32 * 1024 * 1024  # what a phone's camera makes of a QR
INVITE_TEXT_BYTES_MAX: Final = 16 * 1024


def is_interactive(options: argparse.Namespace) -> bool:
    """Whether there is a person who can be asked and wants to be."""
    return sys.stdin.isatty() and not options.json and not options.yes


def read_file(path: str, limit: int) -> bytes:
    """Return the bytes of a file exactly. Raises `Refused` when it cannot be read or is large."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        reason = (error.strerror or "the system gives no reason").lower()
        raise Refused(f"the file {path} cannot be read: {reason}") from error
    if len(data) > limit:
        raise Refused(
            f"the file {path} is larger than {terminal.human_size(limit)}, the most there may be"
        )
    return data


# --- the wallet's own password ---------------------------------------------------------


def open_wallet(options: argparse.Namespace, entropy: Entropy) -> Folder:
    """Open the wallet folder with its password, which is asked for when it has one."""
    home = Path(options.home)
    if options.password_file:
        return folder.open_folder(home, _password_file(options), entropy)
    try:
        return folder.open_folder(home, b"", entropy)
    except WrongSecret:
        if not is_interactive(options):
            raise Refused(
                "this wallet has a password, and there is nobody to ask for it",
                hint="give it with --password-file",
            ) from None
    for _ in range(TRIES - 1):
        try:
            return folder.open_folder(home, _nfc(terminal.ask_secret("Wallet password:")), entropy)
        except WrongSecret as error:
            terminal.say(str(error).capitalize() + ".")
    return folder.open_folder(home, _nfc(terminal.ask_secret("Wallet password:")), entropy)


def create_wallet(options: argparse.Namespace, entropy: Entropy) -> Folder:
    """Make the wallet folder, with a password if the person wants one."""
    home = Path(options.home)
    password = b""
    if folder.exists(home):
        raise Refused(
            f"there is a wallet in {home} already; nothing in it was changed",
            hint="choose another folder with --home, or go on with: holdfast wallet status",
        )
    if options.password_file:
        password = _password_file(options)
    elif is_interactive(options):
        terminal.say("This wallet keeps its keys in a folder on this device.")
        if terminal.confirm("Shall it have a password?", False):
            password = _nfc(terminal.ask_twice("Wallet password:"))
    if not password:
        terminal.say(
            f"The wallet has no password: only the permissions of {home} protect it. "
            "Whoever can read your files can read it."
        )
    return folder.create(home, password, entropy)


def _password_file(options: argparse.Namespace) -> bytes:
    raw = terminal.read_secret_file(options.password_file)
    try:
        return _nfc(raw.decode())
    except UnicodeDecodeError:
        return raw


def _nfc(text: str) -> bytes:
    return unicodedata.normalize("NFC", text).encode()


# --- the invite ------------------------------------------------------------------------


def ask_invite(options: argparse.Namespace) -> Invite:
    """Return the invite: from the option, a file with its text or a picture of its QR, or asked."""
    if options.invite:
        return read_any_invite(options.invite)
    if options.invite_file:
        return _invite_file(options.invite_file)
    answer = terminal.ask("Paste the invite, or give the path of a picture of its QR:")
    if answer and len(answer) < 1024 and Path(answer).expanduser().is_file():
        return _invite_file(str(Path(answer).expanduser()))
    return read_any_invite(answer)


def _invite_file(path: str) -> Invite:
    data = read_file(path, INVITE_PICTURE_BYTES_MAX)
    try:
        if len(data) <= INVITE_TEXT_BYTES_MAX:
            return read_any_invite(data.decode())
    except UnicodeDecodeError:
        pass  # then it is a picture
    from node import qr

    return read_any_invite(qr.read_picture(data))


# --- names and passphrases -------------------------------------------------------------


def ask_names(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the full name, and other spellings if there are any: typed twice, or from a file."""
    if options.name_file:
        names = _name_lines(options.name_file)
        check_spellings(names)
        return names
    terminal.say("Your guardians find this backup under your full name, as in your passport.")
    for _ in range(TRIES):
        name = terminal.ask("Your full name:")
        if not is_interactive(options):
            check_spellings([name])
            return (name,)
        again = terminal.ask("The same again:")
        if name and check_spellings([name]) == check_spellings([again]):
            return (name,)
        terminal.say("The two were not the same name.")
    raise Refused(f"the name was not typed alike twice in {TRIES} tries; nothing was changed")


def ask_name(options: argparse.Namespace) -> str:
    """Return one full name, for a recovery."""
    if options.name_file:
        return _name_lines(options.name_file)[0]
    return terminal.ask("Your full name, as you gave it when you backed up:")


def _name_lines(path: str) -> tuple[str, ...]:
    raw = read_file(path, 16 * 1024)
    try:
        lines = tuple(line.strip() for line in raw.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise Refused(f"the file {path} is not text in UTF-8") from error
    names = tuple(line for line in lines if line)
    if not names:
        raise Refused(f"there is no name in the file {path}")
    return names


def ask_new_passphrase(options: argparse.Namespace) -> str | None:
    """Return the passphrase that is to be mixed in, or None."""
    if options.passphrase_file:
        return passphrase_file(options)
    if not is_interactive(options):
        return None
    terminal.say(
        "A passphrase is optional. With it, not even all guardians together can open the "
        "backup; without it, neither can you or your heirs."
    )
    if not terminal.confirm("Shall there be one?", False):
        return None
    return checked_passphrase(terminal.ask_twice("Passphrase:"))


def ask_passphrase(options: argparse.Namespace, what: str = "Passphrase of the backup:") -> str:
    """Return the passphrase of a backup that has one."""
    if options.passphrase_file:
        return passphrase_file(options)
    if not is_interactive(options):
        raise Refused(
            "this backup was made with a passphrase, and there is nobody to ask for it",
            hint="give it with --passphrase-file",
        )
    return checked_passphrase(terminal.ask_secret(what))


def passphrase_file(options: argparse.Namespace) -> str:
    raw = terminal.read_secret_file(options.passphrase_file)
    try:
        return checked_passphrase(raw.decode())
    except UnicodeDecodeError as error:
        raise Refused("the passphrase in the file is not text in UTF-8") from error


def checked_passphrase(text: str) -> str:
    """Return a passphrase as it is mixed in: in Unicode's NFC. Raises `Refused` when empty."""
    text = unicodedata.normalize("NFC", text)
    check_passphrase(text)
    return text


# --- the secret ------------------------------------------------------------------------


def ask_secret(options: argparse.Namespace, entropy: Entropy) -> tuple[str, bytes, str]:
    """Return form, bytes and file name of what is to be backed up.

    The bytes are those of the file, to the last one. A new key is 24 words.
    """
    if options.secret_file:
        return _secret_file(options.secret_file, options.form)
    if is_interactive(options) and not options.new_key:
        terminal.say("What shall be backed up?")
        terminal.say("  Enter         a new key, made here")
        terminal.say("  words         12 or 24 recovery words that you have")
        terminal.say("  a file's path a key file, or any file up to 1 MiB")
        answer = terminal.ask("Your choice:")
        if answer == "words":
            return "words", words.check_words(_ask_words()).encode(), ""
        if answer:
            return _secret_file(str(Path(answer).expanduser()), options.form)
    return "words", words.to_words(entropy.draw(NEW_KEY_BYTES)).encode(), ""


def _ask_words() -> str:
    return terminal.ask_secret("Your words, in their order (they stay unseen):")


def _secret_file(path: str, form: str | None) -> tuple[str, bytes, str]:
    data = read_file(path, SECRET_BYTES_MAX)
    if not data:
        raise Refused(f"the file {path} is empty, so there is nothing to back up")
    mode = Path(path).stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        terminal.say(f"Note: others on this machine can read {path}.")
    found = form or _form_of(data)
    if found == "words":
        words.check_words(_decoded(data, path))
    elif found == "hex" and not _is_hex(data):
        raise Refused(f"the file {path} does not hold a key in hexadecimal digits")
    return found, data, Path(path).name


def _form_of(data: bytes) -> str:
    if _is_hex(data):
        return "hex"
    if len(data) in RAW_KEY_BYTES:
        return "raw"
    try:
        words.check_words(data.decode())
    except (UnicodeDecodeError, Refused):
        return "file"
    return "words"


def _is_hex(data: bytes) -> bool:
    digits = data.strip()
    known = frozenset(b"0123456789abcdefABCDEF")
    return len(digits) in HEX_KEY_DIGITS and all(digit in known for digit in digits)


def _decoded(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"the file {path} is not text, so it cannot hold words") from error


def read_card(options: argparse.Namespace) -> tuple[str, bytes]:
    """Return the line and the picture of the verification card, empty where there is none."""
    line = ""
    if options.card_line_file:
        raw = read_file(options.card_line_file, 4096)
        line = " ".join(_decoded(raw, options.card_line_file).split())
        if len(line) > 280:
            raise Refused(f"the card's line has {len(line)} characters; 280 are possible")
    picture = read_file(options.card_picture, PICTURE_BYTES_MAX) if options.card_picture else b""
    return line, picture


def write_secret(path: str, secret: bytes) -> None:
    """Write a secret to a new file that only its owner can read. Never overwrites."""
    write_durably(Path(path), secret, replace=False)


def write_note(path: str, text: str) -> None:
    """Write what is no secret, in the place of what is there."""
    write_durably(Path(path), text.encode())


def check_output(options: argparse.Namespace) -> None:
    """Refuse at once an output file that is there already, or cannot be made."""
    if not options.output:
        return
    path = Path(options.output)
    if path.exists():
        raise Refused(
            f"there is already a file {path}, and it was not changed",
            hint="choose another name for --output",
        )
    if not path.absolute().parent.is_dir():
        raise Refused(f"there is no folder {path.absolute().parent} for the output")
