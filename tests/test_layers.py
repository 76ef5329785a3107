"""The shape of the code: who may import what, who may touch the world, how long a file is."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("protocol", "node", "simulations")
MODULES = {
    str(path.relative_to(ROOT)): path
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}

# Imports point this way only: a layer and those it may use.
MAY_USE = {"protocol": ("protocol",), "node": ("node", "protocol"), "simulations": LAYERS}

# What reaches the outside world, which the pure layer must not.
IMPURE = {
    "trio", "socket", "ssl", "os", "io", "time", "datetime", "random", "secrets", "uuid",
    "threading", "multiprocessing", "concurrent", "asyncio", "signal", "subprocess", "select",
    "logging", "structlog", "pathlib", "shutil", "tempfile", "glob", "sys", "platform", "getpass",
    "urllib", "http", "ctypes", "weakref", "gc", "apsw", "sqlite3", "msgpack",
}  # fmt: skip

# One owner for each dependency: everyone else goes through it.
OWNERS = {
    "cbor2": ("protocol/encoding.py",),
    "unicodedata2": ("protocol/names.py",),
    "nacl": ("protocol/keys.py", "protocol/sharing.py", "protocol/sealing.py"),
    "pyeclib": ("protocol/fragments.py",),
    "msgpack": ("node/framing.py",),
    "apsw": (
        "node/store.py",
        "simulations/disk.py",  # it is the disk under the database
        "simulations/determinism.py",
        "simulations/world.py",  # these two see a power cut as the database's error
        "simulations/hosts/full.py",
    ),
    "sqlite3": (),
    "mnemonic": ("node/words.py",),
    "segno": ("node/qr.py",),
    "zxingcpp": ("node/qr.py",),
    "PIL": ("node/qr.py", "node/wallet/papers.py"),
}

# The adapters and the composition roots: these few may touch the world.
ADAPTERS = (
    "node/transport.py", "node/certificate.py", "node/framing.py", "node/workers.py",
    "node/clock.py", "node/config.py", "node/keystore.py", "node/store.py", "node/desk.py",
    "node/daemon.py", "node/terminal.py", "node/qr.py", "node/demo.py", "node/__main__.py",
    "node/wallet/folder.py", "node/commands/",
)  # fmt: skip
WORLDLY_MODULES = {"time", "random", "secrets", "uuid", "signal", "subprocess"}
WORLDLY_NAMES = {
    "os.urandom", "datetime.now", "datetime.datetime.now", "datetime.utcnow", "date.today",
    "trio.to_thread", "trio.from_thread", "trio.Path", "trio.open_tcp_stream",
    "trio.open_tcp_listeners", "trio.serve_tcp", "trio.open_file", "trio.run_process",
    "trio.open_signal_receiver", "threading.Thread",
}  # fmt: skip

LINES_MAX = 420  # about 400; what is longer is listed, with the reason why it is one thing
LONGER = {
    "protocol/casework.py": "every release is decided here, and the fold that leads to it",
    "protocol/custody.py": "deposits, versions and receipts share the rows they check",
    "protocol/federation.py": "introductions, rosters and invites are one chain of trust",
    "protocol/gossip.py": "one machine: logs, relays, digests and the proofs against liars",
    "protocol/names.py": "half of it are the tables of scripts and variants",
    "protocol/service.py": "one answer for each request of a wallet, in one table",
    "protocol/vault.py": "a deal, its pieces and versions are checked by one set of rules",
    "protocol/verbs.py": "one verb after the other, in one table",
    "node/demo.py": "a story, told from its beginning to its end",
    "simulations/byzantine.py": "each way of lying a few lines, all of them in one catalogue",
    "simulations/explore.py": "one walk: the plan, the steps, and the oracle over each",
    "simulations/explore_cores.py": "what makes two states one is decided in one place",
    "simulations/faults.py": "each fault a few lines, all of them in one catalogue",
    "simulations/hosts/fast.py": "one engine: its heap, its links and its nodes",
    "simulations/hosts/full.py": "one engine: the ports of a node, all of them simulated",
    "simulations/disk.py": "a file system of its own: every call of the database's interface",
}


@functools.cache
def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(), name)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module imported anywhere in the file, as a dotted name, and its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            yield node.module or "", node.lineno


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute, or nothing for what is more complicated."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def worldly(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Uses of time, chance, threads, files and processes that only adapters may make."""
    for module, line in imports(tree):
        if module.split(".")[0] in WORLDLY_MODULES:
            yield module, line
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node) in WORLDLY_NAMES:
            yield dotted(node), node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in WORLDLY_NAMES:
                    yield f"{node.module}.{alias.name}", node.lineno


def is_set(node: ast.AST) -> bool:
    return isinstance(node, ast.Set | ast.SetComp) or (
        isinstance(node, ast.Call) and dotted(node.func) in ("set", "frozenset")
    )


ORDERED = ("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "dict.fromkeys")


def sets_iterated(tree: ast.AST) -> Iterator[int]:
    """Lines where the order of a set could act."""
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) and is_set(node.iter):
            yield node.iter.lineno
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            taken = name in ORDERED or method in ("join", "extend", "fromkeys")
            if taken and any(is_set(argument) for argument in node.args):
                yield node.lineno
        elif isinstance(node, ast.Starred) and is_set(node.value):
            yield node.lineno


def literals(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every text in the code, with a question mark for what is put in when it runs."""
    inner: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner += node.values
            parts = [
                str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values
            ]
            yield "".join(parts), node.lineno
        elif isinstance(node, ast.Constant) and type(node.value) is str and node not in inner:
            yield node.value, node.lineno


LOOKUPS = (
    r"WHERE key = \?$",
    r"WHERE seat = \? AND incarnation = \? AND seq = \?$",
    r"WHERE version = \? AND idx = \?$",
)


def is_ordered(query: str) -> bool:
    """Whether a query has one order of rows only: sorted, one row by its key, or a number."""
    words = " ".join(query.split())
    if "ORDER BY" in words:
        return True
    single = re.match(r"SELECT (count|max|min|sum|total|EXISTS)\s?\(", words, re.IGNORECASE)
    return (single is not None and "GROUP BY" not in words) or any(
        re.search(lookup, words) for lookup in LOOKUPS
    )


# --- the rules -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    """simulations use node, node uses protocol, and never the other way round."""
    layer = name.split("/")[0]
    for module, line in imports(parse(name)):
        top = module.split(".")[0]
        assert top not in (*LAYERS, "tests", "benchmarks") or top in MAY_USE[layer], (
            f"{name}:{line} imports {module}"
        )


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("protocol/")])
def test_the_protocol_is_pure(name: str) -> None:
    """No socket, clock, chance, thread, file or log: time and randomness are arguments."""
    tree = parse(name)
    for module, line in imports(tree):
        assert module.split(".")[0] not in IMPURE, f"{name}:{line} imports {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called == "hash" and name == "protocol/keys.py":
                continue  # `__hash__` itself
            assert called not in ("open", "print", "input", "id", "hash", "exec", "eval"), (
                f"{name}:{node.lineno} calls {called}"
            )
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{name} waits"


@pytest.mark.parametrize("dependency", OWNERS)
def test_each_dependency_has_one_owner(dependency: str) -> None:
    """A library is met at one place, where its traps are known."""
    users = [
        name
        for name in MODULES
        if any(module.split(".")[0] == dependency for module, _ in imports(parse(name)))
    ]
    assert [user for user in users if user not in OWNERS[dependency]] == []


@pytest.mark.parametrize(
    "name",
    [name for name in MODULES if name.startswith("node/") and not name.startswith(ADAPTERS)],
)
def test_only_adapters_touch_the_world(name: str) -> None:
    """The rest of the node gets time, chance, threads and streams handed in."""
    found = [f"{name}:{line} uses {what}" for what, line in worldly(parse(name))]
    assert found == []


@pytest.mark.parametrize("name", MODULES)
def test_no_order_of_a_set_acts(name: str) -> None:
    """Sets are for membership; whoever goes through one sorts it first."""
    if not name.startswith("simulations/"):
        assert [f"{name}:{line}" for line in sets_iterated(parse(name))] == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("node/")])
def test_every_query_is_ordered(name: str) -> None:
    """Rows come in one order, so that two runs of one seed are the same run."""
    for query, line in literals(parse(name)):
        if query.lstrip().startswith("SELECT "):
            assert is_ordered(query), f"{name}:{line} asks in no order: {query}"


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_imported_wholesale(name: str) -> None:
    """No star imports, and no modules that gather what has no better place."""
    for node in ast.walk(parse(name)):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"{name}:{node.lineno}"
    assert Path(name).stem not in ("utils", "util", "helpers", "common", "misc"), name


@pytest.mark.parametrize("name", MODULES)
def test_files_stay_short(name: str) -> None:
    """What does not fit on a few screens is two things, or is listed with its reason."""
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= LINES_MAX or name in LONGER, f"{name} has {lines} lines"


def test_the_list_of_long_files_is_up_to_date() -> None:
    """A file that became short again, or is gone, needs no excuse any more."""
    for name in LONGER:
        assert name in MODULES, f"{name} is gone"
        lines = len(MODULES[name].read_text().splitlines())
        assert lines > LINES_MAX * 3 // 4, f"{name} is short now"


def test_tests_need_no_packages() -> None:
    """Tests are found by path: an `__init__.py` there would shadow the product."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


# --- the rules are sharp -------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "[x for x in {z for z in y}]",
        "list(set(y))",
        "', '.join({a for a in b})",
        "f(*frozenset(y))",
        "out.extend(set(y))",
    ],
)
def test_an_iterated_set_is_found(code: str) -> None:
    """The check sees what it is there for."""
    assert list(sets_iterated(ast.parse(code)))


@pytest.mark.parametrize("code", ["sorted(set(y))", "x in {1, 2}", "len({a for a in b})"])
def test_a_set_for_membership_is_fine(code: str) -> None:
    """The check lets alone what no order can reach."""
    assert not list(sets_iterated(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from random import Random",
        "import os\nos.urandom(3)",
        "from os import urandom",
        "import trio\ntrio.to_thread.run_sync(f)",
        "from datetime import datetime\ndatetime.now()",
    ],
)
def test_a_touch_of_the_world_is_found(code: str) -> None:
    """The check sees what it is there for."""
    assert list(worldly(ast.parse(code)))


@pytest.mark.parametrize(
    ("query", "ordered"),
    [
        ("SELECT a FROM b", False),
        ("SELECT a FROM b WHERE c = ?", False),
        ("SELECT seat, max(seq) FROM entry GROUP BY seat", False),
        ("SELECT a FROM b WHERE key = ?", True),
        ("SELECT a FROM b ORDER BY c", True),
        ("SELECT count(*) FROM b", True),
    ],
)
def test_an_unordered_query_is_found(query: str, ordered: bool) -> None:
    """The check sees what it is there for."""
    assert is_ordered(query) is ordered
