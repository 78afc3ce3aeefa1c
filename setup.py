"""Declares the compiled extensions; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

MODULES = {
    "sodium": "-O2",
    "ed25519": "-O2",
    "codec": "-O2",
    "merkle": "-O2",
    "requests": "-O2",
    "tally": "-O2",
    "state_hash": "-O3",  # the vectoriser halves the time of its lane sums
}

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"fastpath._{name}",
                [f"fastpath/_{name}.pyx"],
                extra_compile_args=[optimisation, "-fno-strict-aliasing", "-Wno-sign-compare"],
            )
            for name, optimisation in MODULES.items()
        ],
        language_level=3,
        build_dir=".build/cython",
    )
)
