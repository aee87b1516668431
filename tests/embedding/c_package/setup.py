import os

from setuptools import Extension, setup

import lowprec

# OUTSIDE_HEADER: the tests try other versions of the header.
FOLDER = os.environ.get("OUTSIDE_HEADER", lowprec.get_include())
FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-missing-field-initializers"]

setup(
    ext_modules=[
        Extension("outside_c", ["layer.c"], include_dirs=[FOLDER], extra_compile_args=FLAGS),
        Extension("outside_checks", ["checks.c"], include_dirs=[FOLDER], extra_compile_args=FLAGS),
    ]
)
