"""Names: one form for every way of writing, and the likely slips of the hand."""

from __future__ import annotations

import hashlib
import unicodedata

import pytest
import unicodedata2  # type: ignore[import-not-found]  # has no stubs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import names
from protocol.errors import Refused
from protocol.limits import FULL_NAME_BYTES_MAX

TEXT = st.text(alphabet=st.characters(), max_size=80)
NAME = st.text(alphabet="abehimnorstuyäößøéł -'", min_size=4, max_size=30)
# What people are called, in the scripts whose rules differ.
LETTERS = st.text(alphabet="aäßøłıİIïĳĲΣσςᾳйїЁשָׁבإىةـیکक़िํำ김민ᄀが﨑\u200d\u0345 ǅ", max_size=40)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Łukasz Żółć", "lukasz zolc"),
        ("IŞIK İnci", "ışık inci"),
        ("Groß", "GROSS"),
        ("Ĳsbrand", "IJsbrand"),
        ("Nguyễn Thị Đào", "Nguyen Thi Dao"),
        ("Søren Æbel", "soren aebel"),
        ("ΣΊΣΥΦΟΣ", "Σίσυφος"),
        ("Фёдор Й", "ФЕДОР И"),
        ("בֶּן־גּוּרִיוֹן", "בן גוריון"),
        ("أسماء عبد الرحمٰن", "اسما عبد الرحمن"),
        ("علـــي كمال", "علی کمال"),
        ("فاطمة منى", "فاطمه مني"),
        ("Kaʻiulani", "KA’IULANI"),
        ("  O'Brien--Smith, ", "o brien smith"),
        ("Ren\u00e9 M", "Rene\u0301 m"),
        ("ＡＮＮＡ", "anna"),
        ("Jo\u00adhn\u200e Doe\ufeff", "John Doe"),
        ("辻\U000e0100 太郎", "辻 太郎"),
        ("김민준", unicodedata.normalize("NFD", "김민준")),
    ],
)
def test_two_ways_of_writing_are_one_name(one: str, other: str) -> None:
    """A name typed on another keyboard, in another year, is the same name."""
    assert names.normalise(one) == names.normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("कमल", "कमला"),  # a vowel sign is no ornament
        ("किरण", "कीरण"),
        ("ใจ ดี", "ใจ ดิ"),
        ("かき", "がき"),
        ("Anna Maria", "Annamaria"),
        ("김민준", "김민중"),
    ],
)
def test_marks_that_make_another_name_stay(one: str, other: str) -> None:
    """Vowel signs, voicing marks and spaces part one name from another."""
    assert names.normalise(one) != names.normalise(other)


def test_the_normal_form_never_changes() -> None:
    """The exact form is pinned, because keys are derived from it."""
    assert names.normalise("Müller-Lüdenscheidt, Dr. Anna  ẞ 2") == (
        "muller ludenscheidt dr anna ss 2"
    )
    assert names.normalise("हिन्दी शर्मा").encode().hex() == (
        "e0a4b9e0a4bfe0a4a8e0a58de0a4a6e0a58020e0a4b6e0a4b0e0a58de0a4aee0a4be"
    )


@given(TEXT | LETTERS)
@example("\ud800\udc00")
@example("ﷺ ab")
@example("Σ\u0345")
@example("\u0345ab\u0301")
@settings(max_examples=400, deadline=None)
def test_a_normal_form_is_its_own_and_nothing_else_is_raised(text: str) -> None:
    """Whatever is typed has a normal form that stays itself, or is refused with a sentence."""
    try:
        form = names.normalise(text)
    except Refused as refusal:
        assert str(refusal).endswith(".")
        return
    assert names.normalise(form) == form
    assert form == form.strip()
    assert "  " not in form
    assert names.trigrams(form)


def test_every_character_settles_and_folds_alike_in_every_python() -> None:
    """Each character's normal form is final, and the table of all of them is pinned here."""
    table = hashlib.sha256()
    for code in range(0x110000):
        c = chr(code)
        if unicodedata2.category(c) in ("Cn", "Co", "Cs") or 0xAC00 < code < 0xD7A3:
            continue
        form = names._folded(f"a{c}b")
        assert names._folded_once(form) == form, hex(code)
        table.update(form.encode())
        if unicodedata2.normalize("NFKD", c) != c or unicodedata.category(c) == "Cn":
            continue
        assert names._case_folded(c) == c.casefold(), hex(code)
    assert table.hexdigest() == "ec40a21204534a072b7b981024d8b0424a0522e6abae063e429a3f153b9ce48d"


def test_capitals_younger_than_the_interpreter_are_folded() -> None:
    """A capital that Python 3.11 does not know folds as it will in Python 3.14 and later."""
    assert names._case_folded("\u1c89") == "\u1c8a"
    assert names._case_folded("\ua7cb") == "\u0264"
    assert names._case_folded("\ua7dc") == "\u019b"
    assert names._case_folded("\U00010d50") == "\U00010d70"
    assert names._case_folded("\U00016ea0") == "\U00016ebb"


@pytest.mark.parametrize(
    "text",
    ["", " ", "A", "É", "김", "12 34", "...", "ab\u0378", "ab\ue000", "ab\ud800", "ab\uffff"],
)
def test_what_cannot_be_compared_is_refused(text: str) -> None:
    """Too few letters, unassigned, private and broken characters get a sentence."""
    with pytest.raises(Refused, match=r"\.$"):
        names.normalise(text)


def test_a_long_name_is_refused_by_its_composed_length() -> None:
    """The limit is the same for a Korean name composed and taken apart."""
    longest = "가" * (FULL_NAME_BYTES_MAX // 3)
    assert names.normalise(unicodedata.normalize("NFD", longest)) == names.normalise(longest)
    for text in (longest + "가", "a" * 10_000_000, "ﷺ " * 50, "a" + "\u0301" * 300):
        with pytest.raises(Refused, match="too long"):
            names.normalise(text)


def test_similarity_forgives_order_and_slips() -> None:
    """Order does not matter, a slip costs little, another name scores low."""
    anna = names.normalise("Anna Maria Jansen")
    assert names.similarity(anna, names.normalise("Jansen, Anna Maria")) == 1000
    assert names.similarity(anna, names.normalise("Anna Jansen")) > 700
    assert names.similarity(anna, names.normalise("Anna Maria Janssen")) > 800
    assert names.similarity(anna, names.normalise("Peter de Boer")) < 150
    assert names.similarity(anna, "") == 0


@given(NAME, NAME)
@settings(max_examples=100, deadline=None)
def test_similarity_is_even_handed(a: str, b: str) -> None:
    """Similarity is the same both ways, and its trigrams are sorted and single."""
    assert names.similarity(a, b) == names.similarity(b, a)
    assert 0 <= names.similarity(a, b) <= 1000
    assert list(names.trigrams(a)) == sorted(set(names.trigrams(a)))
    assert names.trigrams("ab cab") == ("  a", "  c", " ab", " ca", "ab ", "cab")


@pytest.mark.parametrize(
    ("enrolled", "typed", "tries"),
    [
        ("Anna Jansen", "Jansen Anna", 1),
        ("Maria Gonzalez Lopez", "Gonzalez Lopez, Maria", 2),
        ("Anna Mueller", "Anna Müller", 3),
        ("Anna Müller", "Anna Mueller", 3),
        ("Anna Mueller", "Müller, Anna", 5),
        ("Anna Jansen", "Anna Maria Jansen", 3),
        ("Jan van den Berg", "Jan vandenberg", 20),
        ("Jan Vandenberg", "Jan van den Berg", 20),
        ("Anneliese Schmidt", "Anne-Liese Schmidt", 20),
        ("Sophie de Vries", "Sofie de Vries", 30),
        ("Sophie Dijkstra", "Sophie Dykstra", 20),
        ("Catharina Smit", "Catharina Smith", 20),
        ("Petra Weiß", "Petra Weisz", 20),
        ("Ahmed Khaled", "Ahmed Haled", 20),
        ("Erik Johansson", "Erik Johanson", 40),
        ("Mohammad Ali", "Mohammed Ali", 60),
        ("Thomas Jansen", "Tohmas Jansen", 40),
        ("Thomas Jansen", "Thomas Jandsen", 60),
        ("Thomas Jansen", "Thomas Jsnsen", 200),
        ("Thomas Jansen", "Thomas Jasen", 250),
        ("Thomas Jansen", "Yhomas Jansen", 250),
        ("김 민준", "김민준", 1),
        ("李 明", "李明", 1),
        ("عبد الرحمن خالد", "عبدالرحمن خالد", 20),
        ("Ольга Петрова", "Ольга Петрово", 100),
    ],
)
def test_what_people_get_wrong_is_tried_early(enrolled: str, typed: str, tries: int) -> None:
    """The usual ways of giving one's own name otherwise are among the first tries."""
    tried = list(names.near_spellings(typed))

    assert names.normalise(enrolled) in tried[:tries]


@given(NAME | LETTERS | TEXT)
@settings(max_examples=60, deadline=None)
def test_near_spellings_are_different_bounded_and_normal(text: str) -> None:
    """Each is tried once, none is the name itself, and all are in the form that is hashed."""
    try:
        name = names.normalise(text)
    except Refused:
        with pytest.raises(Refused):
            names.near_spellings(text)
        return
    tried = list(names.near_spellings(text))
    assert len(tried) == len(set(tried)) <= names.NEAR_SPELLINGS_MAX
    assert name not in tried
    assert all(names.normalise(spelling) == spelling for spelling in tried)


def test_a_guardian_types_the_first_name() -> None:
    """Any word of the name signs, part of a word or nonsense does not."""
    assert names.first_name_matches("anna", "Anna Maria Jansen")
    assert names.first_name_matches("ANNA-MARIA", "Anna Maria Jansen")
    assert names.first_name_matches("jansen", "Anna Maria Jansen")
    assert names.first_name_matches("Rene", "René Dupont")
    assert names.first_name_matches("민준", "김민준")
    assert names.first_name_matches("明", "李明")
    for typed in ("an", "anna jansen", "", " . ", "\ud800", "a" * 999):
        assert not names.first_name_matches(typed, "Anna Maria Jansen")
    assert not names.first_name_matches("ᄀ", "김민준")
    assert not names.first_name_matches("M", "Madonna")
    with pytest.raises(Refused):
        names.first_name_matches("anna", "?")
