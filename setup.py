"""Declares the compiled extensions; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = ("ed25519", "codec", "merkle", "requests", "tally", "state_hash")

setup(
    ext_modules=cythonize(
        [
            Extension(f"fastpath._{name}", [f"fastpath/_{name}.pyx"], extra_compile_args=["-O2", "-fno-strict-aliasing"])
            for name in MODULES
        ],
        language_level=3,
        build_dir=".build/cython",
    )
)
