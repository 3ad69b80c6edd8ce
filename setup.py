"""Compiles src_c/fastsinks/_core/*.pyx to the extension modules fastsinks._core.*.

Everything else about the package is said in pyproject.toml. Three environment
variables change the compiler's flags:

FASTSINKS_WERROR=1              warnings are errors (CI)
FASTSINKS_SANITIZE=address,...  build with -fsanitize=address,...
FASTSINKS_COVERAGE=1            count for gcov which lines of the .pyx, .pxd and .h run
"""

from __future__ import annotations

import os
from pathlib import Path

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("src_c")
CORE = SOURCES / "fastsinks" / "_core"
COVERAGE = os.environ.get("FASTSINKS_COVERAGE", "") not in ("", "0")
# Generated C is the same for every interpreter, not for every version of Cython. Where lines are
# counted, it says which of ours each of its own is from.
GENERATED = Path("build", f"cython-{Cython.__version__}" + "-lines" * COVERAGE)

DIRECTIVES = {
    "language_level": 3,
    # Plain methods: a call such as Queue.write costs 18 ns instead of 22. They have no
    # signature of their own, so it is embedded where inspect.signature finds it.
    "binding": False,
    "embedsignature": True,
    "embedsignature.format": "clinic",
    "boundscheck": False,
    "cdivision": True,
    "initializedcheck": False,
    "wraparound": False,
}


def compiler_flags() -> list[str]:
    flags = ["-pthread", "-Wall", "-Wextra"]
    if "-O" not in os.environ.get("CFLAGS", ""):
        flags.append("-O3")
    if os.environ.get("FASTSINKS_WERROR", "") not in ("", "0"):
        flags.append("-Werror")
    return flags


def sanitizer_flags() -> list[str]:
    names = os.environ.get("FASTSINKS_SANITIZE", "")
    return [f"-fsanitize={names}", "-fno-omit-frame-pointer", "-g"] if names else []


def coverage_flags() -> list[str]:
    return ["--coverage"] if COVERAGE else []


def flags_stamp(objects: str, flags: list[str]) -> Path:
    """A file that is younger than the objects whenever the flags are not those they had."""
    stamp = Path(objects, "flags.txt")
    text = "\n".join([*flags, os.environ.get("CFLAGS", ""), os.environ.get("CC", "")])
    if not stamp.exists() or stamp.read_text() != text:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(text)
    return stamp


def is_stale(shared: list[Path]) -> bool:
    """Whether any generated C is older than a file that every module may depend on.

    Cython follows cimports by itself; it does not know about this file's
    directives, and being sure costs seconds.
    """
    generated = list(GENERATED.rglob("*.c"))
    newest = max(path.stat().st_mtime for path in shared)
    return any(path.stat().st_mtime <= newest for path in generated)


def extensions() -> list[Extension]:
    modules = sorted(CORE.glob("*.pyx"))
    if not modules:
        raise SystemExit(f"no modules to compile in {CORE.absolute()}")
    compile_flags, checks = compiler_flags(), [*sanitizer_flags(), *coverage_flags()]
    return [
        Extension(
            f"fastsinks._core.{path.stem}",
            [str(path)],
            include_dirs=[str(SOURCES), str(CORE)],
            extra_compile_args=compile_flags + checks,
            extra_link_args=["-pthread", *checks],
        )
        for path in modules
    ]


class BuildCore(build_ext):
    """Generates the C, when it comes to compiling and not before; compiles side by side."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count() or 1

    def run(self) -> None:
        shared = [*CORE.glob("*.pxd"), *CORE.glob("*.h"), Path("setup.py")]
        generated = cythonize(
            self.extensions,
            build_dir=str(GENERATED),
            compiler_directives=DIRECTIVES,
            emit_linenums=COVERAGE,
            force=is_stale(shared),
            include_path=[str(SOURCES)],
        )
        stamp = flags_stamp(self.build_temp, self.extensions[0].extra_compile_args)
        for extension, compiled in zip(self.extensions, generated, strict=True):
            extension.sources = compiled.sources
            extension.depends = [str(path) for path in [*shared, stamp]]
        super().run()


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildCore})
