"""Which build runs is chosen by name, never silently; both have the same interface."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastpath
from fastpath._self_test import self_test

ROOT = Path(__file__).parents[3]
CLASSES = ("Reader", "Writer", "Tally", "StateHash")
PUBLIC = sorted(set(fastpath.__all__) - {"BUILD", "implementations"})


def run(code, **environment):
    rest = {key: value for key, value in os.environ.items() if key != "ARREMATE_FASTPATH"}
    return subprocess.run(
        [sys.executable, "-c", code], env=rest | environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "compiled"), ({"ARREMATE_FASTPATH": "compiled"}, "compiled"), ({"ARREMATE_FASTPATH": "python"}, "python")],
)
def test_build_is_the_one_that_the_environment_names(environment, expected):
    code = "import fastpath; print(fastpath.BUILD, fastpath.sha256.__module__)"
    module = "fastpath._py" if expected == "python" else "fastpath._merkle"
    assert run(code, **environment).stdout.split() == [expected, module]


def test_build_of_another_name_is_an_import_error():
    result = run("import fastpath", ARREMATE_FASTPATH="fast")
    assert result.returncode != 0
    assert "must be compiled or python" in result.stderr


def test_missing_extension_is_an_import_error_that_names_the_fix():
    code = "import sys; sys.modules['fastpath._codec'] = None; import fastpath"
    result = run(code)
    assert result.returncode != 0
    assert "ImportError" in result.stderr
    assert "make build" in result.stderr


def test_builds_have_the_public_names(build):
    for name in PUBLIC:
        assert hasattr(build, name)
        assert getattr(build, name).__doc__


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in CLASSES])
def test_functions_of_both_builds_have_the_same_parameters(name):
    builds = fastpath.implementations()
    python, compiled = (inspect.signature(getattr(builds[key], name)).parameters for key in ("python", "compiled"))
    assert [(p.name, p.kind, p.default) for p in compiled.values()] == [
        (p.name, p.kind, p.default) for p in python.values()
    ]


@pytest.mark.parametrize("name", CLASSES)
def test_classes_of_both_builds_have_the_same_public_methods(name):
    builds = fastpath.implementations()
    python, compiled = (getattr(builds[key], name) for key in ("python", "compiled"))

    def public(cls):
        return {member for member in vars(cls) if not member.startswith("_")}

    assert public(python) == public(compiled)
    for member in public(python):
        if callable(getattr(python, member)):
            expected = list(inspect.signature(getattr(python, member)).parameters)
            assert list(inspect.signature(getattr(compiled, member)).parameters) == expected


def test_docstrings_of_both_builds_agree():
    builds = fastpath.implementations()
    for name in PUBLIC:
        python, compiled = (inspect.getdoc(getattr(builds[key], name)) for key in ("python", "compiled"))
        assert python == compiled, name


def test_self_test_passes_on_both_builds(build):
    assert self_test(build) is None


@pytest.mark.parametrize(
    "defect",
    [
        {"verify": lambda key, message, signature: True},
        {"verify": lambda key, message, signature: False},
        {"sign": lambda secret, message: bytes(64)},
        {"public_key": lambda seed: bytes(32)},
    ],
    ids=["accepts all", "refuses all", "signs wrongly", "derives wrongly"],
)
def test_self_test_fails_loudly_on_a_defective_library(build, defect):
    parts = {name: getattr(build, name) for name in ("verify", "sign", "public_key")}
    with pytest.raises(RuntimeError, match="self-test failed"):
        self_test(SimpleNamespace(**parts | defect))
