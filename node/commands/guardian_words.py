"""The sentences of the guardian's commands: from what the desk answers to lines for people.

Names, dates and counts as a shopkeeper would say them; no identifier longer than the eight
letters that a case is called by, and never a code. Everything here is a plain function, so
that what a guardian reads before a vote can be tested word by word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from node import words
from node.terminal import human_duration, human_time
from protocol import cases
from protocol.limits import MINUTE

View = Mapping[str, Any]

PHRASE_WORDS: Final = 8
_SAME, _CLOSE = 1000, 750  # likeness per mille: equal once normalised; a letter or two apart
_SKEW_SHOWN: Final = 5_000  # ms that clocks may differ without a word about it
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS: Final = (
    *("Monday", "Tuesday", "Wednesday", "Thursday"),
    *("Friday", "Saturday", "Sunday"),
)
_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

# --- time ------------------------------------------------------------------------------


def _local(ms: int) -> datetime:
    return (_EPOCH + timedelta(milliseconds=ms)).astimezone()


def _days_between(earlier: int, later: int) -> int:
    return (_local(later).date() - _local(earlier).date()).days


def moment(ms: int, now: int) -> str:
    """A time near now as people name it: `today 11:20`, `Wednesday 11:20`."""
    days = _days_between(now, ms)
    local = _local(ms)
    if abs(days) > 6:
        return human_time(ms)
    day = {-1: "yesterday", 0: "today", 1: "tomorrow"}.get(days)
    if day is None:
        day = ("last " if days < 0 else "") + _DAYS[local.weekday()]
    return f"{day} {local:%H:%M}"


def since(ms: int, now: int) -> str:
    """Since when something is so: `since 11:20`, `since Tuesday`, `since 3 March 2026`."""
    days, local = _days_between(ms, now), _local(ms)
    if days <= 0:
        return f"since {local:%H:%M}"
    if days <= 6:
        return "since yesterday" if days == 1 else f"since {_DAYS[local.weekday()]}"
    return f"since {local.day} {_MONTHS[local.month - 1]} {local.year}"


def age(ms: int, now: int) -> str:
    """How long something has been kept: `since March 2026`, or nearer."""
    if _days_between(ms, now) <= 31:
        return since(ms, now)
    local = _local(ms)
    return f"since {_MONTHS[local.month - 1]} {local.year}"


def seen(ms: int, now: int) -> str:
    """When a device was last on line: `today`, `yesterday`, `12 days ago`."""
    days = _days_between(ms, now)
    if days <= 1:
        return "today" if days <= 0 else "yesterday"
    return (
        f"{days} days ago"
        if days <= 31
        else f"in {_MONTHS[_local(ms).month - 1]} {_local(ms).year}"
    )


# --- founding --------------------------------------------------------------------------


def eight_words(phrase: bytes) -> str:
    """The words that people compare by voice."""
    return words.phrase(phrase, PHRASE_WORDS)


def draft_data(view: View) -> dict[str, Any]:
    """A draft as data: the phrase as words."""
    return {**view, "phrase": eight_words(view["phrase"])}


def waiting(ms: int) -> str:
    return f"a waiting period of {human_duration(ms)}" if ms else "no waiting period"


def draft_lines(view: View, now: int, unreachable: Sequence[View] = ()) -> list[str]:
    """A draft: what it says, who is in it, and, for the organiser, who has signed."""
    people, count = view["guardians"], len(view["guardians"])
    silent = {each["address"]: each for each in unreachable}
    lines = [
        f"{view['name']}: {count} guardians, any {view['threshold']} give a key back, "
        f"after {waiting(view['waiting_default'])}"
    ]
    for person in people:
        parts = [f"  {person['name']:<12} {person['address'] or 'only dials out':<22}"]
        if view["organiser"]:
            parts.append("signed" if person["signed"] else "not signed yet")
        trouble = silent.get(person["address"]) if person["address"] else None
        if trouble is not None:
            parts.append(f"port does not answer {since(trouble['since'], now)}: {trouble['why']}")
        if person["contact"]:
            parts.append(person["contact"])
        lines.append("  ".join(parts).rstrip())
    if view["organiser"]:
        lines.append(_signed(view, now))
    elif view["accepted"]:
        lines.append("you have signed; the organiser's node gathers the others' signatures")
    return lines


def _signed(view: View, now: int) -> str:
    people = view["guardians"]
    missing = [each["name"] for each in people if not each["signed"]]
    told = f"signed {len(people) - len(missing)} of {len(people)}"
    if not missing:
        return told
    return f"{told}, {listed(missing)} missing {since(view['created'], now)}"


def founding_lines(view: View, now: int) -> list[str]:
    """The status of a node that is in no federation yet."""
    lines = [f"{view['me']} is in no federation yet{_is_locked(view)}"]
    lines += _listens(view)
    if view["draft"] is None:
        return [*lines, "no draft has arrived; hand out: holdfast guardian introduce"]
    lines += draft_lines(view["draft"], now, view.get("unreachable", ()))
    if not view["draft"]["accepted"]:
        lines.append("you have not signed it: holdfast guardian accept")
    return lines


def _is_locked(view: View) -> str:
    return "; this node is LOCKED: holdfast guardian unlock" if view["locked"] else ""


def _listens(view: View) -> list[str]:
    places = view.get("listens") or []
    return [f"listening on {', '.join(places)}" if places else "only making calls itself"]


def listed(names: Sequence[str]) -> str:
    """`ada`, `ada and ben`, `ada, ben and cleo`."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


# --- a live federation -----------------------------------------------------------------


def status_lines(view: View, now: int) -> list[str]:
    """The status of a node in its federation."""
    people = view["guardians"]
    lines = [
        f"{view['federation']}: {view['me']}, one of {len(people)} guardians, "
        f"any {view['threshold']} give a key back{_is_locked(view)}",
        *_listens(view),
    ]
    silent = {each["guardian"]: each for each in view["unreachable"]}
    lines += [_linked(person, view["me"], silent, now) for person in people]
    waits = view["waiting_for_code"]
    lines.append(
        f"{_count(view['vaults'], 'vault')} kept, {_count(view['open_cases'], 'case')} open"
    )
    if waits:
        lines.append(waiting_for_code(waits))
    if not view["rehearsed"]:
        lines.append("not rehearsed from here yet: holdfast guardian rehearse")
    skew = view["clock_skew"]
    if skew is not None and abs(skew) > _SKEW_SHOWN:
        lines.append(f"this machine's clock is {human_duration(abs(skew))} off the others'; set it")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _linked(person: View, me: str, silent: Mapping[str, View], now: int) -> str:
    if person["name"] == me:
        state = "you"
    elif person["linked"]:
        state = "linked"
    elif person["name"] in silent:
        trouble = silent[person["name"]]
        state = f"unreachable {since(trouble['since'], now)}: {trouble['why']}"
    else:
        state = "not linked"
    proven = "  PROVEN to have signed two different things" if person["misbehaved"] else ""
    return f"  {person['name']:<12} {state}{proven}"


def waiting_for_code(count: int) -> str:
    what = "1 claim waits" if count == 1 else f"{count} claims wait"
    return f"{what} for a code: have the person read it to you, then holdfast guardian open"


# --- cases -----------------------------------------------------------------------------


def claims_lines(view: View, now: int) -> list[str]:
    """All cases, a line each."""
    lines = []
    for case in view["cases"]:
        mine = {"approve": "you approved", "reject": "you rejected", "ask": "you asked"}
        parts = [
            f"{case['case']}  {case['name']}: {state_words(case, now)}",
            f"opened {moment(case['opened'], now)}",
            mine.get(case["my_vote"], "you have not voted"),
        ]
        lines.append("; ".join(parts))
    if view["waiting_for_code"]:
        lines.append(waiting_for_code(view["waiting_for_code"]))
    return lines or ["no case is open, and no claim waits for its code"]


def state_words(case: View, now: int) -> str:
    """Where a case is, in a few words."""
    count = f"{case['approvals']} of {case['quorum']} approved" if case["quorum"] else "no approval"
    match case["state"]:
        case cases.WAITING if case["due"] > now:
            return f"{count}; release {moment(case['due'], now)} unless the old phone objects"
        case cases.WAITING:
            return f"{count}; release at once"
        case cases.CONTESTED:
            return f"{count}; CONTESTED by the owner's old device"
        case cases.RELEASED:
            return f"{count}; released"
        case cases.EXPIRED:
            return f"{count}; expired"
    return f"{count} so far" if case["quorum"] else count


def case_lines(view: View, me: str, now: int, *, locked: bool = False) -> list[str]:
    """A case as its guardian sees it before a vote."""
    lines = [
        f"case {view['case']}: {_quoted(view['name'])} asks for a key back",
        f"  made {moment(view['created'], now)}, opened here {moment(view['opened'], now)}, "
        f"ends {human_time(view['expires'])}",
        f"  {state_words(view, now)}",
    ]
    if locked:
        lines.append(
            "  this node is LOCKED and sees neither name nor vaults: holdfast guardian unlock"
        )
    elif view["vaults"]:
        lines.append("  vaults under that name or one like it:")
    else:
        lines.append("  this node sees no vault under that name or one like it")
    for each in view["vaults"]:
        lines += _vault_lines(view, each, me, now)
    lines += _said(view, now)
    return lines


def _quoted(name: str) -> str:
    """A name in quotes, or, in brackets as the desk gives it, why there is none."""
    return name if name.startswith("(") else f"“{name}”"


def _vault_lines(view: View, each: View, me: str, now: int) -> list[str]:
    likeness = each["likeness"]
    like = (
        "the same name"
        if likeness >= _SAME
        else ("a name " + ("much " * (likeness >= _CLOSE)) + "like it")
    )
    parts = [like]
    if each["hint"]:
        parts.append(f"“{each['hint']}”")
    parts.append(f"kept {age(each['since'], now)}, old phone last seen {seen(each['seen'], now)}")
    if each.get("replaced"):
        parts.append(
            f"the backup that stood before and was replaced {since(each['replaced'], now)}: choose "
            "it only when the member says that the old phone was in other hands then"
        )
    if each["has_card"]:
        parts.append(f"verification card: show {view['case']} --vault {each['number']} --card FILE")
    head = f"    {each['number']}  {each['name']}: {'; '.join(parts)}"
    return [head, f"       {effect(view, each, me, now)}"]


def effect(view: View, each: View, me: str, now: int) -> str:
    """What this guardian's approval of a vault does, or has done."""
    count, quorum = each["approvals"], each["quorum"]
    if view["state"] in (cases.RELEASED, cases.EXPIRED):
        return f"this case is {view['state']}"
    if _has_approved(view, each, me):
        return f"you approved: {count} of {quorum}{_then(view, each, count, now)}"
    number = count + 1
    told = f"yours is approval {number} of {quorum}{_then(view, each, number, now)}"
    if view["vetoes"]:
        told += "; the old phone objects, so it takes --despite-veto"
    return told


def _has_approved(view: View, each: View, me: str) -> bool:
    return any(
        vote["guardian"] == me and vote["verdict"] == "approve" and vote["vault"] == each["vault"]
        for vote in view["votes"]
    )


def _then(view: View, each: View, count: int, now: int) -> str:
    if count < each["quorum"]:
        return ""
    if view["vetoes"]:
        return "; it stays contested until enough approve despite the objection"
    due = view["due"] or now + each["waiting"]
    if due <= now + MINUTE:
        return "; release at once"
    return f"; release {moment(due, now)} unless the old phone objects"


def _said(view: View, now: int) -> list[str]:
    """Who voted what and why, who objects, and who has released."""
    numbers = {each["vault"]: each["number"] for each in reversed(view["vaults"])}
    lines = [f"  {vote_words(vote, numbers, now)}" for vote in view["votes"]]
    for veto in view["vetoes"]:
        words_ = f": “{veto['words']}”" if veto["words"] else ""
        lines.append(f"  the old phone objects, {moment(veto['at'], now)}{words_}")
    if view["released"]:
        lines.append(f"  released by {listed(view['released'])}")
    return lines


def vote_words(vote: View, numbers: Mapping[str, int], now: int) -> str:
    """One vote: `ada approved vault 1, in person, today 11:05: “…”`."""
    done = {"approve": "approved", "reject": "rejected", "ask": "asked"}[vote["verdict"]]
    parts = [f"{vote['guardian']} {done}"]
    if vote["verdict"] == "approve":
        number = numbers.get(vote["vault"])
        other = " another vault than those above" if numbers else ""
        parts[0] += f" vault {number}" if number else other
    parts += [vote["how"]] if vote["how"] else []
    parts += ["despite the objection"] if vote["despite_veto"] else []
    parts.append(moment(vote["at"], now))
    return ", ".join(parts) + (f": “{vote['words']}”" if vote["words"] else "")
