"""People's names: the one form that is hashed, how alike two are, what else was perhaps meant.

`normalise` is the form `name/1` of SPEC.md: what a person writes on two keyboards, in two
years, must become the same bytes, because a key is derived from them. So the rules never
change under this name, and neither may the tables beneath them:

1. Categories, decompositions and the names of characters come from `unicodedata2`, pinned.
2. Case folding is the interpreter's, made independent of its version by `_case_folded`.
3. Whatever a rule leaves behind goes through all rules again until nothing changes, so that
   a normal form is its own normal form.

A name in two scripts is two spellings to enrol: nothing here transliterates between scripts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, pairwise
from typing import Final

import unicodedata2  # type: ignore[import-not-found]  # has no stubs

from protocol.errors import Refused
from protocol.limits import FULL_NAME_BYTES_MAX

UNICODE_VERSION: Final = "18.0.0"
LETTERS_MIN: Final = 2  # the shortest full names in use: one syllable and one syllable
NEAR_SPELLINGS_MAX: Final = 400  # each costs 0.4 s of Argon2id: under three minutes in all
_PASSES_MAX: Final = 8  # of all rules; three suffice for every character there is

if unicodedata2.unidata_version != UNICODE_VERSION:  # pragma: no cover
    raise ImportError(
        f"Names are compared by the tables of Unicode {UNICODE_VERSION}, but the installed "
        f"unicodedata2 brings those of {unicodedata2.unidata_version}, under which a name might "
        "no longer open what it closed. Install the version in requirements.lock."
    )

# Scripts in which people leave marks out, by how Unicode's character names begin. In any
# other script a mark is a vowel or a consonant (Devanagari, Thai) or makes another letter
# (the voiced kana), and stays.
_MARKS_ARE_OPTIONAL: Final = ("LATIN ", "GREEK ", "CYRILLIC ", "HEBREW ", "ARABIC ")

_SAME_LETTER: Final = {
    # A stroke or a missing dot is a mark to whoever has no key for it, but Unicode does not
    # take these apart. Dotless i: a Turkish capital I folds to i, so its small form must too.
    **dict(zip("øłđħŧı", "oldhti", strict=True)),
    # Written together, as ß, which case folding takes apart itself.
    "æ": "ae",
    "œ": "oe",
    # Alef wasla and its wavy relatives. Those with hamza or madda decompose and lose the mark.
    **dict.fromkeys("\u0671\u0672\u0673", "\u0627"),
    # Hamza without a carrier, and the high hamza: dropped, as its carriers lose theirs.
    **dict.fromkeys("\u0621\u0674", ""),
    # Yeh: alef maksura (the Egyptian final form), Farsi, Kashmiri, with tail, Pashto e, barree.
    **dict.fromkeys("\u0649\u06cc\u0620\u06cd\u06d0\u06d2", "\u064a"),
    # Heh: teh marbuta, and the forms of Urdu, Uyghur and Sindhi keyboards.
    **dict.fromkeys("\u0629\u06c1\u06be\u06c3\u06d5", "\u0647"),
    # Kaf: Persian keheh, and the swash form.
    **dict.fromkeys("\u06a9\u06aa", "\u0643"),
    # Noon ghunna: Urdu's final noon without its dot.
    "\u06ba": "\u0646",
}
# Cannot be seen, or only stretches a word: tatweel, small Quranic letters, the grapheme joiner,
# variation selectors, fillers of Hangul, Khmer and Mongolian. Joiners, soft hyphens and marks
# of direction are category Cf, dropped whole.
_UNSEEN: Final = "\u0640\u06e5\u06e6\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f"
_VARIATION_SELECTORS: Final = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
# Letters to Unicode, apostrophes to whoever types them: Kaʻiulani and Kaʼiulani are Ka'iulani.
_APOSTROPHES: Final = "ʹʺʻʼʽʾʿˀˁˈˊˋˮꞋꞌ"


def composed(full_name: str) -> str:
    """Return a name as it is kept and sent: its letters composed (NFC), as most are typed."""
    return unicodedata2.normalize("NFC", full_name)  # type: ignore[no-any-return]


def normalise(full_name: str) -> str:
    """Return the form of a full name that every way of writing it shares.

    The result holds letters, digits and the marks of scripts that cannot be read without
    them, in NFKD and folded case, words parted by one space. It is its own normal form, and
    the same under every version of Python.

    Raises:
        Refused: fewer than two letters, more than `FULL_NAME_BYTES_MAX` bytes of UTF-8 (of
            the composed form), or a character that Unicode has not assigned.
    """
    folded = _folded(full_name)
    letters = sum(
        unicodedata2.category(c).startswith("L") for c in unicodedata2.normalize("NFC", folded)
    )
    if letters < LETTERS_MIN:
        raise Refused(
            f"A full name needs at least {LETTERS_MIN} letters, and this has {letters}.",
            hint="Write the name as it stands in a passport.",
        )
    return folded


def trigrams(normalised: str) -> tuple[str, ...]:
    """Return what a similarity index stores of a normal form: sorted, each trigram once.

    Every word is padded with two spaces before and one after, so that its beginning weighs
    more than its end, and the order of the words does not matter.
    """
    padded = [f"  {word} " for word in normalised.split(" ") if word]
    found = dict.fromkeys(word[i : i + 3] for word in padded for i in range(len(word) - 2))
    return tuple(sorted(found))


def similarity(a: str, b: str) -> int:
    """Return how alike two normal forms are, 0 to 1000: their common share of trigrams."""
    of_a, of_b = trigrams(a), trigrams(b)
    if not of_a or not of_b:
        return 0
    known = frozenset(of_a)
    common = sum(trigram in known for trigram in of_b)
    return 2000 * common // (len(of_a) + len(of_b))


def first_name_matches(typed: str, full_name: str) -> bool:
    """Tell whether what was typed is a word of this name, or several in a row.

    Chinese, Japanese and Korean names are often written without a space: there the
    beginning or the end of the name counts. Nonsense typed is no match, and no error.

    Raises:
        Refused: the full name itself has no normal form.
    """
    whole = normalise(full_name)
    try:
        part = _folded(typed)
    except Refused:
        return False
    if not part:
        return False
    if f" {part} " in f" {whole} ":
        return True
    # Composed, so that half of a Korean syllable is no match.
    whole, part = unicodedata2.normalize("NFC", whole), unicodedata2.normalize("NFC", part)
    if " " in whole or not _joins_words(whole):
        return False
    return bool(whole.startswith(part) or whole.endswith(part))


def _folded(text: str) -> str:
    _check_writable(text)
    for _ in range(_PASSES_MAX):
        again = _folded_once(text)
        if again == text:
            _check_length(text)
            return text
        text = again
    raise Refused("This name mixes signs in a way that cannot be compared. Write it plainly.")


def _check_writable(text: str) -> None:
    # Composed from at most four code points each: what is longer need not be looked at.
    if len(text) > 4 * FULL_NAME_BYTES_MAX:
        raise _too_long(len(text))
    for position, c in enumerate(text if not text.isascii() else "", start=1):
        # Unassigned: its category, and so the normal form, would change one day. Private:
        # it means something else on every device. Surrogate: half of a character.
        if unicodedata2.category(c) in ("Cn", "Co", "Cs"):
            raise Refused(
                f"Character {position} of this name is not one that Unicode {UNICODE_VERSION} "
                "knows, so it could not be compared later.",
                hint="Type the name again on the keyboard, without pasting it.",
            )
    _check_length(text)


def _check_length(text: str) -> None:
    # Composed, so that the limit means the same before and after normalising (NFKD makes
    # nine bytes of a Korean syllable that has three).
    size = len(unicodedata2.normalize("NFC", text).encode())
    if size > FULL_NAME_BYTES_MAX:
        raise _too_long(size)


def _too_long(size: int) -> Refused:
    return Refused(
        f"This name is too long: {size} bytes, and at most {FULL_NAME_BYTES_MAX} are possible.",
        hint="Write only the name, as it stands in a passport, without titles or an address.",
    )


# What the rules below come to where a name has plain letters only: most look-ups have.
_PLAIN: Final = {code: c.lower() if (c := chr(code)).isalnum() else " " for code in range(128)}


def _folded_once(text: str) -> str:
    if text.isascii():
        return " ".join(text.translate(_PLAIN).split())
    out: list[str] = []
    marks_stay = False
    for c in unicodedata2.normalize("NFKD", text):
        category = unicodedata2.category(c)
        if category == "Cf" or c in _UNSEEN or any(ord(c) in r for r in _VARIATION_SELECTORS):
            continue
        if category[0] == "M":
            if marks_stay:
                out.append(c)
        elif category[0] in "LN" and c not in _APOSTROPHES:
            out.extend(_SAME_LETTER.get(folded, folded) for folded in _case_folded(c))
            marks_stay = category[0] == "L" and not _name_of(c).startswith(_MARKS_ARE_OPTIONAL)
        else:
            out.append(" ")
            marks_stay = False
    return " ".join(word for word in "".join(out).split(" ") if word)


def _case_folded(c: str) -> str:
    # Unicode promises never to change the folding of an assigned character, so versions of
    # Python differ only where a capital is younger than their tables (3.11 has Unicode 14)
    # and stays as it is. Those are paired by their pinned names instead; a test compares.
    folded = c.casefold()
    if folded == c and unicodedata2.category(c) in ("Lu", "Lt"):
        try:
            return str(unicodedata2.lookup(_name_of(c).replace(" CAPITAL ", " SMALL ")))
        except KeyError:
            return c
    return folded


def _name_of(c: str) -> str:
    return str(unicodedata2.name(c, ""))


# --- what else was perhaps meant -------------------------------------------------------
#
# The order follows what was counted: of misspellings in print over 90 % are one slip, most
# often a letter left out, then one too many, mostly a doubled one (Pollock and Zamora 1983);
# many concern vowels, h, w and y, doubling and transposition are common, first letters rarely
# wrong (Yannakoudakis and Fawthrop 1983). That an own name is more often given in another
# order, short form or transliteration than mistyped is assumed. A kind with few candidates
# goes before one with many: it costs less to be wrong about.

# Letters that sound or look alike, either way round; the likely first (assumed).
_OFTEN_ALIKE: Final = (
    *(("i", "y"), ("c", "k"), ("ph", "f"), ("th", "t"), ("ij", "y"), ("v", "w"), ("ck", "k")),
    *(("s", "z"), ("sch", "sh"), ("kh", "h"), ("ou", "u"), ("gh", "g"), ("i", "j"), ("j", "y")),
    *(("dt", "d"), ("ei", "ai"), ("al ", "el "), ("mac", "mc")),
    *(("ы", "и"), ("э", "е"), ("є", "е"), ("і", "и"), ("ґ", "г"), ("ыи", "ы"), ("ии", "ы")),
    *(("η", "ι"), ("υ", "ι"), ("ει", "ι"), ("οι", "ι"), ("ω", "ο"), ("αι", "ε")),
    *(("ذ", "د"), ("ظ", "ض"), ("ث", "س"), ("ص", "س"), ("ط", "ت"), ("گ", "ك"), ("پ", "ب")),
    *(
        ("髙", "高"),
        ("﨑", "崎"),
        ("邊", "辺"),
        ("邉", "辺"),
        ("齋", "斎"),
        ("斉", "斎"),
        ("澤", "沢"),
    ),
    *(("\u1162", "\u1166"), ("\u116b", "\u116c")),  # Korean ae and e, wae and oe
)
_ALIKE: Final = (
    *(("sh", "s"), ("ch", "k"), ("ch", "h"), ("kh", "k"), ("oo", "u"), ("ee", "i"), ("ie", "i")),
    *(("iya", "ia"), ("iy", "y"), ("ey", "y"), ("f", "v"), ("ew", "ev"), ("ff", "v"), ("ks", "x")),
    *(
        ("cz", "ch"),
        ("tch", "ch"),
        ("tz", "z"),
        ("ts", "z"),
        ("ss", "sz"),
        ("ey", "ei"),
        ("c", "s"),
    ),
    *(("ij", "ei"), ("dt", "t"), ("dh", "d"), ("d", "t"), ("th", "d"), ("b", "p"), ("q", "k")),
    *(("qu", "k"), ("dj", "j"), ("zh", "j"), ("eau", "o")),
)
# How a letter with its mark is written out by people without the key for it.
_WRITTEN_OUT: Final = {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "þ": "th", "ð": "d"}
_SHORTENED: Final = (("ae", "a"), ("oe", "o"), ("ue", "u"), ("aa", "a"))
# Written with a space or without.
_PARTICLES: Final = (
    *("van den ", "van der ", "van de ", "van ", "von der ", "von ", "de la ", "de ", "di "),
    *("da ", "al ", "el ", "abd el ", "abd al ", "abdel ", "abd ", "ben ", "bin ", "o ", "mc "),
    *("mac ", "عبد ال", "عبد "),
)
_SURNAME_LETTERS_MAX: Final = 3  # of Chinese, Japanese and Korean ones, but for a handful
_VOWELS: Final = ("aeiouy", "аеиоуяю", "αειηου")
# By script, what is left out or put in most: vowels and weak letters before the rest.
_LEFT_OUT: Final = {
    "LATIN": "ehaiouyrnlstwcdmgkbpvfjzxq",
    "CYRILLIC": "аеиоуьянрслткмвдгбпзчшхцжюф",
    "GREEK": "ιαεουησνρλτκμ",
    "HEBREW": "ויהא",
    "ARABIC": "اويهل",
}
_KEYBOARDS: Final = (
    ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    ("qwertzuiop", "asdfghjkl", "yxcvbnm"),
    ("azertyuiop", "qsdfghjklm", "wxcvbn"),
    ("йцукенгшщзх", "фывапролджэ", "ячсмитьбю"),
)


def near_spellings(full_name: str) -> Iterator[str]:
    """Return normal forms of what may be meant by a name that opens nothing, likely ones first.

    At most `NEAR_SPELLINGS_MAX`, each once, never the normal form of `full_name` itself.

    Raises:
        Refused: at once, when the name itself has no normal form.
    """
    name = normalise(full_name)
    words = name.split(" ")
    kinds = chain(
        _reordered(words),
        _written_out(full_name, name),
        _with_fewer_words(words),
        _parted(unicodedata2.normalize("NFC", name)),
        _joined(words),
        _replaced_alike(name, _OFTEN_ALIKE),
        # Composed, because a slip of the hand moves or loses a whole Korean syllable.
        _slips(unicodedata2.normalize("NFC", name)),
    )
    return islice(_distinct(name, kinds), NEAR_SPELLINGS_MAX)


def _distinct(name: str, candidates: Iterable[str]) -> Iterator[str]:
    seen = {name}
    for candidate in candidates:
        try:
            spelling = normalise(candidate)
        except Refused:  # too short or too long now: nobody can have enrolled it
            continue
        if spelling not in seen:
            seen.add(spelling)
            yield spelling


def _reordered(words: list[str]) -> Iterator[str]:
    yield " ".join([words[-1], *words[:-1]])  # surname first, as on forms
    yield " ".join([*words[1:], words[0]])  # surname was first
    yield " ".join([*words[2:], *words[:2]])  # two surnames, or two given names


def _written_out(full_name: str, name: str) -> Iterator[str]:
    composed = unicodedata2.normalize("NFC", full_name)
    written_out = "".join(_WRITTEN_OUT.get(_case_folded(c), c) for c in composed)
    yield written_out
    yield from _reordered(written_out.split())
    shortened = name
    for spelt, letter in _SHORTENED:
        shortened = shortened.replace(spelt, letter)
    yield shortened
    yield from _reordered(shortened.split(" "))
    for spelt, letter in _SHORTENED:
        yield from _each_replaced(name, spelt, letter)


def _with_fewer_words(words: list[str]) -> Iterator[str]:
    if len(words) < 3:
        return
    first, *middle, last = words
    yield f"{first} {last}"
    yield " ".join([first, *(word[0] for word in middle), last])
    for dropped in range(1, len(words)):
        yield " ".join(words[:dropped] + words[dropped + 1 :])
    yield " ".join(words[1:])  # a title, or a given name that nobody uses
    yield f"{last} {first}"
    yield " ".join([last, first, *middle[:-1]])


def _joined(words: list[str]) -> Iterator[str]:
    for i in range(1, len(words)):
        yield " ".join([*words[: i - 1], words[i - 1] + words[i], *words[i + 1 :]])
    yield f"{words[0]} {''.join(words[1:])}"
    yield "".join(words)
    yield "".join([words[-1], *words[:-1]])
    for i, word in enumerate(words):
        for particle in _PARTICLES:
            rest = word.removeprefix(particle.replace(" ", ""))
            if len(word) > len(rest) >= LETTERS_MIN:
                yield " ".join([*words[:i], particle + rest, *words[i + 1 :]])


def _parted(word: str) -> Iterator[str]:
    if " " in word or not _joins_words(word):
        return
    for i in range(1, min(len(word), _SURNAME_LETTERS_MAX + 1)):
        yield f"{word[:i]} {word[i:]}"
        yield f"{word[i:]} {word[:i]}"


def _joins_words(text: str) -> bool:
    # Chinese, Japanese and Korean names are often written without a space.
    return _name_of(text[0]).startswith(("CJK ", "HANGUL ", "HIRAGANA ", "KATAKANA "))


def _each_replaced(name: str, old: str, new: str) -> Iterator[str]:
    at = name.find(old)
    while at >= 0:
        yield name[:at] + new + name[at + len(old) :]
        at = name.find(old, at + 1)


def _replaced_alike(name: str, pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for one, other in pairs:
        for old, new in ((one, other), (other, one)):
            yield from _each_replaced(name, old, new)
            if name.count(old) > 1:
                yield name.replace(old, new)


def _slips(name: str) -> Iterator[str]:
    letters = [i for i in range(len(name)) if name[i] != " "]
    inner = [i for i in letters if i and name[i - 1] != " "]
    first = [i for i in letters if i not in inner]
    yield from (_without(name, i) for i in inner if name[i] == name[i - 1])
    yield from (name[:i] + name[i] + name[i:] for i in inner)
    yield from (_swapped(name, i) for i in inner)
    yield from (_without(name, i) for i in inner)
    yield from chain.from_iterable(_other_vowels(name, i) for i in inner)
    yield from _replaced_alike(name, _ALIKE)
    left_out = _LEFT_OUT.get(_name_of(name[0]).split(" ", 1)[0], "")
    ends = [i + 1 for i in letters]  # behind every letter, the last one too
    yield from (name[:i] + c + name[i:] for c in left_out[:3] for i in ends)
    yield from chain.from_iterable(_beside(name, i, _NEXT_KEYS) for i in inner)
    yield from (name[:i] + " " + name[i:] for i in inner)
    yield from chain.from_iterable(_beside(name, i, _NEXT_KEYS) for i in first)
    yield from (_without(name, i) for i in first)
    yield from (name[:i] + c + name[i:] for c in left_out[3:] for i in ends)
    yield from chain.from_iterable(_beside(name, i, _OTHER_ROW_KEYS) for i in letters)


def _without(name: str, i: int) -> str:
    return name[:i] + name[i + 1 :]


def _swapped(name: str, i: int) -> str:
    return name[: i - 1] + name[i] + name[i - 1] + name[i + 1 :]


def _other_vowels(name: str, i: int) -> Iterator[str]:
    for vowels in _VOWELS:
        if name[i] in vowels:
            yield from (name[:i] + vowel + name[i + 1 :] for vowel in vowels)


def _beside(name: str, i: int, neighbours: dict[str, str]) -> Iterator[str]:
    for key in neighbours.get(name[i], ""):
        yield name[:i] + key + name[i + 1 :]


def _next_keys() -> dict[str, str]:
    found: dict[str, str] = {}
    for row in chain.from_iterable(_KEYBOARDS):
        for left, right in pairwise(row):
            found[left] = found.get(left, "") + right
            found[right] = found.get(right, "") + left
    return {key: "".join(dict.fromkeys(near)) for key, near in found.items()}


def _other_row_keys() -> dict[str, str]:
    # Each row stands half a key to the right of the one above it.
    found: dict[str, str] = {}
    for rows in _KEYBOARDS:
        for upper, lower in pairwise(rows):
            for column, key in enumerate(lower):
                for above in upper[column : column + 2]:
                    found[key] = found.get(key, "") + above
                    found[above] = found.get(above, "") + key
    return {key: "".join(dict.fromkeys(near)) for key, near in found.items()}


_NEXT_KEYS: Final = _next_keys()
_OTHER_ROW_KEYS: Final = _other_row_keys()
