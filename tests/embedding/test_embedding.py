"""lowprec.h and the .pxd files, from outside: two packages are built, installed and run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from number_strategies import EDGE_VALUES, ISAS, assert_same_bits
from outside_packages import RUN_LAYERS, install, run

import lowprec
from lowprec import numerics
from lowprec.numerics import reference

INCLUDE = Path(lowprec.get_include())
F32, U8, S8, U16, S16, S32, F16, BF16, E4M3, E5M2 = 1, 2, 3, 4, 5, 6, 10, 16, 17, 19


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with both packages installed."""
    work = tmp_path_factory.mktemp("outside")
    for package in ("c_package", "cython_package"):
        install(package, work / "site", work)
    return work / "site"


@pytest.fixture(scope="module")
def checks(site):
    """The C package's module of what only a test would do."""
    sys.path.insert(0, str(site))
    try:
        import outside_checks
    finally:
        sys.path.remove(str(site))
    return outside_checks


@pytest.mark.parametrize("isa", [None, *ISAS])
def test_both_packages_compute_the_layer(site, isa):
    variables = {} if isa is None else {"LOWPREC_ISA": isa}
    done = run(RUN_LAYERS.format(prefix=str(Path(lowprec.__file__).parent)), site, **variables)
    assert done.stdout == "equal\n", done.stderr


def test_wrong_arguments_are_statuses_with_a_message(checks):
    refusals = checks.refusals()
    assert len(refusals) > 80
    accepted = [call for call, status, _ in refusals if status not in (1, 2)]
    assert accepted == []
    for call, _, message in refusals:
        assert message, call
        assert "\n" not in message
        assert "defect" not in message


@pytest.mark.parametrize("isa", ISAS)
def test_the_instruction_set_is_the_one_asked_for(site, isa):
    done = run("import outside_checks; print(outside_checks.isa())", site, LOWPREC_ISA=isa)
    assert done.stdout == f"(0, '{isa}')\n", done.stderr


def test_an_unknown_instruction_set_or_thread_count_is_a_status(site):
    code = "import outside_checks; print(*outside_checks.isa())"
    done = run(code, site, LOWPREC_ISA="sse9")
    assert done.stdout.startswith("4 LOWPREC_ISA=sse9 is not one of: scalar"), done.stderr
    done = run(code, site, LOWPREC_NUM_THREADS="many")
    assert done.stdout.startswith("4 LOWPREC_NUM_THREADS"), done.stderr


@pytest.mark.parametrize(("member", "value"), [("MINOR", 99), ("MAJOR", 2), ("MAJOR", 0)])
def test_a_package_for_another_version_says_so_when_imported(tmp_path, member, value):
    header = (INCLUDE / "lowprec.h").read_text()
    line = f"#define LOWPREC_API_{member} "
    (found,) = [text for text in header.splitlines() if text.startswith(line)]
    folder = tmp_path / "include"
    folder.mkdir()
    (folder / "lowprec.h").write_text(header.replace(found, f"{line}{value}"))
    install("c_package", tmp_path / "site", tmp_path, OUTSIDE_HEADER=str(folder))
    done = run("import outside_c", tmp_path / "site")
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert "compiled for version" in done.stderr
    assert "rebuild the module" in done.stderr


@pytest.mark.parametrize(
    ("number", "dtype"),
    [
        (BF16, ml_dtypes.bfloat16),
        (F16, np.float16),
        (E4M3, ml_dtypes.float8_e4m3fn),
        (E5M2, ml_dtypes.float8_e5m2),
    ],
)
def test_conversions_are_those_of_numerics(checks, number, dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate([EDGE_VALUES, rng.standard_normal(1000).astype(np.float32)])
    size = np.dtype(dtype).itemsize
    narrow = np.frombuffer(checks.convert(x, F32, 4, number, size), dtype)
    rounded = {
        BF16: reference.to_bf16, F16: reference.to_f16,
        E4M3: numerics.to_e4m3, E5M2: numerics.to_e5m2,
    }[number](x)  # fmt: skip
    assert_same_bits(narrow, rounded)
    wide = np.frombuffer(checks.convert(narrow.view(f"u{size}"), number, size, F32, 4), np.float32)
    numbers = ~np.isnan(wide)
    np.testing.assert_array_equal(wide[numbers], narrow.astype(np.float32)[numbers])


@pytest.mark.parametrize(
    ("number", "dtype"), [(U8, "u1"), (S8, "i1"), (U16, "u2"), (S16, "i2"), (S32, "i4")]
)
def test_codes_are_those_of_numerics(checks, number, dtype):
    rng = np.random.default_rng(number)
    x = (rng.standard_normal((5, 77)) * 9).astype(np.float32)
    acc = rng.integers(-(2**30), 2**30, x.shape).astype(np.int32)
    scales = rng.uniform(0.01, 0.2, 5).astype(np.float32)
    zeros = rng.integers(0, 100, 5).astype(np.int32)
    own = zeros.astype(dtype)
    q, back, again, dynamic, dynamic_scales, dynamic_zeros = checks.codes(
        x, acc, scales, zeros, number, np.dtype(dtype).itemsize
    )
    expected = reference.quantize_linear(x, scales, own, axis=0)
    assert q == expected.tobytes()
    assert back == reference.dequantize_linear(expected, scales, own, axis=0).tobytes()
    assert again == reference.requantize(acc, scales, own, axis=0).tobytes()
    rows = [reference.dynamic_quantize_linear(row) for row in x]
    assert dynamic == b"".join(codes.tobytes() for codes, _, _ in rows)
    assert dynamic_scales == np.float32([scale for _, scale, _ in rows]).tobytes()
    assert dynamic_zeros == np.uint8([zero for _, _, zero in rows]).tobytes()


def test_observers_are_histograms(checks):
    rng = np.random.default_rng(0)
    first = np.float32([*rng.standard_normal(500), np.nan, np.inf])
    second = (rng.standard_normal(300) * 40).astype(np.float32)
    count, nonfinite, low, high, origin, width, counts = checks.observed(first, second)
    histogram = numerics.Histogram(64)
    histogram.update(first)
    histogram.update(second)
    assert (count, nonfinite) == (histogram.count, histogram.nonfinite) == (800, 2)
    assert (low, high) == (histogram.minimum, histogram.maximum)
    assert (origin, width) == (histogram.origin, histogram.width)
    np.testing.assert_array_equal(np.frombuffer(counts, np.int64), histogram.counts)


def test_an_embedder_s_own_loop_runs_the_work(checks):
    rng = np.random.default_rng(0)
    m, k, n = 256, 192, 256
    a = rng.standard_normal((m, k)).astype(np.float32)
    b = rng.standard_normal((k, n)).astype(np.float32)
    y, tasks = checks.own_loop(a, b, m, k, n)
    assert tasks > 1
    assert y == numerics.gemm_f32(a, b).tobytes()


def test_the_number_of_threads_is_the_process_s(checks):
    before = lowprec.get_num_threads()
    try:
        assert checks.num_threads(3) == 3
        assert lowprec.get_num_threads() == 3
    finally:
        lowprec.set_num_threads(before)


def test_the_header_is_c_and_cpp(tmp_path):
    source = (
        "#include <lowprec.h>\nint f(void) { lowprec_gemm_desc d; LOWPREC_INIT(&d); return 0; }\n"
    )
    for compiler, language, standard in [("gcc", "c", "c99"), ("g++", "c++", "c++11")]:
        if not shutil.which(compiler):
            pytest.skip(f"needs {compiler}")
        flags = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", f"-I{INCLUDE}"]
        subprocess.run(
            [compiler, "-x", language, f"-std={standard}", *flags, "-"],
            input=source, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
