"""The command `holdfast`: what it finds, what it says, and its exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from node import commands
from node.commands import attempt, main
from node.commands.wallet import VERBS, parser
from node.transport import Unreachable
from protocol.errors import HoldfastError, Locked, NotEnough, NotYet, Refused, WrongSecret


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` lists what is installed, on stdout."""
    assert main(["--help"]) == commands.DONE
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in ("guardian", "wallet", "demo"))


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` says name and version."""
    assert main(["--version"]) == commands.DONE
    assert capsys.readouterr().out.startswith("holdfast 0.")


def test_a_mistyped_verb_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    """`holdfast walet` is wrong usage, and says what was perhaps meant."""
    assert main(["walet"]) == commands.USAGE
    assert "did you mean “wallet”" in capsys.readouterr().err
    assert main([]) == commands.USAGE


def test_wrong_options_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown option is 64, help of a verb is 0."""
    assert main(["wallet", "status", "--nonsense"]) == commands.USAGE
    assert main(["wallet", "backup", "--help"]) == commands.DONE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("No."), 1),
        (WrongSecret("No."), 1),
        (Locked("No."), 1),
        (NotYet("No."), 75),
        (NotEnough("No."), 75),
        (Unreachable("No."), 75),
        (ExceptionGroup("of trio", [ExceptionGroup("inner", [NotYet("No.")])]), 75),
        (ValueError("a secret"), 70),
        (OSError(28, "No space left on device"), 1),
        (KeyboardInterrupt(), 130),
        (BaseExceptionGroup("of trio", [KeyboardInterrupt()]), 130),
    ],
)
def test_every_error_has_its_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused, try later, a bug of ours, stopped: scripts can tell them apart."""

    def run() -> int:
        raise error

    assert attempt(["wallet", "status"], run) == code
    assert "a secret" not in capsys.readouterr().err


def test_a_refusal_is_a_sentence_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """What happened, then what to do next, each on a line of its own."""

    def run() -> int:
        raise Refused("The file is empty.", hint="Give another.")

    attempt(["wallet", "backup"], run)
    assert capsys.readouterr().err == (
        "holdfast wallet backup: error: the file is empty\n"
        "holdfast wallet backup: hint: give another\n"
    )


def test_help_imports_no_more_than_it_needs() -> None:
    """The parser of the wallet is built without trio, sockets or cryptography."""
    probe = (
        "import sys; import node.commands, node.commands.wallet as w; w.parser();"
        "print([m for m in ('trio', 'nacl', 'cbor2', 'ssl', 'apsw') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr


def test_every_verb_of_the_wallet_has_a_parser_and_the_common_options() -> None:
    """`--home`, `--json` and `--yes` go with every verb."""
    for verb in VERBS:
        words = [verb, "list"] if verb == "name" else [verb]
        options = parser().parse_args([*words, "--home", "/x", "--json", "--yes"])
        assert (options.verb, options.home, options.json, options.yes) == (verb, "/x", True, True)


def test_the_home_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOLDFAST_HOME is the folder unless --home says otherwise."""
    monkeypatch.setenv("HOLDFAST_HOME", "/from/environment")
    assert parser().parse_args(["status"]).home == "/from/environment"
    monkeypatch.delenv("HOLDFAST_HOME")
    assert parser().parse_args(["status"]).home.endswith(".holdfast/wallet")


def test_no_option_takes_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """Passwords, passphrases, names and secrets come from files or the person alone."""
    for verb in VERBS:
        main(["wallet", verb, "--help"])
    shown = capsys.readouterr().out
    for word in ("--password ", "--passphrase ", "--secret ", "--name ", "--code "):
        assert word not in shown


def test_only_the_interrupt_inside_a_group_counts() -> None:
    """Ctrl-C beside the errors it caused is still Ctrl-C."""

    def run() -> int:
        raise BaseExceptionGroup("of trio", [trio.BrokenResourceError(), KeyboardInterrupt()])

    assert attempt(["wallet"], run) == commands.STOPPED
    assert issubclass(NotYet, HoldfastError)
