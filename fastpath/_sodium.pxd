# What the compiled modules share: bytes and integers checked on the way in, SHA-256 and Ed25519 by address.

from cpython.bytes cimport PyBytes_CheckExact
from libc.stdint cimport uint8_t, uint64_t

cdef bytes copy_bytes(object data)
cdef bytes new_bytes(Py_ssize_t size)
cdef uint64_t as_unsigned(object value, uint64_t limit, str what) except? 1
cdef bytes sized(object data, Py_ssize_t size, str what)

cdef inline bytes as_bytes(object data):
    """The bytes of a bytes-like object; a copy unless it is immutable, so that no other thread can change it."""
    if PyBytes_CheckExact(data):
        return <bytes>data
    return copy_bytes(data)

# Neither of these can fail: the one has no error, the answer of the other is its result.
cdef void sha256_of(uint8_t* out, const uint8_t* data, size_t size) noexcept nogil
cdef bint ed25519_accepts(const uint8_t* key, const uint8_t* sealed, size_t size) noexcept nogil
# These return libsodium's 0, or -1.
cdef int ed25519_seal(uint8_t* sealed, const uint8_t* message, size_t size, const uint8_t* secret) noexcept nogil
cdef int ed25519_key_pair(uint8_t* key, uint8_t* secret, const uint8_t* seed) noexcept nogil
cdef bint ed25519_key_is_valid(const uint8_t* key) noexcept nogil
