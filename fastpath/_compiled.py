"""Gathers the compiled extensions into one module with the names of `_py`."""

from fastpath._codec import Reader, Writer, encode_row, pack_message, split_messages, write_set_hash
from fastpath._ed25519 import public_key, public_key_is_valid, sign, verify, verify_many
from fastpath._merkle import leaf_hash, merkle_fold, merkle_path, merkle_paths, merkle_root, sha256, tagged_hash
from fastpath._requests import assemble_batch, has_duplicates, parse_requests, result_leaves, verify_requests
from fastpath._state_hash import StateHash
from fastpath._tally import Tally, kth_largest

__all__ = [
    "Reader",
    "StateHash",
    "Tally",
    "Writer",
    "assemble_batch",
    "encode_row",
    "has_duplicates",
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
