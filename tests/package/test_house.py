"""The house: imports go one way, doors are cheap to open, and no room is too large."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastsinks

pytestmark = pytest.mark.once

PACKAGE = Path(fastsinks.__file__).parent
SOURCES = Path(__file__).resolve().parents[2] / "src_c" / "fastsinks" / "_core"

# From the bottom to the top. A module may import from its own floor and from those below. A
# folder is on the floor below its door.
FLOORS = (
    ("_core",),
    ("_http",),
    ("typing", "events", "encoders", "signing", "http"),
    ("_endpoint",),
    ("endpoint",),
    ("monitoring",),
    ("_cli",),
    ("", "__main__"),
)
MOST_LINES = 700
MOST_LINES_OF_THE_TWIN = 2_000

CIMPORT = re.compile(r"^from \.(\w+) cimport ", re.MULTILINE)


def modules() -> dict[str, Path]:
    """Every module of the package, by its name below ``fastsinks``; ``""`` is the package."""
    found = {}
    for path in PACKAGE.rglob("*.py*"):
        if path.suffix in (".py", ".pyi"):
            parts = path.relative_to(PACKAGE).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def import_nodes(tree: ast.AST) -> Iterator[ast.ImportFrom | ast.Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ImportFrom, ast.Import)):
            yield node
        elif not only_for_types(node):
            yield from import_nodes(node)


def imports_of(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that one imports, wherever in the file it does."""
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in import_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            full = [alias.name.split(".") for alias in node.names]
            found |= {".".join(parts[1:]) for parts in full if parts[0] == "fastsinks"}
            continue
        if node.level:
            base = package[: len(package) - node.level + 1]
        elif (node.module or "").split(".")[0] == "fastsinks":
            base = []
        else:
            continue
        words = (node.module or "").split(".") if node.module else []
        base = base + (words if node.level else words[1:])
        for alias in node.names:
            longer = ".".join([*base, alias.name])
            found.add(longer if longer in known else ".".join(base))
    return found


def floor(module: str) -> int:
    room = module.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: imports_of(name, path, known) for name, path in known.items()}


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; none if there is no such thing."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in done:
            for other in sorted(arrows.get(module, ())):
                if found := visit(other, [*way, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in sorted(arrows) if (found := visit(module, []))), [])


def test_every_module_stands_on_a_floor() -> None:
    rooms = {name.split(".")[0] for name in modules()}
    assert rooms <= {room for rooms in FLOORS for room in rooms}


def test_no_arrow_goes_upwards() -> None:
    upwards = [
        f"{name} -> {other}"
        for name, others in graph().items()
        for other in others
        if floor(other) > floor(name)
    ]
    assert upwards == []


def test_no_imports_go_in_a_circle() -> None:
    assert circle(graph()) == []


def test_no_cimports_go_in_a_circle() -> None:
    arrows: dict[str, set[str]] = {}
    for path in SOURCES.glob("*.p[yx]*"):
        arrows.setdefault(path.stem, set()).update(CIMPORT.findall(path.read_text()))
    assert arrows["queue"]
    for name, others in arrows.items():
        others.discard(name)
    assert circle(arrows) == []


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_private_module_lies_beside_the_doors() -> None:
    private = [
        path.name for path in PACKAGE.glob("_*.py*") if path.stem not in ("__init__", "__main__")
    ]
    assert private == []


def test_no_room_is_too_large() -> None:
    paths = [*modules().values(), *SOURCES.iterdir()]
    sizes = {path.name: len(path.read_text().splitlines()) for path in paths if path.is_file()}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_the_twin_is_short() -> None:
    twin = (PACKAGE / "_core" / "pure").glob("*.py")
    assert sum(len(path.read_text().splitlines()) for path in twin) <= MOST_LINES_OF_THE_TWIN


def test_the_twin_mirrors_the_core() -> None:
    """A noun of the compiled core has a file of the same name in the twin."""
    twin = {path.stem for path in (PACKAGE / "_core" / "pure").glob("*.py")}
    assert {path.stem for path in SOURCES.glob("*.pyx")} - twin == set()


def test_only_the_log_touches_the_logger() -> None:
    known = modules()
    touching = [name for name, path in known.items() if "getLogger" in path.read_text()]
    assert touching == ["_core.log"]


# ------------------------------------------------------------------------- what is loaded

HEAVY = ("urllib3", "msgspec", "asyncio", "prometheus_client", "ssl", "inspect")


def loaded_by(statement: str) -> list[str]:
    code = f"import sys; {statement}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("statement", ["import fastsinks._core", "from fastsinks import Queue"])
@pytest.mark.parametrize("backend", ["c", "python"])
def test_the_core_loads_no_http(
    statement: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSINKS_BACKEND", backend)
    assert loaded_by(statement) == []


@pytest.mark.parametrize("name", ["Endpoint", "HTTPSink", "http", "endpoint", "encoders", "events"])
def test_a_door_opens_when_it_is_asked_for(name: str) -> None:
    assert {"urllib3", "msgspec"} & set(loaded_by(f"import fastsinks; fastsinks.{name}"))


def test_dir_tells_of_what_is_not_loaded_yet() -> None:
    code = "import fastsinks; print(*dir(fastsinks))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(fastsinks.__all__) <= set(done.stdout.split())


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastsinks' has no attribute 'nonsense'"):
        fastsinks.nonsense  # noqa: B018
    assert not hasattr(fastsinks, "_core.nonsense")
