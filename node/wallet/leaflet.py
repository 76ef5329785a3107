"""One page to print and keep with other papers: how to reach the guardians. No secret on it."""

from __future__ import annotations

import base64
from html import escape
from typing import Final

from node import qr, words
from protocol.federation import Invite, Roster

PAGE_WIDTH, PAGE_HEIGHT = 210, 297  # millimetres, A4
_QR_MM: Final = 80
_LINE_MM: Final = 6.2


def _lines(roster: Roster) -> list[str]:
    lines = [
        f"{roster.name}: {len(roster.guardians)} people or bodies each keep a part of what you "
        "backed up.",
        f"When you lose your phone, any {roster.threshold} of them can give it back:",
        "",
        "1. Get a new device and install Holdfast.",
        "2. Run: holdfast wallet join --no-backup, and scan the square below.",
        "3. Run: holdfast wallet recover, and type your full name.",
        "4. Go to your guardians, in person. Show them who you are and read them the code.",
        "",
        "Guardians:",
    ]
    for guardian in roster.guardians:
        parts = (guardian.name, guardian.contact, ", ".join(guardian.languages), guardian.hours)
        lines.append("   " + " · ".join(part for part in parts if part))
    return [*lines, "", f"Eight words by which they know it: {phrase(roster)}"]


def phrase(roster: Roster) -> str:
    """The eight words that a member compares with a guardian."""
    return words.phrase(roster.phrase, 8)


def text(roster: Roster, invite: Invite) -> str:
    """Return the leaflet as text, the invite as a QR code of half blocks and as a line."""
    line = invite.to_text()
    parts = ["\n".join(_lines(roster)), "", qr.terminal(line, colour=False), line, ""]
    return "\n".join(parts)


def svg(roster: Roster, invite: Invite) -> str:
    """Return the leaflet as one page of SVG, A4."""
    picture = base64.b64encode(qr.png(invite.to_text())).decode()
    rows = []
    at = 30.0
    for line in _lines(roster):
        rows.append(f'<text x="20" y="{at:.1f}" xml:space="preserve">{escape(line)}</text>')
        at += _LINE_MM
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{PAGE_WIDTH}mm" '
        f'height="{PAGE_HEIGHT}mm" viewBox="0 0 {PAGE_WIDTH} {PAGE_HEIGHT}" '
        'font-family="sans-serif" font-size="3.6">\n'
        f'<rect width="{PAGE_WIDTH}" height="{PAGE_HEIGHT}" fill="white"/>\n'
        f'<text x="20" y="20" font-size="7">If your phone is gone</text>\n' + "\n".join(rows) + "\n"
        f'<image x="20" y="{at:.1f}" width="{_QR_MM}" height="{_QR_MM}" '
        f'href="data:image/png;base64,{picture}"/>\n</svg>\n'
    )
