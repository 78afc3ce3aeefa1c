"""The addresses of the C functions that the compiled modules call without the GIL, and input checks.

libsodium's functions are those of PyNaCl's own copy, so both builds run the same verifier. SHA-256
is OpenSSL's when the interpreter's hashlib has loaded it as a library that exports it (with SHA
instructions seven times as fast), else libsodium's: same bytes, and both are compared at import.
The strict Ed25519 rules stand here, in front of the library, so that an upgrade cannot change them.
"""

import ctypes
import hashlib
import operator

from nacl._sodium import ffi, lib

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsUnsignedLongLong
from libc.stdint cimport uint8_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

ctypedef int (*open_function)(
    uint8_t*, unsigned long long*, const uint8_t*, unsigned long long, const uint8_t*) noexcept nogil
ctypedef int (*sign_function)(
    uint8_t*, unsigned long long*, const uint8_t*, unsigned long long, const uint8_t*) noexcept nogil
ctypedef int (*key_pair_function)(uint8_t*, uint8_t*, const uint8_t*) noexcept nogil
ctypedef int (*point_function)(const uint8_t*) noexcept nogil
ctypedef int (*hash_function)(uint8_t*, const uint8_t*, unsigned long long) noexcept nogil
ctypedef int (*init_function)(void*) noexcept nogil
ctypedef int (*update_function)(void*, const void*, size_t) noexcept nogil
ctypedef int (*final_function)(uint8_t*, void*) noexcept nogil


def _address(str name):
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))


cdef open_function sodium_open = <open_function><uintptr_t>_address("crypto_sign_open")
cdef sign_function sodium_sign = <sign_function><uintptr_t>_address("crypto_sign")
cdef key_pair_function sodium_key_pair = <key_pair_function><uintptr_t>_address("crypto_sign_seed_keypair")
cdef point_function sodium_point = <point_function><uintptr_t>_address("crypto_core_ed25519_is_valid_point")
cdef hash_function sodium_hash = <hash_function><uintptr_t>_address("crypto_hash_sha256")
cdef init_function openssl_init = NULL
cdef update_function openssl_update = NULL
cdef final_function openssl_final = NULL


# Input checks ------------------------------------------------------------------------------------


cdef bytes new_bytes(Py_ssize_t size):
    """Uninitialised bytes, to be filled before anyone else sees them; MemoryError."""
    return PyBytes_FromStringAndSize(NULL, size)


cdef bytes copy_bytes(object data):
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return PyBytes_FromStringAndSize(<char*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef bytes sized(object data, Py_ssize_t size, str what):
    """The bytes of `data`; ValueError unless there are `size` of them."""
    cdef bytes checked = as_bytes(data)
    if PyBytes_GET_SIZE(checked) != size:
        raise ValueError(f"{what} is {len(checked)} bytes, must be {size}")
    return checked


cdef uint64_t as_unsigned(object value, uint64_t limit, str what) except? 1:
    """An integer in 0..limit; ValueError outside, TypeError for what is no integer."""
    cdef uint64_t number
    if type(value) is not int:
        value = operator.index(value)
    try:
        number = PyLong_AsUnsignedLongLong(value)
    except OverflowError:
        raise ValueError(f"{what} is not in 0..{limit}") from None
    if number > limit:
        raise ValueError(f"{what} {number} is not in 0..{limit}")
    return number


# SHA-256 -----------------------------------------------------------------------------------------


cdef struct OpensslContext:
    # SHA256_CTX has 112 bytes in every OpenSSL from 0.9.8 to 3.x; four times that is room enough.
    uint64_t words[56]


cdef void sha256_of(uint8_t* out, const uint8_t* data, size_t size) noexcept nogil:
    cdef OpensslContext context
    if openssl_init != NULL:
        if openssl_init(&context) == 1 and openssl_update(&context, data, size) == 1:
            if openssl_final(out, &context) == 1:
                return
    sodium_hash(out, data, size)


def _find_openssl():
    """OpenSSL's low-level SHA-256 among the libraries that hashlib brought with it, or None.

    The handle must be the extension module's own: a name looked up in the whole process could come
    from any library. Interpreters with OpenSSL linked in statically export nothing: None.
    """
    try:
        import _hashlib

        library = ctypes.CDLL(_hashlib.__file__)
        return library, [
            ctypes.cast(getattr(library, name), ctypes.c_void_p).value
            for name in ("SHA256_Init", "SHA256_Update", "SHA256_Final")
        ]
    except (ImportError, AttributeError, OSError):
        return None


def _sha256(bytes data):
    cdef bytes out = new_bytes(32)
    sha256_of(<uint8_t*>PyBytes_AS_STRING(out), <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return out


def _check_sha256():
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 129, 2048):
        data = bytes([(7 * i + size) % 256 for i in range(size)])
        if _sha256(data) != hashlib.sha256(data).digest():
            raise RuntimeError(f"SHA-256 of {SHA256_SOURCE} is wrong for {size} bytes")


_openssl = _find_openssl()
SHA256_SOURCE = "libsodium"
_check_sha256()
if _openssl is not None:
    openssl_update = <update_function><uintptr_t>_openssl[1][1]
    openssl_final = <final_function><uintptr_t>_openssl[1][2]
    openssl_init = <init_function><uintptr_t>_openssl[1][0]
    SHA256_SOURCE = "openssl"
    _check_sha256()


# Ed25519 -----------------------------------------------------------------------------------------

cdef uint8_t group_order[32]
cdef uint8_t small_order[5][32]


def _set_constants():
    cdef bytes number
    p = 2**255 - 19
    number = (2**252 + 27742317777372353535851937790883648493).to_bytes(32, "little")
    memcpy(group_order, PyBytes_AS_STRING(number), 32)
    # The y of the eight points whose order divides 8; either sign of x.
    ys = [
        0,
        1,
        p - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    ]
    for i in range(5):
        number = ys[i].to_bytes(32, "little")
        memcpy(small_order[i], PyBytes_AS_STRING(number), 32)


_set_constants()


cdef bint scalar_is_canonical(const uint8_t* scalar) noexcept nogil:
    """scalar < L"""
    cdef int i
    for i in range(31, -1, -1):
        if scalar[i] != group_order[i]:
            return scalar[i] < group_order[i]
    return False


cdef bint point_is_acceptable(const uint8_t* encoded) noexcept nogil:
    """y < p, and not of small order."""
    cdef uint8_t y[32]
    cdef int i
    memcpy(y, encoded, 32)
    y[31] &= 0x7F
    if y[31] == 0x7F and y[0] >= 0xED:
        for i in range(30, 0, -1):
            if y[i] != 0xFF:
                break
        else:
            return False
    for i in range(5):
        if memcmp(y, small_order[i], 32) == 0:
            return False
    return True


cdef bint ed25519_accepts(const uint8_t* key, const uint8_t* sealed, size_t size) noexcept nogil:
    """`sealed`: signature (64 bytes) and message, `size` bytes in all."""
    cdef unsigned long long length
    if size < 64 or not scalar_is_canonical(sealed + 32):
        return False
    if not point_is_acceptable(key) or not point_is_acceptable(sealed):
        return False
    return sodium_open(NULL, &length, sealed, size, key) == 0


cdef int ed25519_seal(uint8_t* sealed, const uint8_t* message, size_t size, const uint8_t* secret) noexcept nogil:
    """Writes signature and message, 64 + size bytes."""
    cdef unsigned long long length
    return sodium_sign(sealed, &length, message, size, secret)


cdef int ed25519_key_pair(uint8_t* key, uint8_t* secret, const uint8_t* seed) noexcept nogil:
    return sodium_key_pair(key, secret, seed)


cdef bint ed25519_key_is_valid(const uint8_t* key) noexcept nogil:
    return point_is_acceptable(key) and sodium_point(key) == 1


def precheck(bytes encoded):
    """Whether a point of 32 bytes passes the checks in front of the library: so that tests see them alone."""
    if PyBytes_GET_SIZE(encoded) != 32:
        raise ValueError("a point has 32 bytes")
    return bool(point_is_acceptable(<const uint8_t*>PyBytes_AS_STRING(encoded)))
