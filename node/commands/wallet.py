"""`holdfast wallet …`: what a member types. Here are only the options; the work is elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.wallet.acts import Acts

DAY_MS = 24 * 60 * 60 * 1000
STOPPED = 130

VERBS = {
    "join": "join a federation with an invite, and back up a new key",
    "backup": "back up recovery words, a key or a file",
    "status": "see who holds a piece and whether anybody claims it",
    "recover": "get a lost secret back, on a new device",
    "resume": "go on with what is unfinished",
    "move": "bring all backups to a new device while the old one works",
    "leave": "have a backup erased by all guardians, in seven days",
    "name": "list, add or remove spellings of your name",
    "veto": "say that a claim on your backup is not yours",
    "check-in": "say that you are alive",
    "leaflet": "print the page to keep with your papers; no secret on it",
    "transcript": "write down what was signed in the last recovery",
}


def run(arguments: list[str]) -> int:
    """Run one wallet command and return its exit code."""
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except BaseException as error:
        if _is_stop(error):
            sys.stderr.write("\nStopped. Nothing is lost; go on with: holdfast wallet resume\n")
            return STOPPED
        raise


def _run(options: argparse.Namespace) -> int:
    import trio

    from node.clock import SystemClock, SystemEntropy
    from node.transport import Tls
    from node.wallet.acts import Acts
    from node.wallet.session import Ports
    from node.workers import ThreadWorkers

    async def work() -> int:
        ports = Ports(Tls(), SystemClock(), SystemEntropy(), ThreadWorkers())
        return await perform(Acts(options, ports))

    return trio.run(work, strict_exception_groups=True)


async def perform(acts: Acts) -> int:
    """Do what the options of one call say, and return its exit code."""
    from node.wallet import acts as backing
    from node.wallet import keeping, moving, papers, returning

    verbs = {
        "join": backing.join,
        "backup": backing.back_up,
        "resume": backing.resume,
        "recover": returning.recover,
        "status": keeping.status,
        "name": keeping.name,
        "veto": keeping.veto,
        "check-in": keeping.check_in,
        "leave": keeping.leave,
        "move": moving.move,
        "leaflet": papers.leaflet,
        "transcript": papers.transcript,
    }
    return await verbs[acts.options.verb](acts)


def _is_stop(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_is_stop(each) for each in error.exceptions)
    return isinstance(error, KeyboardInterrupt)


# --- options ---------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """Return the parser of all wallet commands. Every option is long and means one thing."""
    top = argparse.ArgumentParser(
        prog="holdfast wallet",
        description="Back your keys up with people you trust, and get them back.",
        allow_abbrev=False,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="command")
    for verb, summary in VERBS.items():
        one = verbs.add_parser(verb, help=summary, description=_sentence(summary))
        one.allow_abbrev = False
        one.set_defaults(**_DEFAULTS)
        _common(one)
        for add in _OPTIONS[verb]:
            add(one)
    return top


# Every option that any verb has, so that what verbs share can look at it.
_DEFAULTS = {
    **dict.fromkeys(("invite", "invite_file", "secret_file", "form", "name_file", "output")),
    **dict.fromkeys(("passphrase_file", "card_line_file", "card_picture", "title", "hint")),
    **dict.fromkeys(("code_file", "words_file", "waiting", "to", "to_file", "take")),
    **dict.fromkeys(("no_backup", "new_key", "no_wait", "again", "near", "print"), False),
    **dict.fromkeys(("stay", "new"), False),
    "older": 0,
}


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."


def _home() -> str:
    return os.environ.get("HOLDFAST_HOME") or str(Path.home() / ".holdfast" / "wallet")


def _common(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--home",
        metavar="FOLDER",
        default=_home(),
        help="the wallet's folder (else HOLDFAST_HOME, else ~/.holdfast/wallet)",
    )
    one.add_argument("--json", action="store_true", help="data for scripts, one object a line")
    one.add_argument("--yes", action="store_true", help="ask nothing and go on")
    one.add_argument(
        "--password-file", metavar="FILE", help="a file with the wallet's own password"
    )


def _invite(one: argparse.ArgumentParser) -> None:
    way = one.add_mutually_exclusive_group()
    way.add_argument("--invite", metavar="TEXT", help="the invite, as a guardian gave it")
    way.add_argument(
        "--invite-file", metavar="FILE", help="a file with its text, or a picture of its QR"
    )


def _secret(one: argparse.ArgumentParser) -> None:
    way = one.add_mutually_exclusive_group()
    way.add_argument("--secret-file", metavar="FILE", help="what to back up, up to 1 MiB")
    way.add_argument("--new-key", action="store_true", help="make a new key of 24 words")
    one.add_argument(
        "--form",
        choices=("words", "hex", "raw", "file"),
        help="what the file holds, where it cannot be told",
    )
    one.add_argument("--title", metavar="TEXT", help="what you call this backup")
    one.add_argument(
        "--hint", metavar="TEXT", help="what guardians see beside your name, once it is claimed"
    )
    one.add_argument(
        "--card-line-file",
        metavar="FILE",
        help="one line by which guardians will know you again, such as where you met",
    )
    one.add_argument(
        "--card-picture", metavar="FILE", help="a picture of you for them, up to 256 KiB"
    )
    one.add_argument(
        "--waiting-days",
        dest="waiting",
        type=_days,
        metavar="DAYS",
        help="how long guardians wait after their votes, for you to object",
    )
    _passphrase(one)


def _days(text: str) -> int:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 3650:
        raise argparse.ArgumentTypeError(f"“{text}” is not a number of days")
    return round(days * DAY_MS)


def _names(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--name-file", metavar="FILE", help="your full name, and other spellings a line each"
    )


def _passphrase(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--passphrase-file", metavar="FILE", help="a file with the backup's passphrase"
    )


def _output(one: argparse.ArgumentParser) -> None:
    one.add_argument("--output", metavar="FILE", help="a new file to write to; never overwrites")


def _title(one: argparse.ArgumentParser) -> None:
    one.add_argument("--title", metavar="TEXT", help="which backup, where there are several")


def _join(one: argparse.ArgumentParser) -> None:
    one.add_argument("--no-backup", action="store_true", help="join, and back nothing up yet")


def _returning(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--no-wait", action="store_true", help="show the code and stop; `resume` goes on"
    )
    one.add_argument("--code-file", metavar="FILE", help="a file to write the code to")
    one.add_argument("--print", action="store_true", help="write the secret to stdout")
    one.add_argument(
        "--near", action="store_true", help="try near spellings also where a passphrase is set"
    )
    one.add_argument(
        "--older",
        type=int,
        default=0,
        metavar="N",
        help="give back what stood N versions before the newest; for when somebody had the old "
        "phone and wrote over it",
    )


def _recover(one: argparse.ArgumentParser) -> None:
    one.add_argument("--again", action="store_true", help="give up the recovery that goes on")


def _moving(one: argparse.ArgumentParser) -> None:
    way = one.add_mutually_exclusive_group()
    way.add_argument("--new", action="store_true", help="on the new device: show its line")
    way.add_argument("--to", metavar="LINE", help="on the old device: the new one's line")
    way.add_argument("--to-file", metavar="FILE", help="on the old device: a file with that line")
    way.add_argument("--take", metavar="FILE", help="on the new device: what the old one packed")


def _leaving(one: argparse.ArgumentParser) -> None:
    one.add_argument("--stay", action="store_true", help="take it back within the seven days")


def _naming(one: argparse.ArgumentParser) -> None:
    one.add_argument("action", choices=("list", "add", "remove"), help="what to do")


def _objecting(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--words-file", metavar="FILE", help="what to tell the guardians, 280 characters"
    )


_OPTIONS = {
    "join": (_invite, _join, _secret, _names, _output),
    "backup": (_secret, _names, _output),
    "status": (_title, _output),
    "recover": (_invite, _names, _passphrase, _output, _returning, _recover),
    "resume": (_names, _passphrase, _output, _returning),
    "move": (_moving, _output, _passphrase),
    "leave": (_leaving, _title),
    "name": (_naming, _names, _title, _passphrase),
    "veto": (_objecting,),
    "check-in": (_title,),
    "leaflet": (_output,),
    "transcript": (_output,),
}
