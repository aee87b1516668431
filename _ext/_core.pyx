# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The compiled core: instruction sets, numerics on flat arrays, programs and plans.

Shapes and dtypes are checked by the Python callers (`lowprec.numerics`, `lowprec.engine`); below
this file pointers are trusted.
"""

include "_cpu.pxi"
include "_threads.pxi"
include "_program.pxi"
include "_conversions.pxi"
include "_observer.pxi"
include "_epilogue.pxi"
include "_numerics.pxi"
include "_matrix.pxi"
include "_batches.pxi"
include "_rounding.pxi"
include "_embedding.pxi"
