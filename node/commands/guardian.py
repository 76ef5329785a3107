"""`holdfast guardian …`: what a guardian types. Here are only the options; see `guardian_*`."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

DEFAULT_LISTEN = "127.0.0.1:7001"
HOW = ("in person", "by video", "other")
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(\d{1,6})([smhd])")

VERBS = {
    "init": "make a folder with your keys and your introduction",
    "introduce": "print the line that you hand to the organiser",
    "draft": "organise: draft a federation, or see who has signed the draft",
    "accept": "look at the draft, compare its eight words, and sign",
    "run": "run your node; it has to stay on",
    "rehearse": "deal a dummy key to all guardians and get it back",
    "invite": "show the invite that members scan",
    "claims": "list the cases, and how many claims wait for their code",
    "open": "open a claim with the code that a person reads to you",
    "show": "look at a case once more",
    "approve": "vote for giving a key back to the person before you",
    "reject": "vote against it, with your reason",
    "ask": "ask the person who claims something",
    "status": "see how your node and the federation are",
    "lock": "make your node forget its keys; it goes on relaying",
    "unlock": "give your node its passphrase",
    "passphrase": "change the passphrase of your keys",
    "admit": "let a member in, by the number their wallet shows",
    "transcript": "write down who agreed to what in a case, and when",
    "stop": "end your node in good order",
}


def run(arguments: list[str]) -> int:
    """Run one guardian command and return its exit code."""
    options = parser().parse_args(arguments)
    from node.commands.guardian_acts import perform

    return perform(options)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all guardian commands. Every option is long and means one thing."""
    top = argparse.ArgumentParser(
        prog="holdfast guardian",
        description="Keep parts of other people's keys, check who people are, and vote.",
        allow_abbrev=False,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="command")
    for verb, summary in VERBS.items():
        sentence = summary[0].upper() + summary[1:] + "."
        one = verbs.add_parser(verb, help=summary, description=sentence, allow_abbrev=False)
        _common(one)
        for add in _OPTIONS.get(verb, ()):
            add(one)
    return top


def default_home() -> str:
    """The folder when no `--home` is given."""
    return os.environ.get("HOLDFAST_HOME") or str(Path.home() / ".holdfast" / "guardian")


def duration(text: str) -> int:
    """Read a duration such as 90m, 24h or 7d, or 0; in milliseconds."""
    if text.strip() == "0":
        return 0
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise argparse.ArgumentTypeError(
            f"“{text}” is not a duration; write it like 90m, 24h or 7d, or 0 for none"
        )
    return int(found[1]) * _UNITS[found[2]]


def _way(text: str) -> str:
    how = text.strip().lower().replace("-", " ")
    if how not in HOW:
        raise argparse.ArgumentTypeError(f"“{text}” is none of: {', '.join(HOW)}")
    return how


# --- options ---------------------------------------------------------------------------


def _common(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--home",
        metavar="FOLDER",
        default=None,
        help="the guardian's folder (else HOLDFAST_HOME, else ~/.holdfast/guardian)",
    )
    one.add_argument("--json", action="store_true", help="data for scripts, one object a line")
    one.add_argument("--yes", action="store_true", help="ask nothing and go on")


def _passphrase(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--passphrase-file", metavar="FILE", help="a file with the passphrase of your keys"
    )


def _init(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "name", metavar="NAME", help="the name by which members and guardians know you"
    )
    one.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=DEFAULT_LISTEN,
        help=f"where this machine waits for calls ({DEFAULT_LISTEN}); :7001 is from everywhere",
    )
    way = one.add_mutually_exclusive_group()
    way.add_argument(
        "--advertise",
        metavar="HOST:PORT",
        help="the address under which others reach you (as --listen)",
    )
    way.add_argument(
        "--dials-out-only",
        action="store_true",
        help="nobody can call this machine; it calls the others",
    )
    one.add_argument("--contact", metavar="TEXT", default="", help="how a member finds you")
    one.add_argument(
        "--language",
        metavar="CODE",
        action="append",
        default=[],
        help="a language you speak, such as en; may be given again",
    )
    one.add_argument("--hours", metavar="TEXT", default="", help="when you can be reached")


def _introduce(one: argparse.ArgumentParser) -> None:
    one.add_argument("--qr", action="store_true", help="show it as a QR code, too")


def _draft(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "introductions", metavar="LINE", nargs="*", help="introductions of the other guardians"
    )
    one.add_argument(
        "--introductions",
        dest="introductions_file",
        metavar="FILE",
        help="a file with introductions, one a line; yours is added",
    )
    one.add_argument("--name", metavar="TEXT", help="what the federation is called")
    one.add_argument("--threshold", metavar="N", type=int, help="how many give a key back")
    one.add_argument("--quorum", metavar="N", type=int, help="votes needed (as --threshold)")
    one.add_argument(
        "--waiting",
        metavar="TIME",
        type=duration,
        help="the usual waiting period after the votes: 24h, 7d, or 0 (24h)",
    )
    one.add_argument(
        "--discard", action="store_true", help="replace a draft that some have signed already"
    )


def _accept(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--call", metavar="LINE", help="the organiser's introduction, if you only dial out"
    )
    one.add_argument("--wait", action="store_true", help="wait until a draft has arrived")
    one.add_argument("--until-live", action="store_true", help="wait until all have signed")


def _run(one: argparse.ArgumentParser) -> None:
    one.add_argument("--locked", action="store_true", help="start without the passphrase")
    one.add_argument("--listen", metavar="HOST:PORT", help="listen here instead, this time")
    one.add_argument("--log", choices=("console", "json"), help="how to report, this time")


def _invite(one: argparse.ArgumentParser) -> None:
    one.add_argument("--png", metavar="FILE", help="a new file to draw the QR code in")
    one.add_argument("--svg", metavar="FILE", help="the same, to print at any size")


def _code(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "code", metavar="CODE", nargs="*", help="the fifteen digits; else they are asked for"
    )
    one.add_argument("--code-file", metavar="FILE", help="a file with the code")


def _case(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "case", metavar="CASE", nargs="+", help="its number as `claims` lists it, or its code"
    )


def _vault(one: argparse.ArgumentParser) -> None:
    one.add_argument("--vault", metavar="N", help="which vault, where there are several")


def _show(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--card", metavar="FILE", help="show the verification card; its picture goes in a new file"
    )


def _approve(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--how",
        metavar="HOW",
        type=_way,
        help=f"how you checked who it is: {', '.join(HOW)}",
    )
    one.add_argument(
        "--despite-veto",
        action="store_true",
        help="approve although the owner's old device objects",
    )


def _words(one: argparse.ArgumentParser) -> None:
    one.add_argument("--words", metavar="TEXT", help="what you say, in up to 280 characters")


def _new_passphrase(one: argparse.ArgumentParser) -> None:
    one.add_argument("--new-passphrase-file", metavar="FILE", help="a file with the new one")


def _admit(one: argparse.ArgumentParser) -> None:
    one.add_argument("number", metavar="NUMBER", nargs="+", help="the ten digits")


def _output(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--output", metavar="FILE", help="a new file; FILE.txt beside it says the same in words"
    )


_OPTIONS = {
    "init": (_init, _passphrase),
    "introduce": (_introduce,),
    "draft": (_draft,),
    "accept": (_accept,),
    "run": (_run, _passphrase),
    "rehearse": (_passphrase,),
    "invite": (_invite,),
    "open": (_code,),
    "show": (_case, _show, _vault),
    "approve": (_code, _vault, _approve, _words),
    "reject": (_case, _words),
    "ask": (_case, _words),
    "unlock": (_passphrase,),
    "passphrase": (_passphrase, _new_passphrase),
    "admit": (_admit,),
    "transcript": (_case, _output),
}
