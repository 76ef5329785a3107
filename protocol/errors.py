"""What can go wrong, sorted by what the caller does next.

Every message is a sentence for a person: what happened, with the numbers, and what to do
next. It names people, never hex, and never holds a secret.
"""

from __future__ import annotations


class HoldfastError(Exception):
    """Base of every error of ours. Not raised itself.

    `hint` is the next thing to do, as a second sentence; empty when there is nothing to do.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Malformed(HoldfastError):
    """Bytes from outside break a rule of their encoding.

    The fault of whoever made the bytes; no proof against whoever carried them unless they
    were bound to verify first.
    """


class BadSignature(Malformed):
    """A statement's signature does not hold. Whoever passed it on did not verify it."""


class Refused(HoldfastError):
    """A lawful no: the request is well formed and a rule says no. Nothing was changed."""


class NotYet(HoldfastError):
    """The answer may be yes later: something that is needed has not arrived. Try again."""


class Locked(HoldfastError):
    """The keys that this needs are still sealed: the passphrase has not been given."""


class WrongSecret(HoldfastError):
    """A name, passphrase or password does not open what it was tried on. Try another."""


class FaultyPiece(HoldfastError):
    """A part that a guardian served fails its check. The guardian who signed it is to blame."""


class NotEnough(HoldfastError):
    """Fewer good parts than the threshold are at hand. Wait for more, or ask more guardians."""
