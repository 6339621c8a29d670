"""The architecture, kept by tests: which package may import which, and that the core is pure."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORBIDDEN = {
    "protocol": {"node", "scheduler", "imagepool"},
    "node": {"scheduler", "imagepool"},
    "scheduler": {"node", "imagepool"},
    "config": {"node", "scheduler", "imagepool", "protocol"},
}
"""Package -> packages that it never imports: imports run one way."""

PURE = (
    "protocol/model.py",
    "protocol/recipe.py",
    "protocol/request.py",
    "protocol/blobs.py",
    "protocol/record.py",
    "protocol/after.py",
    "protocol/references.py",
    "protocol/catalog.py",
    "protocol/order.py",
    "protocol/lifecycle.py",
    "protocol/messages.py",
    "protocol/wire.py",
    "protocol/wording.py",
    "protocol/beacon.py",
    "protocol/errors.py",
    "protocol/service.py",
    "protocol/checks.py",
    "protocol/notice_rules.py",
    "protocol/api/specification.py",
    "scheduler/core",
    "node/core",
)
"""Modules, and folders of modules, that do no I/O, keep no time and draw no lots."""

IMPURE = {
    "aiohttp",
    "asyncio",
    "docker",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "tornado",
    "zeroconf",
}

FAMILIES = ("native", "image_creator")
"""API families: none imports another, a store or an engine."""


def modules(*places: str) -> Iterator[Path]:
    """The Python files in these places, relative to the root."""
    for place in places:
        path = ROOT / place
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def wrong_direction(path: Path, package: str) -> list[str]:
    """Imports of a module that its package may not have."""
    return [
        f"{path}:{line} imports {name}"
        for line, name in imports(path)
        if name.split(".")[0] in FORBIDDEN[package]
    ]


def impure(path: Path) -> list[str]:
    """Imports of a pure module that do I/O, keep time or draw lots, themselves or one step
    further.
    """
    found = []
    for line, name in imports(path):
        top = name.split(".")[0]
        if top in IMPURE:
            found.append(f"{path}:{line} imports {name}")
        elif top in ("protocol", "node", "scheduler") and not _is_pure(name):
            found.append(f"{path}:{line} imports {name}, which is not pure")
    return found


def _is_pure(name: str) -> bool:
    path = name.replace(".", "/")
    return any(path.startswith(pure.removesuffix(".py")) for pure in PURE) or name in (
        "protocol.VERSION",
    )


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_run_one_way(package: str) -> None:
    """protocol <- node, protocol <- scheduler, all <- imagepool; node and scheduler never meet."""
    found = [line for path in modules(package) for line in wrong_direction(path, package)]
    assert not found


def test_the_core_is_pure() -> None:
    """The core takes the present as an argument, and values for the rest."""
    paths = list(modules(*PURE))
    assert len(paths) > len(PURE)
    assert not [line for path in paths for line in impure(path)]


def test_nothing_imports_a_composition_root_but_the_command_line() -> None:
    """`app.py` imports everything and nothing imports it."""
    found = [
        f"{path}:{line} imports {name}"
        for path in modules("protocol", "node", "scheduler")
        for line, name in imports(path)
        if name.endswith(".app") or ".app." in name
    ]
    assert not found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_imports_no_other_family(family: str) -> None:
    """An API family is a translation over the build service."""
    others = tuple(f"protocol.api.{other}" for other in FAMILIES if other != family)
    path = ROOT / "protocol" / "api" / f"{family}.py"
    assert not [name for _, name in imports(path) if name.startswith(others)]


def test_a_forbidden_import_is_seen(tmp_path: Path) -> None:
    """The tests above can fail: each kind of forbidden import is found, also inside a function."""
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from node.config import NodeSettings\n    import time\n")
    assert wrong_direction(path, "scheduler") == [f"{path}:2 imports node.config.NodeSettings"]
    assert impure(path)[-1] == f"{path}:3 imports time"
    path.write_text("from protocol.client import HttpService\n")
    assert "not pure" in impure(path)[0]
