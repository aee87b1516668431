"""Extension modules only; everything else is in setup.cfg.

Each instruction set is one static library with its own flags, so that no flag reaches code that
runs before the CPU has been asked what it can do (tests/test_isa_isolation.py looks at the result).

LOWPREC_SANITIZE=1 builds with the address and undefined-behaviour sanitizers (`make sanitize`).
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("LOWPREC_SANITIZE") == "1"
# One fixed folder: pip builds in a new temporary one each time, and would compile everything again.
OBJECTS = f"build/objects/{sysconfig.get_platform()}-{sys.implementation.cache_tag}" + (
    "-sanitize" if SANITIZE else ""
)
# What embedders compile against (lowprec.get_include()), and our own module too: Cython looks for
# the .pxd of lowprec._ext._core in folders of these names, and does not know package_dir.
EMBEDDING = "_ext/include"

COMMON = [
    "-std=c++17",
    "-O1" if SANITIZE else "-O2",
    "-g0",
    "-ffp-contract=off",  # GCC contracts even intrinsics into FMA by default
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-fno-tree-pre",  # tree-PRE rotates accumulators and spills them
    "-Wall",
    "-Wextra",
    "-fPIC",
]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
if SANITIZE:
    COMMON = [flag for flag in COMMON if flag != "-g0"] + ["-g", *SANITIZERS]

AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [
    *AVX2,
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"),
    "-mprefer-vector-width=512",
]
VNNI = [*AVX512, "-mavx512vnni"]
BF16 = [*VNNI, "-mavx512bf16"]
# By architecture: the library of each instruction set (_ext/kernels/NAME.cpp) and its flags.
ISA_FLAGS = {
    "x86_64": {
        "scalar": ["-fno-tree-vectorize"],
        "avx2": AVX2,
        "avxvnni": [*AVX2, "-mavxvnni"],
        "avxvnni_evex": AVX2,  # the instruction itself is written as asm
        "avx512": AVX512,
        "avx512vnni": VNNI,
        "avx512bf16": BF16,
        "amx": [*BF16, "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
        "amx_model": AVX512,
    },
    "aarch64": {
        "scalar": ["-fno-tree-vectorize"],
        "neon": ["-march=armv8-a"],
        "dotprod": ["-march=armv8.2-a+dotprod"],
        "i8mm": ["-march=armv8.2-a+dotprod+i8mm"],
    },
}
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(
    platform.machine().lower(), platform.machine().lower()
)
if MACHINE not in ISA_FLAGS:
    known = ", ".join(ISA_FLAGS)
    sys.exit(f"lowprec builds on {known} in this version; this machine is {platform.machine()}")

HEADERS = sorted(path for end in ("h", "inl") for path in glob(f"_ext/**/*.{end}", recursive=True))
KERNEL_SOURCES = sorted(glob("_ext/kernels/*.cpp"))

LIBRARIES = [
    (
        f"lowprec_{isa}",
        {
            "sources": [f"_ext/kernels/{isa}.cpp"],
            # Kernels throw nothing, and what unwinding needs is a weak symbol.
            "cflags": [*COMMON, "-fno-exceptions", *flags],
            "include_dirs": ["_ext"],
            "obj_deps": {"": ["setup.py", *HEADERS]},
        },
    )
    for isa, flags in ISA_FLAGS[MACHINE].items()
]


def is_fresh(product: str, made_from: list[str]) -> bool:
    if not os.path.exists(product):
        return False
    made = os.path.getmtime(product)
    return all(os.path.getmtime(path) < made for path in made_from)


class BuildLibraries(build_clib):
    """The per-ISA libraries side by side: build_clib itself compiles serially."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.build_temp = self.build_clib = OBJECTS

    def build_libraries(self, libraries) -> None:
        one = super().build_libraries
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            list(pool.map(lambda library: one([library]), libraries))


class BuildExtension(build_ext):
    """The engine's sources side by side, and only those that changed (distutils: serially, all)."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.build_temp = OBJECTS

    def build_extensions(self) -> None:
        serial = self.compiler.compile

        def compile_changed(sources, **options):
            def one(source):
                objects = self.compiler.object_filenames([source], output_dir=OBJECTS)
                if self.force or not is_fresh(objects[0], [source, "setup.py", *HEADERS]):
                    serial([source], **options)
                return objects

            with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
                return [name for objects in pool.map(one, sources) for name in objects]

        self.compiler.compile = compile_changed
        super().build_extensions()


core = Extension(
    "lowprec._ext._core",
    sources=["_ext/_core.pyx", *sorted(glob("_ext/*.cpp")), *sorted(glob("_ext/engine/*.cpp"))],
    # The kernels too: a changed library must be linked again.
    depends=["setup.py", f"{EMBEDDING}/lowprec/_ext/_core.pxd", *HEADERS, *KERNEL_SOURCES],
    include_dirs=["_ext", EMBEDDING, np.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=[flag for flag in COMMON if flag != "-Wextra"],
    extra_link_args=SANITIZERS if SANITIZE else [],
    language="c++",
)
# Cython writes these files: listed as sources they would be compiled twice.
WRITTEN = ("_ext/_core.cpp", "_ext/_tensorflow.cpp")
core.sources = [source for source in core.sources if source not in WRITTEN]

# Knows TensorFlow's C functions by name only: it builds, links and loads without TensorFlow.
tensorflow_operator = Extension(
    "lowprec._ext._tensorflow",
    sources=["_ext/_tensorflow.pyx", *sorted(glob("_ext/tensorflow/*.cpp"))],
    depends=["setup.py", *HEADERS],
    include_dirs=["_ext", np.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=[flag for flag in COMMON if flag != "-Wextra"],
    extra_link_args=SANITIZERS if SANITIZE else [],
    language="c++",
)

setup(
    libraries=LIBRARIES,
    ext_modules=cythonize([core, tensorflow_operator], language_level=3, include_path=[EMBEDDING]),
    cmdclass={"build_clib": BuildLibraries, "build_ext": BuildExtension},
)
