"""Compiles every module of the package that has a .pxd beside it; everything else is in pyproject.toml.

An extension is rebuilt when its sources' content changed, whatever their dates say: chimney/_build.py computes the
digest, the linker writes it into the .so as its build ID. CHIMNEY_PURE=1 compiles nothing.
"""

import fcntl
import importlib.util
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
SOURCE = Path("src")
DIRECTIVES = {"language_level": 3, "annotation_typing": False, "nonecheck": True}


def load_build_module():
    """chimney/_build.py by its path: the package itself may not be importable yet."""
    spec = importlib.util.spec_from_file_location("chimney_build", HERE / "src/chimney/_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load_build_module()


def extension(name):
    return Extension(
        name,
        [str(SOURCE / (name.replace(".", "/") + ".py"))],
        extra_compile_args=["-O2", "-g0"],
        extra_link_args=[f"-Wl,--build-id=0x{build.source_digest(name)}"],
    )


class BuildExtensions(build_ext):
    """build_ext that compiles what changed, tries every module before it gives up, and removes orphans."""

    def run(self):
        self.failed = []
        Path("build").mkdir(exist_ok=True)
        with open("build/lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.inplace:
                self.remove_orphans()
                # A folder of its own: what lies in build/lib goes into the next wheel, orphans too.
                self.build_lib = "build/inplace"
                if not self.force:
                    self.extensions = [e for e in self.extensions if not build.is_current(e.name)]
            super().run()
        if self.failed:
            sys.exit("not compiled: " + ", ".join(sorted(self.failed)))

    def remove_orphans(self):
        """An .so whose module has no .pxd any more would go on hiding its .py."""
        for orphan in build.orphans():
            print("removing", orphan)
            orphan.unlink()

    def build_extensions(self):
        self.check_extensions_list(self.extensions)
        ready = [e for e in self.extensions if self.translate(e)]
        with ThreadPoolExecutor(self.parallel or len(os.sched_getaffinity(0))) as pool:
            compiled = list(pool.map(self.compile, ready))
        self.extensions = [e for e, ok in zip(ready, compiled, strict=True) if ok]

    def translate(self, ext):
        from Cython.Build import cythonize
        from Cython.Compiler.Errors import CompileError

        print("cythonizing", ext.name, flush=True)
        try:
            (translated,) = cythonize(
                [ext],
                force=True,
                quiet=True,
                include_path=[str(SOURCE)],
                build_dir="build/c",
                compiler_directives=DIRECTIVES,
            )
        except CompileError as error:
            print(error, file=sys.stderr)
            self.failed.append(ext.name)
            return False
        ext.sources = translated.sources
        return True

    def compile(self, ext):
        from setuptools.errors import CompileError, LinkError

        try:
            self.build_extension(ext)
        except (CompileError, LinkError) as error:
            print(f"{ext.name}: {error}", file=sys.stderr)
            self.failed.append(ext.name)
            return False
        return True


os.chdir(HERE)
pure = build.pure_requested()
setup(
    ext_modules=[] if pure else [extension(name) for name in build.expected()],
    cmdclass={"build_ext": BuildExtensions},
)
