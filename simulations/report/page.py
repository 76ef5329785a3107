"""One page that holds everything: no font, script or picture comes from elsewhere.

The tables and verdicts are plain HTML and can be read without any script; the drawing is
made by the script in the page. A content security policy with the hashes of this script and
this style forbids everything else, so that nothing in a run's texts can ever act.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Final

from simulations.quantities import moment
from simulations.report.payload import CASES_MAX, payload
from simulations.report.story import FAILED, HELD, Case, Facts, Finding, Goal, Rule, Story

SCRIPTS: Final = ("scale.js", "shapes.js", "arrows.js", "timeline.js", "staircase.js", "page.js")
CASES_SHOWN: Final = 100  # rows of the table; the table of cases has them all
FINDINGS_SHOWN: Final = 20
WORDS: Final = {
    "passed": "passed",
    "safety": "failed: safety",
    "liveness": "failed: liveness",
    "inconclusive": "inconclusive",
    "crashed": "a node crashed",
}
SIGNS: Final = {HELD: "✓", FAILED: "✗"}
MOMENT: Final = re.compile(r"d(\d+) (\d\d):(\d\d):(\d\d)\.(\d{3}) ")


def page(story: Story) -> str:
    """The whole HTML file of a story."""
    style = _part("page.css")
    script = "\n".join(_part(name) for name in SCRIPTS)
    parts = {
        "title": escape(f"{story.title}: {WORDS.get(story.verdict, story.verdict)}"),
        "policy": f"default-src 'none'; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "head": _head(story),
        "rules": _rules(story),
        "goals": _goals(story.goals),
        "cases": _cases(story.cases),
        "commands": _pairs(story.commands, "commands"),
        "data": _json(payload(story)),
    }
    # In one pass: nothing that is put in can be taken for a place to put something.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))


def _part(name: str) -> str:
    return (files("simulations.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _json(value: object) -> str:
    # Inside a script element only "<" could end it, or begin a comment.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")


def _head(story: Story) -> str:
    word = WORDS.get(story.verdict, story.verdict)
    return (
        f'<h1>{escape(story.title)} <span class="verdict {escape(story.verdict)}">'
        f"{escape(word)}</span></h1><p>{escape(story.shows)}</p>{_pairs(story.facts, 'facts')}"
    )


def _pairs(pairs: Facts, name: str) -> str:
    rows = "".join(
        f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in pairs
    )
    return f'<dl class="{name}">{rows}</dl>' if rows else ""


def _rules(story: Story) -> str:
    failures = "".join(f"<li>{escape(failure)}</li>" for failure in story.failures)
    told = f'<div class="finding"><h3>crashed</h3><ul>{failures}</ul></div>' if failures else ""
    told += "".join(_finding(one) for one in story.findings[:FINDINGS_SHOWN])
    more = len(story.findings) - FINDINGS_SHOWN
    if more > 0:
        told += f"<p>and {more} more</p>"
    failed = [rule for rule in story.rules if rule.state == FAILED]
    others = [rule for rule in story.rules if rule.state != FAILED]
    if not story.rules:
        return f"{told}<p>no invariant was checked</p>"
    held = sum(rule.state == HELD for rule in others)
    unchecked = f", {len(others) - held} not checked" if held < len(others) else ""
    return (
        f'{told}<ul class="rules">{"".join(map(_rule, failed))}</ul><details open id="held">'
        f"<summary>{held} of {len(story.rules)} held{unchecked}</summary>"
        f'<ul class="rules">{"".join(map(_rule, others))}</ul></details>'
    )


def _rule(rule: Rule) -> str:
    name, _, rest = rule.statement.partition(": ")
    why = f" <em>not checked: {escape(rule.why)}</em>" if rule.why else ""
    return (
        f'<li class="{rule.state.replace(" ", "-")}"><b><span aria-hidden="true">'
        f"{SIGNS.get(rule.state, '–')}</span> {escape(rule.id)} {escape(name)}</b> "
        f'<span class="state">{escape(rule.state)}</span> <span>{escape(rest)}</span>{why}</li>'
    )


def _finding(one: Finding) -> str:
    lines = "".join(f"<li>{_line(text)}</li>" for text in one.excerpt)
    excerpt = f'<ol class="excerpt">{lines}</ol>' if lines else ""
    return (
        f'<div class="finding"><h3><span aria-hidden="true">✗</span> {escape(one.id)}: '
        f"{escape(one.statement)}</h3><p>{_go(one.at, moment(one.at))}</p>{excerpt}</div>"
    )


def _line(text: str) -> str:
    """A line of an excerpt; one that begins with a time leads there."""
    found = MOMENT.match(text)
    if found is None:
        return escape(text)
    days, hours, minutes, seconds, ms = (int(part) for part in found.groups())
    at = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000 + ms
    return f"{_go(at, found[0].strip())} {escape(text[found.end() :])}"


def _go(at: int, text: str) -> str:
    return f'<button type="button" class="go" data-at="{at}">{escape(text)}</button>'


def _goals(goals: Iterable[Goal]) -> str:
    rows = "".join(_goal(goal) for goal in goals)
    return f'<ul class="goals">{rows}</ul>' if rows else "<p>none asked for, none met</p>"


def _goal(goal: Goal) -> str:
    state = "held" if goal.times else "failed"
    times = f"{goal.times} times" if goal.times > 1 else "once" if goal.times else "missing"
    wanted = "" if goal.wanted else " (not asked for)"
    return (
        f'<li class="{state}"><b><span aria-hidden="true">{"✓" if goal.times else "✗"}</span> '
        f"{escape(goal.name)}</b> {times}{wanted}: {escape(goal.statement)}</li>"
    )


def _cases(cases: Iterable[Case]) -> str:
    known = list(cases)
    # What a stranger got comes first, then what never came back.
    order = sorted(
        range(min(len(known), CASES_MAX)),
        key=lambda index: (not _is_false(known[index]), bool(known[index].recovered), index),
    )
    rows = "".join(_row(index, known[index]) for index in order[:CASES_SHOWN])
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("claim", "by", "made", "approvals", "outcome", "took")
    )
    more = len(known) - CASES_SHOWN
    left = f"<p>and {more:,} more in the table of cases</p>" if more > 0 else ""
    return (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"</div>{left}"
    )


def _is_false(case: Case) -> bool:
    return case.by == "thief" and bool(case.recovered)


def _row(index: int, case: Case) -> str:
    deceived = sum(fooled for _, _, fooled in case.approvals)
    votes = f"{len(case.approvals)} of {case.quorum}" + (f", {deceived} deceived" * bool(deceived))
    took = _hours(case.recovered - case.made) if case.recovered else "–"
    mark = ' class="bad"' if _is_false(case) else ""
    name = f"{case.name}, federation {case.group}" if case.group else case.name
    cells = (case.by, moment(case.made)[:-4], votes, case.outcome, took)
    return (
        f'<tr{mark}><td><button type="button" class="go" data-case="{index}">{escape(name)}'
        f"</button></td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    )


def _hours(ms: int) -> str:
    hours = ms / 3_600_000
    return f"{hours / 24:.1f} d" if hours >= 48 else f"{hours:.1f} h"
