"""The command `holdfast`: find the verbs that are installed, run one, turn errors into codes.

A verb is an entry point of the group `holdfast.commands`, a function that takes its
arguments and returns an exit code. Only the standard library is imported here and at the top
of each verb's module, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata

GROUP = "holdfast.commands"
DONE, REFUSED, USAGE, BUG, TRY_LATER, STOPPED = 0, 1, 64, 70, 75, 130

SUMMARIES = {
    "guardian": "keep shards, check who people are, vote",
    "wallet": "join, back up, recover",
    "demo": "watch five guardians give a lost key back",
    "simulate": "run federations that do not exist",
}

Run = Callable[[list[str]], int]


def main(arguments: list[str] | None = None) -> int:
    """Run `holdfast …` and return its exit code.

    0 done, 1 refused, 64 usage, 70 a bug of ours, 75 try later, 130 stopped by Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    verbs = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help(sorted(verbs)), file=sys.stdout if given else sys.stderr)
        return DONE if given else USAGE
    if given[0] in ("-V", "--version", "version"):
        print(f"holdfast {metadata.version('holdfast')}")  # noqa: T201
        return DONE
    if given[0] not in verbs:
        print(_unknown(given[0], sorted(verbs)), file=sys.stderr)  # noqa: T201
        return USAGE
    return attempt(given, lambda: verbs[given[0]].load()(given[1:]))


def attempt(given: list[str], run: Callable[[], int]) -> int:
    """Run a command; whatever goes wrong becomes a sentence and an exit code."""
    try:
        return run()
    except SystemExit as error:  # argparse: 0 after --help, 2 after wrong usage
        return error.code if type(error.code) is int and error.code != 2 else USAGE
    except BaseException as error:
        cause = _only(error)
        if isinstance(cause, KeyboardInterrupt):
            print(file=sys.stderr)  # noqa: T201  # the ^C stands on its own line
            return STOPPED
        if isinstance(cause, BrokenPipeError):
            return _hung_up()
        if not isinstance(cause, Exception):
            raise
        return _failed(given, cause)


def _only(error: BaseException) -> BaseException:
    """The one error inside nested groups; of several, one that a person can act on."""
    while isinstance(error, BaseExceptionGroup):
        inner = error.exceptions
        stopped = [each for each in inner if isinstance(_only(each), KeyboardInterrupt)]
        error = stopped[0] if stopped else inner[0]
    return error


def _failed(given: list[str], error: Exception) -> int:
    from node import terminal
    from node.transport import Unreachable
    from protocol.errors import HoldfastError, NotEnough, NotYet

    command = " ".join(word for word in given[:2] if not word.startswith("-"))
    if isinstance(error, HoldfastError):
        terminal.fail(command, str(error), error.hint)
        later = isinstance(error, NotYet | NotEnough | Unreachable)
        return TRY_LATER if later else REFUSED
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        where = f" ({error.filename})" if error.filename else ""
        terminal.fail(command, f"the system said no: {reason.lower()}{where}")
        return REFUSED
    # The message of an error we did not foresee may hold anything, also a secret.
    place = _place(error)
    terminal.fail(
        command,
        f"this is a mistake in Holdfast, not yours: {type(error).__name__} {place}",
        "nothing that was written before is lost; report this line and what you did",
    )
    return BUG


def _place(error: BaseException) -> str:
    """Where the error arose, without its message: module and line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "somewhere"
    return f"in {trace.tb_frame.f_globals.get('__name__', '?')}, line {trace.tb_lineno}"


def _hung_up() -> int:
    """Whoever read our output has gone; the interpreter must not complain about it at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _help(verbs: list[str]) -> str:
    lines = [
        "usage: holdfast [--help] [--version] command …",
        "",
        "People you trust each keep a part of your key. Enough of them can give it back.",
        "",
        *(f"  {verb:<10} {SUMMARIES.get(verb, '')}".rstrip() for verb in verbs),
        "",
        "More about one: holdfast command --help",
    ]
    return "\n".join(lines)


def _unknown(word: str, verbs: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, verbs, n=1)
    hint = f"did you mean “{near[0]}”?" if near else f"there are: {', '.join(verbs)}"
    return f"holdfast: error: there is no command “{word}”\nholdfast: hint: {hint}"
