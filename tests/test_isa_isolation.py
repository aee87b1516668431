"""No instruction set leaks: what runs everywhere holds no AVX, a kernel library only its own.

A shared inline function compiled for AVX-512 and chosen by the linker for everyone (a weak symbol)
would crash machines without it, and only those. So the objects that were linked are disassembled.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "build" / "objects" / f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86-64 instruction sets"),
    pytest.mark.skipif(not shutil.which("objdump"), reason="needs binutils"),
]

# What must not occur in code compiled for each set; a leading v is every AVX instruction's mark,
# and a first byte 62 that of every EVEX encoding (AVX-512).
ANY_AVX = re.compile(r"\tv[a-z]|\{vex\}")
ANY_EVEX = re.compile(r":\t62 ")
VNNI = re.compile(r"\bvpdp[bw]")
BF16 = re.compile(r"\bv(cvtne2?ps2bf16|dpbf16ps|cvtneps2bf16)")
AMX = re.compile(r"\t(tile|ldtilecfg|sttilecfg|tdp)")
AVX_VNNI = re.compile(r"\{vex\}")
# Extensions that no set of ours has: VBMI, VBMI2, BITALG, VPOPCNTDQ, IFMA, GFNI, BMI.
OTHERS = re.compile(
    r"\t(vperm(b|[it]2b)|vpmultishiftqb|vp(compress|expand)[bw]|vpsh[lr]dv?[wdq]|vpopcnt[bwdq]"
    r"|vpmadd52[lh]uq|vgf2p8\w+|andn|bextr|blsi|blsr|pdep|pext|mulx|shlx|shrx|sarx|rorx)\b"
)
# vpmaddubsw clamps a sum of two products to 16 bits, vpdpbusds and vpdpwssds clamp an s32 sum: no
# value test can tell the latter where sums are kept below 2^31, but the promise is "never".
SATURATING_PRODUCT = re.compile(r"\bv?(pmaddubsw|pdpbusds|pdpwssds)\b")
FORBIDDEN = {
    "scalar": [ANY_AVX, AMX],
    "avx2": [ANY_EVEX, VNNI, AMX, OTHERS],
    "avxvnni": [ANY_EVEX, AMX, OTHERS],
    "avx512": [VNNI, BF16, AMX, OTHERS],
    "avx512vnni": [AVX_VNNI, BF16, AMX, OTHERS],
    "avx512bf16": [AVX_VNNI, AMX, OTHERS],
    "amx": [AVX_VNNI, OTHERS],
    "amx_model": [VNNI, BF16, AMX, OTHERS],
    "avxvnni_evex": [re.compile(r":\t62 .*\t(?!\{evex\} vpdpbusd|vpdpbusd)")],
}
# What must occur, or the library is not what its name says.
NEEDED = {
    "avxvnni": re.compile(r"\{vex\} vpdpbusd"),
    "avx512": re.compile(r"%zmm"),
    "avx512vnni": re.compile(r"\bvpdpbusd .*%zmm"),
    "amx": re.compile(r"\ttdpbusd +%tmm6,%tmm4,%tmm0$"),
    "avxvnni_evex": re.compile(r":\t62 .*vpdpbusd"),
}


def disassemble(path: Path) -> str:
    return subprocess.run(
        ["objdump", "--disassemble", "--insn-width=15", path],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def functions_with(pattern: re.Pattern[str], path: Path) -> list[str]:
    """Return the functions of an object, archive or module in which an instruction matches."""
    found: dict[str, None] = {}
    function = ""
    for line in disassemble(path).splitlines():
        if line.endswith(">:"):
            function = line.partition("<")[2][:-2]
        elif pattern.search(line):
            found[function] = None
    return list(found)


def weak_symbols(path: Path) -> list[str]:
    """Return the symbols that the linker may merge with, or choose over, another object's."""
    listing = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^[0-9a-f]+ [uVvWw] (\S+)$", listing, re.MULTILINE)


def library(isa: str) -> Path:
    path = OBJECTS / f"liblowprec_{isa}.a"
    if not path.exists():
        pytest.skip("this core was not built from this source tree")
    return path


@pytest.fixture(scope="module")
def everyday_objects() -> list[Path]:
    """The objects of the engine and the Cython glue: what runs on every machine."""
    library("scalar")
    sources = [*ROOT.glob("_ext/*.cpp"), *ROOT.glob("_ext/engine/*.cpp")]
    objects = [OBJECTS / source.relative_to(ROOT).with_suffix(".o") for source in sources]
    assert OBJECTS / "_ext" / "_core.o" in objects
    return objects


@pytest.mark.parametrize("isa", FORBIDDEN)
def test_kernel_library_keeps_to_its_instruction_set(isa):
    for forbidden in FORBIDDEN[isa]:
        assert functions_with(forbidden, library(isa)) == []


@pytest.mark.parametrize("isa", NEEDED)
def test_kernel_library_uses_its_instruction_set(isa):
    assert functions_with(NEEDED[isa], library(isa))


def test_every_kernel_library_is_looked_at():
    library("scalar")
    built = {path.name for path in OBJECTS.glob("liblowprec_*.a")}
    assert built == {f"liblowprec_{isa}.a" for isa in FORBIDDEN}


@pytest.mark.parametrize("isa", FORBIDDEN)
def test_kernel_library_has_no_weak_symbol(isa):
    assert weak_symbols(library(isa)) == []


@pytest.mark.parametrize("isa", FORBIDDEN)
def test_no_product_saturates(isa):
    assert functions_with(SATURATING_PRODUCT, library(isa)) == []


def test_engine_and_glue_hold_no_avx(everyday_objects):
    leaks = {path.name: functions_with(ANY_AVX, path) for path in everyday_objects}
    assert {name: functions for name, functions in leaks.items() if functions} == {}


def test_module_holds_avx512_only_from_its_libraries():
    core = pytest.importorskip("lowprec._ext._core")
    own = {name for isa in FORBIDDEN for name in functions_with(ANY_EVEX, library(isa))}
    assert own, "the AVX-512 libraries use AVX-512"
    leaks = set(functions_with(ANY_EVEX, Path(core.__file__))) - own
    assert leaks == set()


def test_the_check_sees_a_saturating_product(tmp_path):
    source, saturating = tmp_path / "saturate.cpp", tmp_path / "saturate.o"
    source.write_text(
        "#include <immintrin.h>\n__m256i pairs(__m256i a, __m256i b)"
        " { return _mm256_maddubs_epi16(a, b); }\n"
    )
    subprocess.run(["g++", "-O2", "-mavx2", "-c", source, "-o", saturating], check=True)
    assert functions_with(SATURATING_PRODUCT, saturating)


def test_the_check_sees_an_extension_that_no_set_has(tmp_path):
    source, other = tmp_path / "other.cpp", tmp_path / "other.o"
    source.write_text(
        "#include <immintrin.h>\n__m512i pick(__m512i a, __m512i b)"
        " { return _mm512_permutexvar_epi8(a, b); }\n"
    )
    subprocess.run(["g++", "-O2", "-mavx512vbmi", "-c", source, "-o", other], check=True)
    assert functions_with(OTHERS, other)


def test_the_check_sees_a_leak(tmp_path):
    source, leaky = tmp_path / "leak.cpp", tmp_path / "leak.o"
    source.write_text(
        "inline float sum(const float* x) { float s = 0; for (int i = 0; i < 64; ++i) s += x[i];"
        " return s; }\nfloat (*use)(const float*) = sum;\n"
    )
    flags = ["-O3", "-ffast-math", "-mavx512f", "-mprefer-vector-width=512"]
    subprocess.run(["g++", *flags, "-c", source, "-o", leaky], check=True)
    assert weak_symbols(leaky)
    assert functions_with(ANY_EVEX, leaky)
    assert functions_with(ANY_AVX, leaky)


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs qemu-user")
@pytest.mark.parametrize(
    ("cpu", "isa", "why_not_more"),
    [
        ("Nehalem", "scalar", "the processor has no avx2"),
        ("Haswell", "avx2", "the processor has no avx512f"),
        ("Haswell,-xsave", "scalar", "the operating system does not grant avx2"),
    ],
)
def test_older_machine_runs_its_own_kernels(cpu, isa, why_not_more):
    code = (
        "import numpy as np, lowprec\n"
        "x = np.linspace(-3, 3, 301, dtype=np.float32)\n"
        "codes = lowprec.numerics.quantize_linear(x, np.float32(0.05), np.uint8(60))\n"
        "assert codes.tolist() == np.clip(np.rint(x / np.float32(0.05)) + 60, 0, 255).tolist()\n"
        "info = lowprec.cpu_info()\n"
        "print(info['chosen'], info['isas']['avx512'], sep=': ')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "LOWPREC_ISA"}
    done = subprocess.run(
        ["qemu-x86_64", "-cpu", cpu, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"{isa}: {why_not_more}"
