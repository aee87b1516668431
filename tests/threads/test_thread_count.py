"""How many threads: the user, the environment, affinity, control groups, threadpoolctl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from thread_counts import threads

import lowprec
from lowprec._ext import _core

SHOW = "import lowprec; print(lowprec.get_num_threads())"


def in_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {
        k: v for k, v in os.environ.items() if k not in ("LOWPREC_NUM_THREADS", "OMP_NUM_THREADS")
    }
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment
    )


def shown(code: str = SHOW, **environment: str) -> int:
    done = in_new_process(code, **environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_what_is_set_is_returned():
    with threads(3):
        assert lowprec.get_num_threads() == 3
        lowprec.set_num_threads(np.int64(2))
        assert lowprec.get_num_threads() == 2


@pytest.mark.parametrize("bad", [0, -1, 1025, 2**70, 1.5, "2", None, True])
def test_what_is_no_number_of_threads_is_refused(bad):
    before = lowprec.get_num_threads()
    with pytest.raises(lowprec.errors.ThreadsError, match="whole number of threads from 1 to 1024"):
        lowprec.set_num_threads(bad)
    assert lowprec.get_num_threads() == before


def test_own_variable_wins():
    assert shown(LOWPREC_NUM_THREADS="3", OMP_NUM_THREADS="7") == 3
    assert shown("import lowprec; lowprec.set_num_threads(2);" + SHOW, LOWPREC_NUM_THREADS="3") == 2


@pytest.mark.parametrize(("text", "wanted"), [("5", 5), (" 6,2", 6), ("4,3,2", 4)])
def test_the_first_number_of_openmps_variable_is_next(text, wanted):
    assert shown(OMP_NUM_THREADS=text) == wanted
    assert shown(OMP_NUM_THREADS=text, LOWPREC_NUM_THREADS="") == wanted


@pytest.mark.parametrize("text", ["", "none", "0", "-2", "3;4"])
def test_openmps_variable_is_not_ours_to_refuse(text):
    assert shown(OMP_NUM_THREADS=text) == shown()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1025", "4,2", "2x"])
@pytest.mark.parametrize(
    "use",
    [
        SHOW,
        "import numpy, lowprec; lowprec.numerics.to_bf16(numpy.zeros(3, 'f4'))",
        "import numpy, lowprec;"
        "lowprec.numerics.matmul_integer(numpy.zeros((2, 2), 'u1'), numpy.zeros((2, 2), 'i1'))",
    ],
)
def test_a_bad_variable_is_an_error_at_first_use(text, use):
    done = in_new_process(use, LOWPREC_NUM_THREADS=text)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("lowprec.errors.ThreadsError: LOWPREC_NUM_THREADS=" + text)
    assert "from 1 to 1024" in last


def test_a_bad_variable_does_not_matter_once_a_number_is_set():
    code = "import lowprec; lowprec.set_num_threads(2);" + SHOW
    assert shown(code, LOWPREC_NUM_THREADS="two") == 2


def test_affinity_limits():
    allowed = sorted(os.sched_getaffinity(0))
    pin = f"import os; os.sched_setaffinity(0, {{{allowed[0]}}});"
    assert shown(pin + SHOW) == 1
    assert 1 <= shown() <= len(allowed)


def test_one_processor_has_no_pool():
    allowed = min(os.sched_getaffinity(0))
    code = f"""
import os, threading
os.sched_setaffinity(0, {{{allowed}}})
import numpy as np, lowprec
from lowprec._ext import _core
before = len(os.listdir("/proc/self/task"))
lowprec.numerics.matmul_integer(np.ones((300, 300), np.uint8), np.ones((300, 300), np.int8))
assert _core.shared_calls() == 0
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert shown(code) == 0


# ------------------------------------------------------------------------------- control groups

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
OTHER_V1 = "32 23 0:28 / /sys/fs/cgroup/cpuset rw shared:11 - cgroup cgroup rw,cpuset\n"


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> str:
    """Write the files of a pretended machine; return its root."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, 0.0),
        ({"a/b/cpu.max": "max 100000\n"}, 0.0),
        ({"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ({"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ({"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "200000 100000\n"}, 1.0),
        ({"cpu.max": "50000 100000\n"}, 0.5),
        ({"a/b/cpu.max": "what 100000\n"}, 0.0),
        ({"a/b/cpu.max": "100000 0\n"}, 0.0),
    ],
)
def test_version_2_groups(tmp_path, files, wanted):
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    assert _core.cgroup_cpus(machine(tmp_path, "0::/a/b\n", V2, files)) == wanted


@pytest.mark.parametrize(("quota", "wanted"), [("-1", 0.0), ("250000", 2.5), ("0", 0.0)])
@pytest.mark.parametrize("inside", [False, True], ids=["host", "container"])
def test_version_1_groups(tmp_path, quota, wanted, inside):
    # In a container the mount shows only the group that /proc/self/cgroup names from outside.
    where = "sys/fs/cgroup/cpu,cpuacct/" + ("" if inside else "docker/x/")
    files = {where + "cpu.cfs_quota_us": quota, where + "cpu.cfs_period_us": "100000"}
    groups = "5:cpuset:/\n4:cpu,cpuacct:/docker/x\n0::/\n"
    mounts = OTHER_V1 + V1.format(root="/docker/x" if inside else "/")
    assert _core.cgroup_cpus(machine(tmp_path, groups, mounts, files)) == wanted


def test_version_1_groups_inside_groups(tmp_path):
    top, own = "sys/fs/cgroup/cpu,cpuacct/pod/", "sys/fs/cgroup/cpu,cpuacct/pod/box/"
    files = {
        top + "cpu.cfs_quota_us": "200000",
        top + "cpu.cfs_period_us": "50000",
        own + "cpu.cfs_quota_us": "900000",
        own + "cpu.cfs_period_us": "100000",
    }
    root = machine(tmp_path, "4:cpu,cpuacct:/pod/box\n", V1.format(root="/"), files)
    assert _core.cgroup_cpus(root) == 4.0


@pytest.mark.parametrize("groups", ["", "nonsense\n", "0::\n", "0::/../..\n", "4:cpu\n"])
def test_strange_files_mean_no_limit(tmp_path, groups):
    assert _core.cgroup_cpus(machine(tmp_path, groups, V2 + "short line\n", {})) == 0.0


def test_a_machine_without_these_files_has_no_limit(tmp_path):
    assert _core.cgroup_cpus(str(tmp_path)) == 0.0


# ------------------------------------------------------------------------------- threadpoolctl


def test_threadpoolctl_limits_lowprec():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    import lowprec.numerics as nx

    a, b = np.ones((300, 300), np.uint8), np.ones((300, 300), np.int8)
    with threads(3):
        (info,) = [i for i in threadpoolctl.threadpool_info() if i["user_api"] == "lowprec"]
        assert info["num_threads"] == 3
        assert info["version"] == lowprec.__version__
        with threadpoolctl.threadpool_limits(1):
            assert lowprec.get_num_threads() == 1
            before = _core.shared_calls()
            nx.matmul_integer(a, b)
            assert _core.shared_calls() == before
        assert lowprec.get_num_threads() == 3
        nx.matmul_integer(a, b)
        assert _core.shared_calls() > before
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert lowprec.get_num_threads() == 3


def test_threadpoolctl_is_not_needed():
    code = "import sys; sys.modules['threadpoolctl'] = None; import lowprec.numerics;" + SHOW
    assert shown(code, LOWPREC_NUM_THREADS="2") == 2
