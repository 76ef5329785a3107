"""Words a person writes down or reads aloud: recovery phrases (BIP 39) and comparison phrases.

A recovery phrase is a secret. Nothing here puts a word of one into an error: not a right
word, and not a wrong one either, which is a right one with a slip. The lists are those of
the `mnemonic` package, loaded when first asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from protocol.errors import Refused

ENGLISH: Final = "english"
WORD_BITS: Final = 11  # 2048 words in a list
COUNTS: Final = (12, 15, 18, 21, 24)  # what BIP 39 defines; wallets make 12 and 24
TEXT_CHARS_MAX: Final = 1000  # 24 of the longest words are under 300
# Most used first; it decides only which list an error speaks of.
_LANGUAGES: Final = (
    *(ENGLISH, "spanish", "french", "portuguese", "italian", "czech", "japanese", "korean"),
    *("chinese_simplified", "chinese_traditional", "russian", "turkish"),
)


class _List(NamedTuple):
    language: str
    words: Sequence[str]
    known: frozenset[str]


def check_words(text: str) -> str:
    """Return a recovery phrase as it is kept: its own words, checked, one space between them.

    Capitals, line breaks and numbering ("1. abandon") are tidied away. The words are those
    of the list, in any language that BIP 39 has, so that other wallets derive the same keys.

    Raises:
        Refused: the number of words, a word or the checksum is wrong. No word is named.
    """
    return " ".join(_checked(text)[0])


def parse_words(text: str) -> bytes:
    """Return the 16 to 32 bytes of entropy behind a recovery phrase.

    Raises:
        Refused: as for `check_words`.
    """
    return _checked(text)[1]


def to_words(entropy: bytes, language: str = ENGLISH) -> str:
    """Return the recovery phrase of 16, 20, 24, 28 or 32 bytes of entropy."""
    from mnemonic import Mnemonic

    words = Mnemonic(language, list(_load(language).words)).to_mnemonic(entropy)
    # Japanese ones come with a wide space, which `check_words` would not keep.
    return " ".join(words.split())


def phrase(data: bytes, words: int) -> str:
    """Return the first `words` times 11 bits of a hash as English words, to compare by voice.

    There is no checksum in it: it proves nothing by itself.
    """
    bits = len(data) * 8
    if not 0 < words * WORD_BITS <= bits:
        raise ValueError(f"{words} words need {words * WORD_BITS} bits and there are {bits}")
    number = int.from_bytes(data, "big") >> (bits - words * WORD_BITS)
    listed = _load(ENGLISH).words
    indices = [(number >> (WORD_BITS * i)) % len(listed) for i in reversed(range(words))]
    return " ".join(listed[index] for index in indices)


def _checked(text: str) -> tuple[list[str], bytes]:
    words = _split(text)
    if len(words) not in COUNTS:
        raise Refused(
            f"The number of words here is {len(words)}, but a recovery phrase has 12 or 24 of them "
            "(15, 18 and 21 exist too).",
            hint="Look whether a word was left out, written twice or run together with another.",
        )
    best: _List | None = None
    fewest_unknown = len(words) + 1
    for listed in _lists():
        unknown = sum(word not in listed.known for word in words)
        if not unknown:
            entropy = _entropy(words, listed)
            if entropy is not None:
                return words, entropy
        if unknown < fewest_unknown:
            best, fewest_unknown = listed, unknown
    assert best is not None  # there is at least the English list
    raise _not_a_phrase(words, best)


def _split(text: str) -> list[str]:
    from mnemonic import Mnemonic

    if len(text) > TEXT_CHARS_MAX:
        raise Refused(
            f"This is {len(text)} characters long, far longer than a recovery phrase.",
            hint="Give the 12 or 24 words and nothing else.",
        )
    words = (word.strip(".,:;)(") for word in Mnemonic.normalize_string(text).lower().split())
    return [word for word in words if word and not word.isdecimal()]


def _lists() -> Iterator[_List]:
    for language in _LANGUAGES:
        yield _load(language)


def _load(language: str) -> _List:
    from mnemonic import Mnemonic

    # BIP 39 works on NFKD, but the Russian and Turkish lists of mnemonic 0.21 are composed, so
    # that it cannot read back what it wrote.
    words = [Mnemonic.normalize_string(word) for word in Mnemonic(language).wordlist]
    return _List(language, words, frozenset(words))


def _entropy(words: list[str], listed: _List) -> bytes | None:
    from mnemonic import Mnemonic

    try:
        return bytes(Mnemonic(listed.language, list(listed.words)).to_entropy(words))
    except ValueError:  # the checksum
        return None


def _not_a_phrase(words: list[str], listed: _List) -> Refused:
    language = listed.language.replace("_", " ").title()
    wrong = [i for i, word in enumerate(words) if word not in listed.known]
    if not wrong:
        return Refused(
            f"All {len(words)} words are {language} words of recovery phrases, but together they "
            "fail their check: one of them is another word, or two have changed places.",
            hint="Compare each word, and their order, with what is written down.",
        )
    if len(wrong) * 2 > len(words):
        return Refused(
            f"{len(wrong)} of these {len(words)} words are in no list of recovery phrases.",
            hint="Give the words that the wallet showed when it was set up, in their order.",
        )
    positions = ", ".join(str(i + 1) for i in wrong)
    if len(wrong) > 1:
        return Refused(
            f"Words {positions} of {len(words)} are not in the {language} list of such words.",
            hint="Look at these words again, letter by letter.",
        )
    near = any(_one_slip_apart(words[wrong[0]], word) for word in listed.words)
    return Refused(
        f"Word {positions} of {len(words)} is not in the {language} list of such words"
        + (", but one that differs by a single slip is." if near else "."),
        hint="Look at that word again, letter by letter.",
    )


def _one_slip_apart(typed: str, word: str) -> bool:
    if abs(len(typed) - len(word)) > 1:
        return False
    start = 0
    while start < min(len(typed), len(word)) and typed[start] == word[start]:
        start += 1
    a, b = typed[start:], word[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[1::-1] == b[:2] and a[2:] == b[2:])
