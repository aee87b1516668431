"""Extension modules only; everything else is in setup.cfg.

Each instruction set is one static library with its own flags, so that no flag reaches code that runs
before the CPU has been asked what it can do. build_clib compiles serially; we hand it a thread pool.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("LOWPREC_SANITIZE") == "1"

COMMON = [
    "-std=c++17",
    "-O1" if SANITIZE else "-O2",
    "-ffp-contract=off",  # GCC contracts even intrinsics into FMA by default
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-fno-tree-pre",  # tree-PRE rotates accumulators and spills them
    "-Wall",
    "-Wextra",
    "-fPIC",
]
if SANITIZE:
    COMMON += ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]

ISA_FLAGS = {
    "scalar": ["-fno-tree-vectorize"],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512vnni": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma",
                   "-mprefer-vector-width=512"],
}

HEADERS = sorted(glob("_ext/*.h") + glob("_ext/kernels/*.h") + glob("_ext/kernels/impl/*")
                 + glob("_ext/engine/*.h"))
LIBRARIES = [
    (
        f"lowprec_{isa}",
        {
            "sources": [f"_ext/kernels/{isa}.cpp"],
            "cflags": COMMON + flags,
            "include_dirs": ["_ext"],
            "obj_deps": {"": HEADERS},
        },
    )
    for isa, flags in ISA_FLAGS.items()
]


class ParallelCompile:
    """Compile the sources of one library or extension side by side."""

    def build_with_threads(self, build, items) -> None:
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            list(pool.map(build, items))


class BuildLibraries(build_clib, ParallelCompile):
    def build_libraries(self, libraries) -> None:
        one = super().build_libraries
        self.build_with_threads(lambda library: one([library]), libraries)


class BuildExtension(build_ext):
    """Compile the engine's translation units side by side: distutils' own compile() is serial."""

    def build_extensions(self) -> None:
        compiler = self.compiler
        serial = compiler.compile

        def compile_parallel(sources, **options):
            with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
                done = list(pool.map(lambda source: serial([source], **options), sources))
            return [item for objects in done for item in objects]

        compiler.compile = compile_parallel
        super().build_extensions()


core = Extension(
    "lowprec._ext._core",
    sources=["_ext/_core.pyx", *sorted(glob("_ext/engine/*.cpp")), "_ext/cpu.cpp"],
    depends=HEADERS,
    include_dirs=["_ext", np.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=[flag for flag in COMMON if flag != "-Wextra"],
    extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
    language="c++",
)

setup(
    libraries=LIBRARIES,
    ext_modules=cythonize([core], language_level=3),
    cmdclass={"build_clib": BuildLibraries, "build_ext": BuildExtension},
)
