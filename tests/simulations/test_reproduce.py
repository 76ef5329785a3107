"""Published figures: all can be read, and what moved is told from what did not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protocol.errors import Malformed, Refused
from simulations.arms import possible
from simulations.intervals import Share
from simulations.points import KINDS, Point
from simulations.reproduce import (
    AGREES,
    DISAGREES,
    SAME,
    compare,
    figures,
    load_figure,
    publish,
    reproduce,
)

SMALL = """# A figure for a test.
title = "Keys given to strangers"
plot = "false-release"

[sweep]
scenario = "deceived"
seeds = 1
mode = "fast"

[sweep.settings]
"federation.heartbeat" = "1d"
"workload.0.count" = 4

[sweep.grid]
"humans.default.deceived" = [0.0, 0.9]
"""


@pytest.mark.parametrize("name", figures())
def test_every_figure_can_be_made_and_was_published(name: str) -> None:
    """Each shipped figure's arms can be run, and its numbers are there with their commit."""
    figure = load_figure(name)

    assert figure.title
    assert possible(figure.plan)[0]
    assert figure.published
    assert {"commit", "code", "python"} <= set(figure.about)


def test_there_is_a_figure_of_every_kind() -> None:
    """What people publish is there: five kinds of pictures, each in a figure."""
    assert {load_figure(name).plot for name in figures()} == set(KINDS)


def share(x: float, hits: int, of: int = 100) -> Point:
    return Point("threshold 3", x, hits / of, Share(hits, of))


def test_numbers_are_compared_one_by_one() -> None:
    """Equal is the same; within the intervals agrees; beyond, or missing, differs."""
    published = [share(1, 10), share(2, 10), share(3, 10), share(4, 10), Point("m", 4, 100.0)]
    found = [share(1, 10), share(2, 14), share(3, 60), Point("m", 4, 104.0), share(5, 1)]

    compared = {(one.series, one.x): one.verdict for one in compare(published, found)}

    assert compared == {
        ("threshold 3", 1): SAME, ("threshold 3", 2): AGREES, ("threshold 3", 3): DISAGREES,
        ("threshold 3", 4): DISAGREES, ("m", 4): AGREES, ("threshold 3", 5): DISAGREES,
    }  # fmt: skip
    assert compare([Point("m", 4, 100.0)], [Point("m", 4, 106.0)])[0].verdict == DISAGREES
    assert "published 10/100" in str(compare([share(1, 10)], [])[0])


def test_publishing_leaves_what_people_wrote(tmp_path: Path) -> None:
    """The definition stays as it was, comments too; only the numbers below it are replaced."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    about = {"commit": "ab12cd3", "code": "c0de", "lock": "", "python": "3.11.7", "plan": {}}

    publish(path, [share(0.1, 1)], about)
    publish(path, [share(0.1, 2), Point("m", "exponent", 1.5)], about)

    assert path.read_text().startswith(SMALL)
    figure = load_figure(path)
    assert figure.published == (share(0.1, 2), Point("m", "exponent", 1.5))
    assert figure.about["commit"] == "ab12cd3"


def test_a_figure_is_made_again_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Published and made again the numbers are the same; a changed one is named."""
    pytest.importorskip("polars", reason="needs the extra [research]")
    pytest.importorskip("matplotlib", reason="needs the extra [research]")
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    words = [str(path), "-j", "1", "-o", str(tmp_path / "out")]

    assert reproduce([*words, "--publish"]) == 0
    assert reproduce([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told[SAME], told[AGREES], told[DISAGREES]) == (2, 0, 0)
    assert (tmp_path / "out" / "small.svg").exists()

    path.write_text(path.read_text().replace("of = 4", "of = 400"))
    assert reproduce(words) == 13
    path.write_text(path.read_text().replace('code = "', 'code = "other'))
    assert reproduce(words) == 1
    assert "published 4/400 = 1 %" in capsys.readouterr().err


def test_listing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name, the figures there are, each with its title."""
    assert reproduce([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == figures()


def test_figures_that_cannot_be_read(tmp_path: Path) -> None:
    """A figure there is not, and one with a mistake, are told apart."""
    with pytest.raises(Refused, match="there is no figure weather; there are availability"):
        load_figure("weather")
    path = tmp_path / "bad.toml"
    for text, says in (("x =", "not TOML"), ("colour = 1", "not known"), ("plot = 'pie'", "pie")):
        path.write_text(text)
        with pytest.raises(Malformed, match=says):
            load_figure(path)
