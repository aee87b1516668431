# What the machine can do, and which table of kernels is used.

from libcpp.string cimport string
from libcpp.vector cimport vector
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t

import os


cdef extern from "kernels/kernels.h" namespace "lp":
    cdef cppclass Kernels:
        const char* name

cdef extern from "cpu.h" namespace "lp":
    cdef cppclass Isa "lp::CpuInfo::Isa":
        string name
        bint available
        string missing
    cdef cppclass CpuInfo:
        CpuInfo()
        CpuInfo(const CpuInfo&)
        string vendor
        string brand
        vector[Isa] isas
        vector[Isa] models
        vector[string] features
    const CpuInfo& c_cpu_info "lp::cpu_info"()
    const Kernels* kernels_named(const string&) nogil
    const Kernels* usual_kernels() nogil
    const Kernels* chosen_kernels(string*)


class IsaUnavailable(ValueError):
    """An instruction set was asked for that is unknown or that this machine lacks."""


cdef const Kernels* kernels_for(str isa) except NULL:
    """The table of `isa`; None: the best one, within LOWPREC_ISA."""
    cdef string problem
    cdef const Kernels* kernels
    if isa is None:
        kernels = usual_kernels()  # null where something is wrong
        if kernels != NULL:
            return kernels
    check_thread_count()
    if isa is None:
        kernels = chosen_kernels(&problem)
        if kernels == NULL:
            raise IsaUnavailable(problem.decode())
        return kernels
    kernels = kernels_named(isa.encode())
    if kernels == NULL:
        raise IsaUnavailable(f"{isa} is not one of: {', '.join(available_isas())}")
    return kernels


def available_isas():
    """Return the names of the instruction sets that this machine can run, least first."""
    cdef CpuInfo info = c_cpu_info()
    cdef Isa entry
    return [entry.name.decode() for entry in info.isas if entry.available]


def model_isas():
    """Return the names of the tables that stand for instruction sets which this machine lacks.

    They are for tests: "avxvnni-evex" has the kernels of "avxvnni" in another encoding of the same
    instruction, "amx-model" those of "amx" over tile instructions written in C++. They are never
    chosen, and LOWPREC_ISA does not know them.
    """
    cdef CpuInfo info = c_cpu_info()
    cdef Isa entry
    return [entry.name.decode() for entry in info.models if entry.available]


def chosen_isa():
    """Return the name of the instruction set in use (the best one, within LOWPREC_ISA)."""
    return kernels_for(None).name.decode()


def cpu_info():
    """Return what was found: see lowprec.cpu_info()."""
    cdef CpuInfo info = c_cpu_info()
    cdef string feature, problem
    cdef Isa entry
    cdef const Kernels* chosen = chosen_kernels(&problem)
    return {
        "vendor": info.vendor.decode(),
        "brand": info.brand.decode(),
        "features": [feature.decode() for feature in info.features],
        "isas": {entry.name.decode(): entry.missing.decode() for entry in info.isas},
        "chosen": chosen.name.decode() if chosen != NULL else None,
        "problem": problem.decode(),
        "limit": os.environ.get("LOWPREC_ISA"),
    }
