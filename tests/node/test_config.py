"""Settings: read strictly, written with their explanations."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.config import (
    GuardianConfig,
    _toml,
    config_text,
    read_config,
    split_address,
    write_config,
)
from protocol.errors import Refused


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "guardian.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    """Without file, environment and flags there are the defaults."""
    assert read_config() == GuardianConfig()


def test_precedence(tmp_path: Path) -> None:
    """A flag wins over the environment, that over the file, that over the default."""
    path = written(tmp_path, 'name = "file"\nlisten = "127.0.0.1:1"\ncontact = "file"\n')
    config = read_config(
        path,
        environment={"HOLDFAST_LISTEN": "127.0.0.1:2", "HOLDFAST_NAME": "environment", "HOME": "/"},
        flags={"name": "flag", "log": None},
    )
    assert (config.name, config.listen, config.contact) == ("flag", "127.0.0.1:2", "file")
    assert config.log == "console"


def test_environment_kinds() -> None:
    """In the environment numbers are digits and lists have commas."""
    config = read_config(
        environment={"HOLDFAST_VAULTS_MAX": "12", "HOLDFAST_LANGUAGES": "en, pt-BR,"}
    )
    assert config.vaults_max == 12
    assert config.languages == ("en", "pt-BR")
    with pytest.raises(Refused, match="HOLDFAST_VAULTS_MAX must be a whole number"):
        read_config(environment={"HOLDFAST_VAULTS_MAX": "many"})


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    """A misspelt key is refused, with the one that was probably meant."""
    with pytest.raises(Refused, match="“listn”") as caught:
        read_config(written(tmp_path, 'listn = "127.0.0.1:1"'))
    assert "“listen”" in caught.value.hint
    with pytest.raises(Refused, match="HOLDFAST_LISTN") as caught:
        read_config(environment={"HOLDFAST_LISTN": "127.0.0.1:1"})
    assert "HOLDFAST_LISTEN" in caught.value.hint
    assert read_config(environment={"HOLDFAST_HOME": "/somewhere"}) == GuardianConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = Maria", "cannot be understood"),
        ("vaults_max = true", "wrong kind"),
        ('vaults_max = "12"', "wrong kind"),
        ("languages = [1]", "wrong kind"),
        ("[name]\nfirst = 1", "wrong kind"),
        ("vaults_max = 0", "from 1 to 100,000,000"),
        ("vaults_max = " + "1" * 9999, "cannot be understood|from 1"),
        ('listen = "7001"', "not an address"),
        ('listen = "::1:7001"', "not an address"),
        ('listen = "host:70000"', "not an address"),
        ('advertise = "0.0.0.0:7001"', "nobody can call"),
        ('advertise = "[::]:7001"', "nobody can call"),
        ('advertise = ":7001"', "nobody can call"),
        ('advertise = "host:0"', "nobody can call"),
        ('admission = "all"', '"invite" or "admitted"'),
        ('languages = ["English"]', "language code"),
        (f"languages = {['en'] * 9}", "9 languages"),
        (f'name = "{"ä" * 33}"', "66 bytes, and at most 64"),
        ('name = "two\\nlines"', "one line"),
        ('name = "\\u202Eanna"', "one line"),
        ('name = "a"\nname = "b"', "cannot be understood"),
        ("x = " + "[" * 5000, "cannot be understood"),
        ("#" * 70_000, "more than 65,536 bytes"),
    ],
)
def test_refused(tmp_path: Path, text: str, words: str) -> None:
    """What cannot be used is refused with a sentence."""
    with pytest.raises(Refused, match=words):
        read_config(written(tmp_path, text))


def test_unreadable(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no text are refused with the path."""
    with pytest.raises(Refused, match="no settings file at") as caught:
        read_config(tmp_path / "none.toml")
    assert "guardian init" in caught.value.hint
    with pytest.raises(Refused, match="cannot be read"):
        read_config(tmp_path)
    (tmp_path / "b").write_bytes(b"\xff")
    with pytest.raises(Refused, match="not text"):
        read_config(tmp_path / "b")


def test_every_script(tmp_path: Path) -> None:
    """Names of people hold every script, joiners included."""
    for name in ("Ðorđe", "محمد‌رضا", "क्‍षमा", "Ἀνδρέας", "王小明"):
        path = tmp_path / "guardian.toml"
        write_config(path, GuardianConfig(name=name), replace=True)
        assert read_config(path).name == name


def texts(limit: int) -> st.SearchStrategy[str]:
    """Text that settings take."""
    plain = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
    turns = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return st.text(plain, max_size=limit).filter(
        lambda text: len(text.encode()) <= limit and not set(text) & set(turns)
    )


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        GuardianConfig,
        name=texts(64),
        contact=texts(200),
        hours=texts(200),
        languages=st.lists(st.sampled_from(["en", "de", "pt-BR", "zh-Hant-TW"]), max_size=8).map(
            tuple
        ),
        vaults_max=st.integers(1, 10**8),
        store_bytes_max=st.integers(2**26, 2**60),
        admission=st.sampled_from(["invite", "admitted"]),
    )
)
def test_round_trip(config: GuardianConfig) -> None:
    """What is written is read back equal."""
    raw = tomllib.loads(config_text(config))
    raw["languages"] = tuple(raw["languages"])
    assert GuardianConfig(**raw) == config


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers(-(2**63), 2**63 - 1)
    | st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple)
)
def test_writer(value: Any) -> None:
    """The TOML writer says what TOML readers understand, for any text and number."""
    found = tomllib.loads(f"x = {_toml(value)}")["x"]
    assert (tuple(found) if isinstance(found, list) else found) == value


def test_file_explains_itself(tmp_path: Path) -> None:
    """Every key stands in the file under a comment, and the file is never replaced unasked."""
    path = tmp_path / "guardian.toml"
    write_config(path, GuardianConfig(name="Anna"))
    lines = path.read_text().splitlines()
    for key in dataclasses.fields(GuardianConfig):
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{key.name} = "))
        assert lines[place - 1].startswith("# ")
    assert all(len(line) <= 100 for line in lines)
    with pytest.raises(Refused, match="already a file"):
        write_config(path, GuardianConfig())
    assert read_config(path).name == "Anna"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:7001", "127.0.0.1", 7001),
        ("[2001:db8::1]:1", "2001:db8::1", 1),
        (":7001", "", 7001),
        ("example.org:0", "example.org", 0),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    """Host and port are taken apart, brackets off."""
    assert split_address(text) == (host, port)


@given(st.text(max_size=30))
def test_any_address(text: str) -> None:
    """Any text is an address or is refused."""
    try:
        _, port = split_address(text)
    except Refused:
        return
    assert 0 <= port <= 65_535
