"""Fragments that come in over one link: checked, and kept a few at a time.

Megabytes never pass through a core. It says which fragments of which version it wants, under
which Merkle root; what arrives is checked against that before a byte of it is kept, and the
core hears only how it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from node.ports import Fragment, Store, Workers
from protocol.contract import Done, Receive
from protocol.errors import HoldfastError, Malformed
from protocol.fragments import check_path

FRAGMENTS_A_TRANSACTION: Final = 8  # spreads the cost of a flush; a megabyte in memory
FRAGMENT_FIELDS: Final = ("index", "data", "path")


class Transfer:
    """One `Receive` on its way. A link has one at a time: its fragments name none."""

    def __init__(self, wanted: Receive, store: Store, workers: Workers) -> None:
        self.wanted = wanted
        self._store = store
        self._workers = workers
        self._next = 0
        self._held: list[Fragment] = []

    async def take(self, fields: Mapping[str, Any]) -> Done | None:
        """Take one fragment; the end of the transfer, good or bad, or None while it goes on.

        They come in the order of their numbers. Raises `Malformed` for what is no fragment.
        """
        fragment = read_fragment(fields)
        try:
            self._check(fragment)
            self._held.append(fragment)
            self._next += 1
            if len(self._held) == FRAGMENTS_A_TRANSACTION or self._next == self.wanted.count:
                await self._keep()
        except HoldfastError as error:
            return self.failed(str(error))
        return Done(self.wanted.id, result=True) if self._next == self.wanted.count else None

    def failed(self, sentence: str) -> Done:
        return Done(self.wanted.id, error=sentence)

    def _check(self, fragment: Fragment) -> None:
        if fragment.index != self._next:
            raise Malformed(
                f"fragment {self._next + 1} of {self.wanted.count} was due"
                f" and number {fragment.index + 1} came"
            )
        check_path(
            fragment.data, fragment.index, self.wanted.count, fragment.path, self.wanted.root
        )

    async def _keep(self) -> None:
        version, held = self.wanted.version, self._held
        self._held = []
        await self._workers.store(lambda: self._store.put_fragments(version, held))


def read_fragment(fields: Mapping[str, Any]) -> Fragment:
    """Read a fragment from the fields of a frame. Raises `Malformed` for anything else."""
    index, data, path = (fields.get(name) for name in FRAGMENT_FIELDS)
    if type(index) is not int or type(data) is not bytes or type(path) is not list:
        raise Malformed("a fragment does not have its number, its bytes and its path")
    if index < 0 or not all(type(step) is bytes for step in path):
        raise Malformed("a fragment's path is not a list of hashes")
    return Fragment(index, data, tuple(path))
