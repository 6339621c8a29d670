"""The architecture, kept by tests: which package may import which, in which order what lies in it
builds on each other, and that the core is pure.
"""

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

ORDER = {
    "protocol": (
        "errors",
        "wording",
        "wire",
        "model",
        "ports",
        "concurrency",
        "transfer",
        "storage",
        "trust",
        "api",
        "remote",
        "program",
        "builds",
    ),
    "node": (
        "core",
        "config",
        "records",
        "engines",
        "network",
        "files",
        "container",
        "inputs",
        "outputs",
        "attempt",
    ),
    "scheduler": (
        "core",
        "config",
        "stores",
        "ledger",
        "plain",
        "pool",
        "dispatch",
        "roster",
    ),
}
"""Package -> what lies in it, packages and modules: each imports only from itself and from those
before it. What is not named comes after all that is.
"""

PURE = (
    "protocol/api/image_creator/specification.py",
    "protocol/builds/after.py",
    "protocol/builds/catalog.py",
    "protocol/builds/order.py",
    "protocol/errors.py",
    "protocol/model",
    "protocol/ports",
    "protocol/program/beacon.py",
    "protocol/wire.py",
    "protocol/wording.py",
    "node/core",
    "scheduler/core",
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

API = "protocol.api"
FAMILIES = ("native", "image_creator", "people")
"""API families, packages in `API`: none imports another, and what they share imports none."""


def modules(*places: str) -> Iterator[Path]:
    """The Python files in these places."""
    for place in places:
        path = ROOT / place
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def name_of(path: Path) -> str:
    """A module's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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


def out_of_order(path: Path, module: str) -> list[str]:
    """Imports of a module, by its dotted name, of what comes after it in its package."""
    return [
        f"{path}:{line} imports {name}, which comes after it"
        for line, name in imports(path)
        if name.split(".")[0] == module.split(".")[0] and _place(name) > _place(module)
    ]


def _place(name: str) -> int:
    """How many come before it in its package; none before what is no module, as VERSION is."""
    package, part, *_ = (*name.split("."), "")
    order, path = ORDER[package], ROOT / package / part
    if not (part and (path.is_dir() or path.with_suffix(".py").exists())):
        return 0
    return order.index(part) if part in order else len(order)


def of_families(path: Path, module: str) -> list[str]:
    """Imports of a module in `API`, by its dotted name, of families that it is not of."""
    others = [f"{API}.{family}" for family in FAMILIES]
    return [
        f"{path}:{line} imports {name}"
        for line, name in imports(path)
        for other in others
        if _is_in(name, other) and not _is_in(module, other)
    ]


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


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
    pure = [place.removesuffix(".py").replace("/", ".") for place in PURE]
    return name == "protocol.VERSION" or any(_is_in(name, place) for place in pure)


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_run_one_way(package: str) -> None:
    """protocol <- node, protocol <- scheduler, all <- imagepool; node and scheduler never meet."""
    found = [line for path in modules(package) for line in wrong_direction(path, package)]
    assert not found


@pytest.mark.parametrize("package", sorted(ORDER))
def test_what_lies_in_a_package_is_in_order(package: str) -> None:
    """Each imports only from itself and from those before it; each that is named is there."""
    found = [line for path in modules(package) for line in out_of_order(path, name_of(path))]
    assert not found
    there = {path.stem if path.is_file() else path.name for path in (ROOT / package).iterdir()}
    assert not set(ORDER[package]) - there


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


def test_a_family_imports_no_other_family() -> None:
    """An API family is a translation over the build service, and what families share knows none."""
    assert all((ROOT / API.replace(".", "/") / family).is_dir() for family in FAMILIES)
    places = modules(API.replace(".", "/"))
    assert not [line for path in places for line in of_families(path, name_of(path))]


def test_a_forbidden_import_is_seen(tmp_path: Path) -> None:
    """The tests above can fail: each kind of forbidden import is found, also inside a function."""
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from node.config import NodeSettings\n    import time\n")
    assert wrong_direction(path, "scheduler") == [f"{path}:2 imports node.config.NodeSettings"]
    assert impure(path)[-1] == f"{path}:3 imports time"
    assert out_of_order(path, "node.core.plan")
    assert not out_of_order(path, "node.engines.docker")
    path.write_text("from protocol.remote.client import HttpService\n")
    assert "not pure" in impure(path)[0]
    assert out_of_order(path, "protocol.model.build") == [
        f"{path}:1 imports protocol.remote.client.HttpService, which comes after it"
    ]
    path.write_text("from protocol import VERSION, program\n")
    assert len(out_of_order(path, "protocol.api.base")) == 1
    assert not out_of_order(path, "protocol.builds.notices")
    path.write_text("def f():\n    from node import service\n")
    assert len(out_of_order(path, "node.attempt.builder")) == 1
    assert not out_of_order(path, "node.app")
    path.write_text("from protocol.api.native.views import view\n")
    assert len(of_families(path, "protocol.api.base")) == 1
    assert len(of_families(path, "protocol.api.image_creator.handlers")) == 1
    assert not of_families(path, "protocol.api.native.builds")
