"""Kernels for aarch64 keep to their instruction sets: seen in the disassembly of a cross build.

The counterpart of tests/test_isa_isolation.py, which looks at what was built for x86-64. What these
kernels compute is compared under qemu-user (.ci/native_checks long).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "build" / "native-aarch64"
TOOL = "aarch64-linux-gnu-"

pytestmark = pytest.mark.skipif(
    not (shutil.which("make") and shutil.which(f"{TOOL}g++") and shutil.which(f"{TOOL}objdump")),
    reason="needs make, g++-aarch64-linux-gnu and its binutils",
)

DOT = re.compile(r"\t([su]dot|usdot|sudot)\t")
MMLA = re.compile(r"\t(smmla|ummla|usmmla|bfmmla)\t")
LATER = re.compile(r"\t(bfdot|bfmlal[bt]|fmlal2?|fmlsl2?)\t|\tz\d+\.|, z\d+\.")  # bf16, fhm, SVE
# SQDMULL and its kin double and clamp; SQRDMULH rounds and clamps.
SATURATING_PRODUCT = re.compile(r"\tsq(r?dmul|dmlal|dmlsl)")
FORBIDDEN = {
    "scalar": [DOT, MMLA, LATER],
    "neon": [DOT, MMLA, LATER],
    "dotprod": [MMLA, LATER],
    "i8mm": [LATER],
}
NEEDED = {
    "neon": re.compile(r"\tsadalp\t"),
    "dotprod": re.compile(r"\tsdot\tv\d+\.4s, v\d+\.16b, v\d+\.4b\["),
    "i8mm": re.compile(r"\tusmmla\t"),
}


@pytest.fixture(scope="module")
def objects() -> Path:
    done = subprocess.run(
        ["make", "-C", HERE, "-j2", f"OUT={OUT}", f"CXX={TOOL}g++", "STATIC=1", "kernels"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return OUT / "kernels"


def listing(tool: str, path: Path) -> str:
    command = [f"{TOOL}{tool}", *(["--disassemble"] if tool == "objdump" else []), path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def lines_with(pattern: re.Pattern[str], path: Path) -> list[str]:
    return [line for line in listing("objdump", path).splitlines() if pattern.search(line)]


@pytest.mark.parametrize("isa", FORBIDDEN)
def test_kernels_keep_to_their_instruction_set(objects, isa):
    for forbidden in FORBIDDEN[isa]:
        assert lines_with(forbidden, objects / f"{isa}.o") == []


@pytest.mark.parametrize("isa", NEEDED)
def test_kernels_use_their_instruction_set(objects, isa):
    assert lines_with(NEEDED[isa], objects / f"{isa}.o")


@pytest.mark.parametrize("isa", FORBIDDEN)
def test_no_product_saturates(objects, isa):
    assert lines_with(SATURATING_PRODUCT, objects / f"{isa}.o") == []


@pytest.mark.parametrize("isa", FORBIDDEN)
def test_kernels_have_no_weak_symbol(objects, isa):
    symbols = listing("nm", objects / f"{isa}.o")
    assert re.findall(r"^[0-9a-f]+ [uVvWw] (\S+)$", symbols, re.MULTILINE) == []


def test_every_kernel_unit_is_looked_at(objects):
    assert {path.stem for path in objects.glob("*.o")} == set(FORBIDDEN)


def test_the_check_sees_a_dot_product(tmp_path):
    source, leaky = tmp_path / "leak.cpp", tmp_path / "leak.o"
    source.write_text(
        "#include <arm_neon.h>\nint32x4_t dot(int32x4_t s, int8x16_t a, int8x16_t b)"
        " { return vdotq_s32(s, a, b); }\n"
        "int16x8_t clamp(int16x8_t a, int16x8_t b) { return vqdmulhq_s16(a, b); }\n"
    )
    subprocess.run(
        [f"{TOOL}g++", "-O2", "-march=armv8.2-a+dotprod", "-c", source, "-o", leaky], check=True
    )
    assert lines_with(DOT, leaky)
    assert lines_with(SATURATING_PRODUCT, leaky)
