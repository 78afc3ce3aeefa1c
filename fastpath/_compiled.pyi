"""The compiled build has the types of the specification; a test compares the signatures."""

from fastpath._py import Reader as Reader
from fastpath._py import StateHash as StateHash
from fastpath._py import Tally as Tally
from fastpath._py import Writer as Writer
from fastpath._py import assemble_batch as assemble_batch
from fastpath._py import encode_row as encode_row
from fastpath._py import has_duplicates as has_duplicates
from fastpath._py import kth_largest as kth_largest
from fastpath._py import leaf_hash as leaf_hash
from fastpath._py import merkle_fold as merkle_fold
from fastpath._py import merkle_path as merkle_path
from fastpath._py import merkle_paths as merkle_paths
from fastpath._py import merkle_root as merkle_root
from fastpath._py import pack_message as pack_message
from fastpath._py import parse_requests as parse_requests
from fastpath._py import public_key as public_key
from fastpath._py import public_key_is_valid as public_key_is_valid
from fastpath._py import result_leaves as result_leaves
from fastpath._py import sha256 as sha256
from fastpath._py import sign as sign
from fastpath._py import split_messages as split_messages
from fastpath._py import tagged_hash as tagged_hash
from fastpath._py import verify as verify
from fastpath._py import verify_many as verify_many
from fastpath._py import verify_requests as verify_requests
from fastpath._py import write_set_hash as write_set_hash
