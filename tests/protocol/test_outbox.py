"""The outbox: a decision sees what was decided a moment before it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.contract import Effect, Persist, Place, PutEntry, PutRow, Table
from protocol.outbox import Pending
from simulations.hosts.memory import MemoryLedger

KEYS = st.binary(max_size=2)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=2)), max_size=12)


def rows_of(changes: list[tuple[bytes, bytes | None]]) -> list[PutRow]:
    return [PutRow(Table.META, key, value) for key, value in changes]


@given(before=CHANGES, after=CHANGES, prefix=KEYS)
@settings(max_examples=150, deadline=None)
def test_what_is_pending_reads_like_what_is_written(
    before: list[tuple[bytes, bytes | None]], after: list[tuple[bytes, bytes | None]], prefix: bytes
) -> None:
    """A ledger with effects on top answers as the ledger will when they are performed."""
    below, written = MemoryLedger(), MemoryLedger()
    for row in rows_of(before):
        below.apply(row)
        written.apply(row)
    pending = Pending(below)
    pending.out = [Persist(row) for row in rows_of(after)]
    for row in rows_of(after):
        written.apply(row)

    assert list(pending.scan(Table.META, prefix)) == list(written.scan(Table.META, prefix))
    assert list(pending.scan(Table.META)) == list(written.scan(Table.META))
    assert pending.count(Table.META) == written.count(Table.META)
    for key in {key for key, _ in before + after}:
        assert pending.get(Table.META, key) == written.get(Table.META, key)
    assert pending.get(Table.CASE, prefix) is None
    assert pending.count(Table.CASE) == 0


@given(
    calls=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 9)), max_size=3),
            st.lists(st.integers(0, 3), max_size=3),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        max_size=8,
    ),
    table=st.sampled_from([Table.DEAL, Table.META]),
)
@settings(max_examples=150, deadline=None)
def test_one_call_after_the_other_sees_what_is_true(
    calls: list[tuple[list[tuple[int, int | None]], list[int], list[int]]], table: Table
) -> None:
    """Whatever is read before, between and after the changes of a call, no row is out of date."""
    below = MemoryLedger()
    pending = Pending(below)
    true: dict[bytes, bytes | None] = {}
    for changes, early, late in calls:
        pending.out = []
        for number in early:
            assert pending.get(table, bytes([number])) == true.get(bytes([number]))
        for number, value in changes:
            row = PutRow(table, bytes([number]), None if value is None else bytes([value]))
            pending.out.append(Persist(row))
            true[row.key] = row.value
        for number in late:
            assert pending.get(table, bytes([number])) == true.get(bytes([number]))
        for effect in pending.out:
            assert isinstance(effect, Persist)
            below.apply(effect.change)


def test_entries_are_seen_before_they_are_written() -> None:
    """The place of a pending entry is taken already; other effects are looked past."""
    pending = Pending(MemoryLedger())
    place = Place(1, 0, 1)
    effects: list[Any] = [PutEntry(place, b"raw")]
    pending.out = [Persist(change) for change in effects]
    seen: list[Effect] = pending.out

    assert pending.entry(place) == b"raw"
    assert pending.entry(Place(1, 0, 2)) is None
    assert list(pending.entries()) == []
    assert seen is pending.out
