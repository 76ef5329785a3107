"""Show what happens: one object a line for scripts, sentences and a large code for people."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from node import terminal
from node.wallet.session import Event
from protocol import cases
from protocol.names import NEAR_SPELLINGS_MAX

# Digits of three by five cells: five groups of them fit 75 columns.
_DIGITS: Final = (
    "███ ▄█  ███ ███ █ █ ███ ███ ███ ███ ███",
    "█ █  █    █   █ █ █ █   █     █ █ █ █ █",
    "█ █  █  ███ ███ ███ ███ ███   █ ███ ███",
    "█ █  █  █     █   █   █ █ █   █ █ █   █",
    "███ ▄█▄ ███ ███   █ ███ ███   █ ███ ███",
)


def large(code: str) -> str:
    """Return fifteen digits as five lines of blocks, to be read across a table."""
    rows = []
    for row in _DIGITS:
        cells = [row[4 * int(digit) : 4 * int(digit) + 3].ljust(3) for digit in code]
        groups = [" ".join(cells[at : at + 3]) for at in range(0, len(cells), 3)]
        rows.append("   " + "    ".join(groups))
    return "\n".join(row.rstrip() for row in rows)


class Screen:
    """Turn events into what is shown. With `as_json` each is one line of stdout, and no talk."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._progress: tuple[str, terminal.Progress] | None = None
        self._case: tuple[Any, ...] = ()
        self._enough = False
        self._sentences: dict[str, Callable[[Event], str]] = {
            "joined": lambda e: "",
            "receipt": lambda e: f"  {e['guardian']} holds a piece",
            "unanswered": self._unanswered,
            "lost": lambda e: f"  {e['why']}; trying again",
            "back": lambda e: f"  {e['guardian']} can be reached again",
            "release": self._release,
            "caught": lambda e: f"  {e['guardian']} sent a FALSE piece: {e['why']}. It is left out",
            "veto": lambda e: (
                "  the owner of the vault objects"
                + (f": “{e['words']}”" if e["words"] else "")
                + "; guardians now need more votes"
            ),
            "vote": self._vote,
            "code": self._code,
            "case": self._status,
            "succession": lambda e: (
                f"  {len(e['guardians'])} guardians know that this device owns the backup now"
            ),
            "standing": lambda e: str(e["sentence"]),
            "erased": lambda e: f"  {e['guardian']} has erased it and signed for it",
        }

    def tell(self, event: Event) -> None:
        """Show one event."""
        if self.as_json:
            terminal.emit(dict(event), True)
            return
        kind = str(event["event"])
        if kind == "guess":
            self._advance("Trying spellings near the name", NEAR_SPELLINGS_MAX, event["number"])
        elif kind == "fragment":
            self._advance("Fetching the backup", event["count"], event["done"])
        elif kind in self._sentences:
            sentence = self._sentences[kind](event)
            if sentence:
                self.say(sentence)

    def say(self, text: str = "") -> None:
        """Say a line to a person; nothing with `as_json`."""
        self.rest()
        if not self.as_json:
            terminal.say(text)

    def rest(self) -> None:
        """Take the progress line away."""
        if self._progress is not None:
            self._progress[1].__exit__(None, None, None)
            self._progress = None

    def _advance(self, what: str, total: int, done: int, note: str = "") -> None:
        if self._progress is None or self._progress[0] != what:
            self.rest()
            self._progress = (what, terminal.Progress(what, total))
        self._progress[1].update(done, note)

    def countdown(self, now: int) -> None:
        """Show how much of the waiting period is left; nothing while there is none."""
        if self.as_json or not self._case or self._case[0] != cases.WAITING:
            return
        due, began = self._case[3], self._case[4]
        left = max(0, due - now)
        what, total = "Waiting period", max(1, due - began)
        self._advance(what, total, total - left, f"{terminal.human_duration(left)} left")

    # --- sentences --------------------------------------------------------------------

    def _unanswered(self, event: Event) -> str:
        name, why = str(event["guardian"]), str(event["why"])
        return f"  {why}" if why.startswith(name) else f"  {name}: {why}"

    def _vote(self, event: Event) -> str:
        words = f": “{event['words']}”" if event["words"] else ""
        if event["verdict"] == "ask":
            return f"  {event['guardian']} asks{words}"
        done = {"approve": "approved", "reject": "rejected"}[str(event["verdict"])]
        how = f", {event['how']}" if event["how"] else ""
        return f"  {event['guardian']} {done}{how}{words}"

    def _release(self, event: Event) -> str:
        missing = event["missing"]
        more = f"{missing} more needed" if missing else "that is enough"
        if not missing and self._enough:
            more = "not needed any more"
        self._enough = not missing
        return f"  {event['guardian']} released a good piece; {more}"

    def _code(self, event: Event) -> str:
        code = str(event["code"])
        lines = ["", "Read this code to your guardians, and to nobody else:", ""]
        if sys.stderr.isatty():
            lines += [large(code), ""]
        return "\n".join([*lines, f"   {cases.group(code)}", ""])

    def _status(self, event: Event) -> str:
        """How far it is by the guardian that is furthest; said once for every step."""
        order = ("waiting for code", "open", "contested", "waiting", "released")
        rank = order.index(event["state"]) if event["state"] in order else 0
        before = order.index(self._case[0]) if self._case and self._case[0] in order else -1
        if (rank, event["approvals"]) <= (before, self._case[1] if self._case else -1):
            return ""
        began = self._case[4] if self._case and self._case[0] == event["state"] else event["now"]
        self._case = (event["state"], event["approvals"], event["quorum"], event["due"], began)
        count = f"{event['approvals']} of {event['quorum']} approved"
        if event["state"] == "waiting for code":
            return "No guardian has typed the code yet."
        if event["state"] == cases.WAITING and event["due"] > event["now"]:
            left = terminal.human_duration(event["due"] - event["now"])
            return f"  {count}; the pieces come in {left}, unless the owner objects"
        if event["state"] == cases.CONTESTED:
            return f"  {count}; the owner of the vault objected, so guardians look again"
        if not event["quorum"]:
            return f"  {event['guardian']} knows of it: a guardian has typed the code"
        return f"  {count}"
