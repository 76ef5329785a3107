"""The report of one run: a single HTML file that works without a network.

`write_report(result, path)` writes it; `witness.run` makes a result whose report also shows
every message. A `Story` made by hand is drawn as well.
"""

from __future__ import annotations

from pathlib import Path

from simulations.report.page import page
from simulations.report.story import Story
from simulations.report.telling import tell
from simulations.running import Result


def render(run: Result | Story) -> str:
    """The page of a run, as text."""
    return page(run if isinstance(run, Story) else tell(run))


def write_report(run: Result | Story, path: Path) -> None:
    """Write the page of a run to a file, in place of one that is there."""
    path.write_text(render(run), encoding="utf-8")
