from Cython.Build import cythonize
from setuptools import Extension, setup

import lowprec

folder = lowprec.get_include()
extension = Extension("outside_cython", ["outside_cython.pyx"], include_dirs=[folder])

setup(ext_modules=cythonize([extension], include_path=[folder], language_level=3))
