"""`lowprec doctor`: what is installed, what the machine can do, which plugins are there."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

PACKAGES = ("lowprec", "numpy", "ml_dtypes", "onnx", "onnx_ir", "pluggy", "msgspec", "onnxruntime")
VARIABLES = ("LOWPREC_ISA", "LOWPREC_NUM_THREADS", "OMP_NUM_THREADS", "LOWPREC_DISABLE_ADAPTERS")


@click.command()
def doctor() -> int:
    """Print versions, what the processor can do and why not more, and plugins.

    Exits with 1 when something that is installed does not work.
    """
    print_versions()
    works = print_processor()
    return 0 if print_plugins() and works else 1


def print_versions() -> None:
    """Print the versions of Python and of the packages that matter, and our variables."""
    from lowprec.cli.display import print_table

    click.echo(f"python {platform.python_version()} ({sys.executable})")
    print_table(("package", "version"), ((name, _version(name)) for name in PACKAGES))
    for name in VARIABLES:
        if name in os.environ:
            click.echo(f"{name}={os.environ[name]}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def print_processor() -> bool:
    """Print the processor's features and the chosen instruction set; return whether one works."""
    from lowprec._ext import _core
    from lowprec.cli.display import print_table

    info = _core.cpu_info()
    click.echo(f"processor: {info['brand'].strip() or info['vendor']}")
    click.echo(f"features: {' '.join(info['features']) or 'none that matter here'}")
    chosen, problem = info["chosen"], info["problem"]
    rows = [
        (name, "chosen" if name == chosen else "", _why_not(name, missing, chosen, info))
        for name, missing in info["isas"].items()
    ]
    print_table(("kernels", "", "remark"), rows)
    if problem:
        click.echo(f"problem: {problem}")
    try:
        threads = _core.get_num_threads()
    except _core.ThreadCountInvalid as error:
        problem = str(error)
        click.echo(f"problem: {problem}")
    else:
        quota = _core.cgroup_cpus()
        paid = f", the control group pays for {quota:g}" if quota else ""
        allowed = len(os.sched_getaffinity(0))
        click.echo(f"threads: {threads} (of {allowed} processors{paid})")
    return not problem


def _why_not(name: str, missing: str, chosen: str | None, info: dict[str, Any]) -> str:
    if missing:
        return f"not on this machine: {missing}"
    names = list(info["isas"])
    if chosen and names.index(name) > names.index(chosen):
        return f"available, but LOWPREC_ISA={info['limit']} forbids it"
    return "available"


def print_plugins() -> bool:
    """Print every plugin and what became of it; return whether none failed."""
    from lowprec.cli.display import print_table
    from lowprec.plugins import all_plugins

    statuses = all_plugins().statuses()
    rows = []
    for status in statuses:
        info = status.info
        packages = [f"{name} {text}" for name, text in info.versions.items()] if info else []
        remark = status.reason or ", ".join(packages) or "nothing that it works with is installed"
        rows.append(
            (status.name, status.origin, status.state, remark, info.accepts if info else "")
        )
    print_table(("plugin", "from", "state", "remark", "accepts"), rows)
    if not statuses:
        click.echo("no plugins: is lowprec installed? (pip install lowprec, or pip install -e .)")
    return bool(statuses) and all(status.state != "failed" for status in statuses)
