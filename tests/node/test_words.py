"""Recovery phrases: read in any form, checked, and never betrayed by an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import words
from protocol.errors import Refused

LEGAL = "legal winner thank year wave sausage worth useful legal winner thank yellow"
# From the vectors published with BIP 39.
VECTORS = [
    ("00" * 16, "abandon " * 11 + "about"),
    ("7f" * 16, LEGAL),
    ("80" * 16, "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"),
    ("ff" * 32, "zoo " * 23 + "vote"),
    ("00" * 24, "abandon " * 17 + "agent"),
]


@pytest.mark.parametrize(("entropy", "phrase"), VECTORS)
def test_published_vectors_hold(entropy: str, phrase: str) -> None:
    """The words and the bytes behind them are those of every other wallet."""
    assert words.parse_words(phrase).hex() == entropy
    assert words.to_words(bytes.fromhex(entropy)) == phrase
    assert words.check_words(phrase) == phrase


@given(st.sampled_from([16, 20, 24, 28, 32]).flatmap(lambda n: st.binary(min_size=n, max_size=n)))
@settings(max_examples=15, deadline=None)
def test_every_entropy_comes_back(entropy: bytes) -> None:
    """What was turned into words comes back to the byte."""
    assert words.parse_words(words.to_words(entropy)) == entropy


@pytest.mark.parametrize("language", words._LANGUAGES)
def test_every_language_comes_back(language: str) -> None:
    """A phrase in any language of BIP 39 keeps its words and gives its bytes."""
    phrase = words.to_words(bytes(range(32)), language)
    assert words.check_words(phrase) == phrase
    assert words.parse_words(phrase.replace(" ", "\u3000")) == bytes(range(32))


def test_a_phrase_is_tidied() -> None:
    """Capitals, line breaks and numbers from a paper form do not matter."""
    numbered = "\n".join(f" {i}.  {w.title()}" for i, w in enumerate(LEGAL.split(), start=1))
    assert words.check_words(numbered) == LEGAL
    assert words.check_words(f"  {LEGAL.upper()}\r\n") == LEGAL


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "here is 0, "),
        (LEGAL.rsplit(" ", 1)[0], "here is 11, "),
        (LEGAL.replace("wave", "wvae"), "Word 5 of 12 .* single slip"),
        (LEGAL.replace("wave", "qqqqqq"), r"Word 5 of 12 .* words\.$"),
        (LEGAL.replace("wave", "wavee").replace("worth", "wort"), "Words 5, 7 of 12"),
        (LEGAL.replace("yellow", "zoo"), "fail their check"),
        (LEGAL.replace("wave sausage", "sausage wave"), "fail their check"),
        ("one two three four correct horse battery staple ei ou uu ii", "in no list"),
        (LEGAL * 20, "characters long"),
    ],
)
def test_a_wrong_phrase_is_refused_without_a_word_of_it(text: str, says: str) -> None:
    """The sentence gives positions and counts; no word of the phrase is in it or behind it."""
    with pytest.raises(Refused, match=says) as caught:
        words.check_words(text)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    spoken = f"{caught.value} {caught.value.hint}".lower()
    for word in text.split():
        if word not in ("one", "two", "three", "four"):
            assert f" {word}" not in spoken


@given(st.text(max_size=200) | st.lists(st.sampled_from(LEGAL.split()), max_size=25).map(" ".join))
@settings(max_examples=30, deadline=None)
def test_anything_else_is_refused(text: str) -> None:
    """Whatever is typed is a phrase or refused with a sentence."""
    try:
        phrase = words.check_words(text)
    except Refused as refusal:
        assert str(refusal).endswith(".")
    else:
        assert words.check_words(phrase) == phrase


def test_a_comparison_phrase_is_pinned() -> None:
    """A group reads the same words from the same hash, in every version."""
    assert words.phrase(bytes(16), 3) == "abandon abandon abandon"
    assert words.phrase(b"\xff" * 32, 6) == "zoo zoo zoo zoo zoo zoo"
    assert words.phrase(bytes.fromhex("7f" * 16), 5) == "legal winner thank year wave"
    for data, count in ((b"", 1), (bytes(4), 3), (bytes(4), 0)):
        with pytest.raises(ValueError, match="bits"):
            words.phrase(data, count)


@pytest.mark.parametrize(
    ("typed", "word", "near"),
    [
        ("wvae", "wave", True),
        ("wav", "wave", True),
        ("wavee", "wave", True),
        ("wale", "wave", True),
        ("ware", "wave", True),
        ("vawe", "wave", False),
        ("", "a", True),
        ("wxyz", "wave", False),
        ("ab", "ba", True),
    ],
)
def test_one_slip(typed: str, word: str, near: bool) -> None:
    """A slip is one letter more, less or other, or two neighbours that changed places."""
    assert words._one_slip_apart(typed, word) is near
