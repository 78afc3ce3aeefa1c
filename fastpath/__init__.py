"""Hashing, signatures, codecs and tallies at C speed. Knows no protocol: bytes and integers in and out.

`_py` is the specification and a complete build; the Cython modules must equal it on every input.
ARREMATE_FASTPATH=compiled|python picks the build, unset means compiled. Nothing falls back silently:
without the extensions the import fails and names the fix. `BUILD` says which build this process runs.
At import Ed25519 is tested against the rules that all replicas must share (`_self_test`).
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Literal

from fastpath._self_test import self_test

__all__ = [
    "BUILD",
    "Reader",
    "StateHash",
    "Tally",
    "Writer",
    "assemble_batch",
    "encode_row",
    "has_duplicates",
    "implementations",
    "kth_largest",
    "leaf_hash",
    "merkle_fold",
    "merkle_path",
    "merkle_paths",
    "merkle_root",
    "pack_message",
    "parse_requests",
    "public_key",
    "public_key_is_valid",
    "result_leaves",
    "sha256",
    "sign",
    "split_messages",
    "tagged_hash",
    "verify",
    "verify_many",
    "verify_requests",
    "write_set_hash",
]

VARIABLE = "ARREMATE_FASTPATH"
_MISSING = f"the compiled fastpath is missing or out of date: run `make build`, or set {VARIABLE}=python (slow)"


def _chosen() -> Literal["compiled", "python"]:
    match os.environ.get(VARIABLE, "compiled"):
        case "compiled":
            return "compiled"
        case "python":
            return "python"
        case other:
            raise ImportError(f"{VARIABLE} is {other!r}, must be compiled or python")


BUILD: Literal["compiled", "python"] = _chosen()

if BUILD == "python":
    from fastpath._py import (
        Reader,
        StateHash,
        Tally,
        Writer,
        assemble_batch,
        encode_row,
        has_duplicates,
        kth_largest,
        leaf_hash,
        merkle_fold,
        merkle_path,
        merkle_paths,
        merkle_root,
        pack_message,
        parse_requests,
        public_key,
        public_key_is_valid,
        result_leaves,
        sha256,
        sign,
        split_messages,
        tagged_hash,
        verify,
        verify_many,
        verify_requests,
        write_set_hash,
    )
else:
    try:
        from fastpath._compiled import (
            Reader,
            StateHash,
            Tally,
            Writer,
            assemble_batch,
            encode_row,
            has_duplicates,
            kth_largest,
            leaf_hash,
            merkle_fold,
            merkle_path,
            merkle_paths,
            merkle_root,
            pack_message,
            parse_requests,
            public_key,
            public_key_is_valid,
            result_leaves,
            sha256,
            sign,
            split_messages,
            tagged_hash,
            verify,
            verify_many,
            verify_requests,
            write_set_hash,
        )
    except ImportError as error:
        raise ImportError(f"{_MISSING} ({error})") from error


def implementations() -> dict[str, ModuleType]:
    """Both builds by name, whichever runs: for parity tests and micro-benchmarks. ImportError as above."""
    try:
        compiled = importlib.import_module("fastpath._compiled")
    except ImportError as error:
        raise ImportError(f"{_MISSING} ({error})") from error
    return {"python": importlib.import_module("fastpath._py"), "compiled": compiled}


self_test(importlib.import_module("fastpath._compiled" if BUILD == "compiled" else "fastpath._py"))
