"""Ed25519 by libsodium without the GIL, behind our own strict checks (see `_py`, the specification)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from fastpath._sodium cimport (
    as_bytes,
    ed25519_accepts,
    ed25519_key_is_valid,
    ed25519_key_pair,
    ed25519_seal,
    new_bytes,
    sized,
)


cdef inline uint8_t* octets(bytes data) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(data)


def verify(public_key, message, signature):
    """Strict cofactorless Ed25519: refuses S >= L, and a non-canonical or small-order A or R.

    `public_key` 32 bytes, `signature` 64 bytes: other lengths are a ValueError.
    """
    cdef bytes key = sized(public_key, 32, "public key")
    cdef bytes sealed = sized(signature, 64, "signature") + as_bytes(message)
    cdef const uint8_t* key_octets = octets(key)
    cdef const uint8_t* sealed_octets = octets(sealed)
    cdef size_t size = PyBytes_GET_SIZE(sealed)
    cdef bint good
    with nogil:
        good = ed25519_accepts(key_octets, sealed_octets, size)
    return good


def verify_many(items):
    """One byte for each (public key, message, signature): 1 good, 0 bad."""
    cdef list keys = [], sealed = []
    for key, message, signature in items:
        keys.append(sized(key, 32, "public key"))
        text = as_bytes(message)
        sealed.append(sized(signature, 64, "signature") + text)
    cdef Py_ssize_t count = len(keys), i
    cdef bytes flags = new_bytes(count)
    # Three machine words an item: key, sealed message, its size. The lists keep what they point to alive.
    cdef bytes table = new_bytes(count * sizeof(Item))
    cdef Item* entries = <Item*>octets(table)
    cdef uint8_t* out = octets(flags)
    for i in range(count):
        entries[i].key = octets(<bytes>keys[i])
        entries[i].sealed = octets(<bytes>sealed[i])
        entries[i].size = PyBytes_GET_SIZE(<bytes>sealed[i])
    with nogil:
        for i in range(count):
            out[i] = ed25519_accepts(entries[i].key, entries[i].sealed, entries[i].size)
    return flags


cdef struct Item:
    const uint8_t* key
    const uint8_t* sealed
    size_t size


def sign(secret_key, message):
    """64-byte signature. `secret_key`: 32-byte seed, or seed and public key (64 bytes, twice as fast)."""
    cdef bytes secret = as_bytes(secret_key), text = as_bytes(message)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(secret), size = PyBytes_GET_SIZE(text)
    if length != 32 and length != 64:
        raise ValueError("a secret key is a 32-byte seed or seed and public key, 64 bytes")
    cdef bytes sealed = new_bytes(64 + size)
    cdef const uint8_t* secret_octets = octets(secret)
    cdef const uint8_t* text_octets = octets(text)
    cdef uint8_t* out = octets(sealed)
    cdef uint8_t expanded[64]
    cdef uint8_t key[32]
    cdef int failure = 0
    with nogil:
        if length == 32:
            failure = ed25519_key_pair(key, expanded, secret_octets)
        else:
            memcpy(expanded, secret_octets, 64)
        failure |= ed25519_seal(out, text_octets, size, expanded)
        memset(expanded, 0, 64)
    if failure != 0:
        raise RuntimeError("libsodium did not sign")
    return sealed[:64]


def public_key(seed):
    """The 32-byte public key of a 32-byte seed."""
    cdef bytes checked = sized(seed, 32, "seed"), key = new_bytes(32)
    cdef uint8_t expanded[64]
    cdef int failure = ed25519_key_pair(octets(key), expanded, octets(checked))
    memset(expanded, 0, 64)
    if failure != 0:
        raise RuntimeError("libsodium made no key")
    return key


def public_key_is_valid(public_key):
    """A canonical point of the prime-order subgroup, not the identity: what key generation makes.

    Stricter than `verify`, which must also judge keys of mixed order. False for any other length.
    """
    cdef bytes key = as_bytes(public_key)
    return PyBytes_GET_SIZE(key) == 32 and bool(ed25519_key_is_valid(octets(key)))
