"""What is built is what is meant to be shipped, and it runs where it is installed.

One build serves all tests: an sdist, and a wheel from it. Nothing is fetched:
the tools are those of this environment, and so are the dependencies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = [pytest.mark.once, pytest.mark.long, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = sysconfig.get_config_var("EXT_SUFFIX")
MODULES = sorted(path.stem for path in (ROOT / "src_c" / "fastsinks" / "_core").glob("*.pyx"))


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment without what would change the build or find the source."""
    flags = ("FASTSINKS_COVERAGE", "FASTSINKS_SANITIZE", "FASTSINKS_WERROR", "CFLAGS")
    unset = (*flags, "FASTSINKS_BACKEND", "PYTHONPATH")
    changes = {**dict.fromkeys(unset), **changes}
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env if env is not None else environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


class Built(NamedTuple):
    sdist: Path
    wheel: Path


class Installed(NamedTuple):
    python: Path
    package: Path

    def try_code(self, code: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, "-W", "error", "-c", code],
            cwd=self.package.anchor,
            env=environment(**env),
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An sdist of a copy of the working tree, and the wheel that is built from it."""
    tree = tmp_path_factory.mktemp("tree") / "fastsinks"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "bench", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tree, ignore=unwanted)
    # Optimised code is not the point here, and half the time of a build.
    run(
        *(sys.executable, "-m", "build", "--no-isolation"),
        cwd=tree,
        env=environment(CFLAGS="-O0", FASTSINKS_WERROR="1"),
    )
    (sdist,) = (tree / "dist").glob("*.tar.gz")
    (wheel,) = (tree / "dist").glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def fresh(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment that holds the wheel and its dependencies and nothing else of ours."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    (site,) = (folder / "lib").glob("python*/site-packages")
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
        *("--no-index", "--no-deps", "--no-compile", built.wheel),
        cwd=folder,
    )
    # A path in a .pth file is only a path: no editable install comes along with it.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Installed(python, site / "fastsinks")


@pytest.fixture
def breakable(fresh: Installed, tmp_path: Path) -> Installed:
    """The installed package in a place where a test may take it apart."""
    package = tmp_path / "fastsinks"
    shutil.copytree(fresh.package, package)
    return Installed(fresh.python, package)


def names_in_sdist(built: Built) -> set[str]:
    with tarfile.open(built.sdist) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def names_in_wheel(built: Built) -> set[str]:
    with zipfile.ZipFile(built.wheel) as archive:
        return set(archive.namelist())


def test_sdist_has_what_it_takes_to_build(built: Built) -> None:
    names = names_in_sdist(built)
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "src_c" / "fastsinks" / "_core").iterdir()
        if path.suffix in (".pyx", ".pxd", ".h")
    }
    assert sources
    assert sources <= names
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md"} <= names
    assert "Makefile" in names
    assert set(re.findall(r"\btools/[\w/.]+", (ROOT / "Makefile").read_text())) <= names


def test_sdist_has_nothing_that_was_made(built: Built) -> None:
    made = [n for n in names_in_sdist(built) if n.endswith((".c", ".so", ".pyc", ".o"))]
    assert made == []


def test_wheel_has_every_module_stub_and_data_file(built: Built) -> None:
    names = names_in_wheel(built)
    assert {f"fastsinks/_core/{module}{EXTENSION}" for module in MODULES} <= names
    package = ROOT / "fastsinks"
    suffixes = (".py", ".pyi", ".typed", ".ndjson", ".html")
    wanted = {str(path.relative_to(ROOT)) for path in package.rglob("*") if path.suffix in suffixes}
    wanted |= {"fastsinks/py.typed", "fastsinks/_cli/data/registry-events.ndjson"}
    assert wanted <= names


def test_wheel_has_no_sources_of_the_core(built: Built) -> None:
    sources = [n for n in names_in_wheel(built) if n.endswith((".c", ".pyx", ".pxd", ".h"))]
    assert sources == []
    assert {name.split("/")[0].split("-")[0] for name in names_in_wheel(built)} == {"fastsinks"}


def test_metadata(built: Built, fresh: Installed) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode().splitlines()
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata
    required = [line for line in metadata if line.startswith("Requires-Dist: ")]
    assert len(required) == 3
    version = fresh.try_code("import fastsinks; print(fastsinks.__version__)").stdout.strip()
    assert f"Version: {version}" in metadata


def test_wheel_runs_compiled(fresh: Installed) -> None:
    done = fresh.try_code(
        "import fastsinks, sys; print(fastsinks.backend, fastsinks.__file__.startswith(sys.prefix))"
    )
    assert (done.stdout, done.stderr) == ("c True\n", "")


def test_wheel_runs_pure(fresh: Installed) -> None:
    code = "import fastsinks, sys; print(fastsinks.backend, 'fastsinks._core.queue' in sys.modules)"
    done = fresh.try_code(code, FASTSINKS_BACKEND="python")
    assert (done.stdout, done.stderr) == ("python False\n", "")


@pytest.mark.parametrize("command", ["script", "module"])
def test_wheel_has_the_command(fresh: Installed, command: str, tmp_path: Path) -> None:
    script = [fresh.python.parent / "fastsinks"]
    words = script if command == "script" else [fresh.python, "-m", "fastsinks"]
    assert "send" in run(*words, "--help", cwd=tmp_path)


@pytest.mark.parametrize("module", MODULES)
def test_missing_extension_is_a_loud_error(breakable: Installed, module: str) -> None:
    (breakable.package / "_core" / f"{module}{EXTENSION}").unlink()
    code = "import fastsinks"
    done = breakable.try_code(code, PYTHONPATH=str(breakable.package.parent))
    assert done.returncode == 1
    assert "ImportError: the compiled core of fastsinks cannot be loaded" in done.stderr
    assert f"fastsinks._core.{module}" in done.stderr


def test_broken_extension_is_a_loud_error(breakable: Installed) -> None:
    (breakable.package / "_core" / f"queue{EXTENSION}").write_bytes(b"no shared object")
    path = str(breakable.package.parent)
    done = breakable.try_code("import fastsinks", PYTHONPATH=path)
    assert done.returncode == 1
    assert "ImportError: the compiled core of fastsinks cannot be loaded" in done.stderr
    code = "import fastsinks; print(fastsinks.backend)"
    done = breakable.try_code(code, PYTHONPATH=path, FASTSINKS_BACKEND="python")
    assert done.stdout == "python\n", done.stderr


def test_unknown_backend_is_a_loud_error(fresh: Installed) -> None:
    done = fresh.try_code("import fastsinks", FASTSINKS_BACKEND="nonsense")
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "'nonsense'" in done.stderr


def test_header_is_clean_by_itself(tmp_path: Path) -> None:
    """sync.h is written by hand: it has no warnings, whatever generated code has."""
    unit = tmp_path / "unit.c"
    unit.write_text('#include <Python.h>\n#include "sync.h"\n')
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    run(
        *compiler,
        *("-std=c11", "-fsyntax-only", "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes"),
        *("-Werror", "-isystem", sysconfig.get_path("include")),
        *("-isystem", sysconfig.get_path("platinclude")),
        *("-I", ROOT / "src_c" / "fastsinks" / "_core", unit),
        cwd=tmp_path,
    )


# The real setup.py over a core of two modules: nothing is stale after an edit.


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("project")
    core = project / "src_c" / "fastsinks" / "_core"
    core.mkdir(parents=True)
    (project / "fastsinks" / "_core").mkdir(parents=True)
    (project / "fastsinks" / "__init__.py").touch()
    (project / "fastsinks" / "_core" / "__init__.py").touch()
    shutil.copy(ROOT / "setup.py", project)
    (project / "pyproject.toml").write_text(
        '[project]\nname = "toy"\nversion = "1"\n'
        '[tool.setuptools]\npackages = ["fastsinks", "fastsinks._core"]\n'
    )
    (core.parent / "__init__.pxd").touch()
    (core / "__init__.pxd").touch()
    (core / "toy.h").write_text("static inline int toy(void) { return 1; }\n")
    (core / "base.pxd").write_text(
        "cdef class Base:\n    cdef int field\n    cdef int twice(self)\n"
    )
    (core / "base.pyx").write_text(
        'cdef extern from "toy.h":\n    int toy()\n'
        "cdef class Base:\n"
        "    cdef int twice(self):\n        return 2 * toy()\n"
    )
    (core / "user.pyx").write_text(
        "from fastsinks._core.base cimport Base\n"
        "def value(Base base):\n    return base.twice() + sizeof(base.field)\n"
    )
    build_toy(project)
    return project


def build_toy(project: Path, **env: str) -> str:
    return run(
        *(sys.executable, "setup.py", "build_ext", "--inplace"),
        cwd=project,
        env=environment(CFLAGS="-O0", **env),
    )


def value(project: Path) -> int:
    code = "from fastsinks._core import base, user; print(user.value(base.Base()))"
    return int(run(sys.executable, "-c", code, cwd=project))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_rebuild_after_edit_of_header(project: Path) -> None:
    before = value(project)
    edit(project / "src_c/fastsinks/_core/toy.h", "return 1", "return 5")
    build_toy(project)
    assert value(project) == before + 2 * 4


def test_rebuild_after_edit_of_pxd(project: Path) -> None:
    """It changes the layout of an object that a module uses which is not edited."""
    before = value(project)
    edit(project / "src_c/fastsinks/_core/base.pxd", "int field", "long long field")
    build_toy(project)
    assert value(project) == before + 4


def test_rebuild_after_change_of_flags(project: Path) -> None:
    assert "-Werror" in build_toy(project, FASTSINKS_WERROR="1")
    assert "-fsanitize=undefined" in build_toy(project, FASTSINKS_SANITIZE="undefined")
    assert "-fsanitize" not in build_toy(project)


def test_no_rebuild_without_a_change(project: Path) -> None:
    build_toy(project)
    output = build_toy(project)
    assert "ythonizing" not in output
    assert "building" not in output
