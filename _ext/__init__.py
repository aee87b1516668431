"""Compiled core: pointers and sizes, nothing else."""
