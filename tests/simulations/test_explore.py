"""The explorer: the cores that ship pass every interleaving, and planted bugs are found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from simulations import explore_cores
from simulations.explore import Explorer, main
from simulations.explore_memory import copied, freeze
from simulations.explore_mutants import MUTANTS
from simulations.explore_plans import PLANS


@pytest.mark.parametrize("name", ["votes", "override"])
def test_every_interleaving_of_a_small_plan_is_safe(name: str) -> None:
    """Whatever the order of votes, veto, crash and time, no guardian does what it may not."""
    found = Explorer(PLANS[name]).run()

    assert (found.fault, found.trace) == ("", ())
    assert found.complete
    assert found.states > 5_000
    assert found.ends > 100


@pytest.mark.parametrize(
    "name", ["elsewhere", "forger", "full", "liar", "rivals", "twice", "veto", "waiting"]
)
def test_the_beginning_of_a_large_plan_is_safe(name: str) -> None:
    """The first thousand states of plans that take longer hold no fault."""
    found = Explorer(PLANS[name]).run(1_000)

    assert (found.fault, found.trace) == ("", ())
    assert found.states >= 1_000


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_bug_is_found(name: str) -> None:
    """Each planted bug is found, by the fault it is about, with the way to it."""
    mutant = MUTANTS[name]

    found = Explorer(PLANS[mutant.plan], mutant).run(20_000)

    assert found.fault.startswith(mutant.finds)
    assert len(found.trace) >= found.depth
    assert all(found.trace)


def test_a_veto_reaches_everyone_though_its_carrier_lies() -> None:
    """What an owner signed stays good whoever carried it, for all honest guardians alike."""
    found = Explorer(PLANS["carrier"]).run(6_000)  # the liar needs two steps

    assert found.fault == ""


def test_a_restart_that_forgets_is_noticed_at_once() -> None:
    """A node that would know less after a restart is found without any crash."""
    plan = PLANS["veto"]
    explorer = Explorer(plan, MUTANTS["forgets-veto"])
    explorer.cores.reload = True

    found = explorer.run(5_000)

    assert found.fault.startswith("memory")
    assert "crashes" not in " ".join(found.trace)


def test_cores_that_were_let_go_are_played_again_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that keeps few cores alive visits the same states as one that keeps all."""
    plan = replace(PLANS["votes"], ticks=0)
    with_all = Explorer(plan)
    all_kept = with_all.run()
    monkeypatch.setattr(explore_cores, "LIVE_MAX", 8)
    with_few = Explorer(plan)

    few_kept = with_few.run()

    assert with_all.cores.replays == 0
    assert with_few.cores.replays > 0
    assert replace(few_kept, seconds=0) == replace(all_kept, seconds=0)


def test_what_is_not_known_is_neither_compared_nor_copied() -> None:
    """A core with memory of a new kind stops the walk, so that no state is mistaken."""
    for walk in (freeze, copied):
        with pytest.raises(TypeError, match="does not know how"):
            walk({"new": {1, 2}})


@dataclass
class Box:
    """Something that changes."""

    items: dict[int, list[int]]


def test_a_copy_is_equal_and_shares_nothing() -> None:
    """Changing a copied core leaves the state it was copied from alone."""
    first = Box({2: [1], 1: []})

    second = copied(first)

    assert freeze(first) == freeze(second) == freeze(Box({1: [], 2: [1]}))
    second.items[1].append(3)
    assert first.items == {2: [1], 1: []}
    assert freeze(first) != freeze(second)


def test_the_command_tells_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints states and depth, and the shortest way to a fault."""
    assert main(["--mutant", "counts-twice"]) == 10
    told = capsys.readouterr().out
    assert "states" in told
    assert "depth" in told
    assert "S1: a release on 2 standing approvals, 3 are needed" in told
    assert "1 ada: approve" in told

    assert main(["--mutant", "starts-anew"]) == 11
    assert main(["votes", "--states", "50"]) == 12
    assert "not finished" in capsys.readouterr().out
    assert main(["no such plan"]) == 64
    assert main(["--list"]) == 0
    assert "forgets-veto" in capsys.readouterr().out
