"""LtHash16 over rows, with SHAKE128 by a Keccak of our own (see `_py`, the specification; FIPS 202).

hashlib has no SHAKE that can be called without the GIL, and one row's element is thirteen
permutations: the dearest hash of a block. So the squeezing of several rows runs side by side in
vector registers, eight with AVX-512 and four with AVX2, chosen when the module is loaded; the same
C text makes the scalar form for other machines. All forms are compared with hashlib at import.
"""

import hashlib

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastpath._merkle cimport root_in_place
from fastpath._sodium cimport as_bytes, as_unsigned, new_bytes, sha256_of, sized

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    #define KECCAK_ROTATE(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

    static const uint64_t keccak_round_constants[24] = {
        0x0000000000000001ULL, 0x0000000000008082ULL, 0x800000000000808aULL, 0x8000000080008000ULL,
        0x000000000000808bULL, 0x0000000080000001ULL, 0x8000000080008081ULL, 0x8000000000008009ULL,
        0x000000000000008aULL, 0x0000000000000088ULL, 0x0000000080008009ULL, 0x000000008000000aULL,
        0x000000008000808bULL, 0x800000000000008bULL, 0x8000000000008089ULL, 0x8000000000008003ULL,
        0x8000000000008002ULL, 0x8000000000000080ULL, 0x000000000000800aULL, 0x800000008000000aULL,
        0x8000000080008081ULL, 0x8000000000008080ULL, 0x0000000080000001ULL, 0x8000000080008008ULL};

    /* Keccak-f[1600] on lanes of type T: uint64_t, or a vector of them (one independent state each). */
    #define KECCAK_PERMUTATION(NAME, T, ATTRIBUTES) \\
    ATTRIBUTES static void NAME(T *a) { \\
        T b[25], c0, c1, c2, c3, c4, d0, d1, d2, d3, d4; \\
        int round, y; \\
        for (round = 0; round < 24; round++) { \\
            c0 = a[0] ^ a[5] ^ a[10] ^ a[15] ^ a[20]; \\
            c1 = a[1] ^ a[6] ^ a[11] ^ a[16] ^ a[21]; \\
            c2 = a[2] ^ a[7] ^ a[12] ^ a[17] ^ a[22]; \\
            c3 = a[3] ^ a[8] ^ a[13] ^ a[18] ^ a[23]; \\
            c4 = a[4] ^ a[9] ^ a[14] ^ a[19] ^ a[24]; \\
            d0 = c4 ^ KECCAK_ROTATE(c1, 1); \\
            d1 = c0 ^ KECCAK_ROTATE(c2, 1); \\
            d2 = c1 ^ KECCAK_ROTATE(c3, 1); \\
            d3 = c2 ^ KECCAK_ROTATE(c4, 1); \\
            d4 = c3 ^ KECCAK_ROTATE(c0, 1); \\
            b[0] = a[0] ^ d0; \\
            b[1] = KECCAK_ROTATE(a[6] ^ d1, 44); \\
            b[2] = KECCAK_ROTATE(a[12] ^ d2, 43); \\
            b[3] = KECCAK_ROTATE(a[18] ^ d3, 21); \\
            b[4] = KECCAK_ROTATE(a[24] ^ d4, 14); \\
            b[5] = KECCAK_ROTATE(a[3] ^ d3, 28); \\
            b[6] = KECCAK_ROTATE(a[9] ^ d4, 20); \\
            b[7] = KECCAK_ROTATE(a[10] ^ d0, 3); \\
            b[8] = KECCAK_ROTATE(a[16] ^ d1, 45); \\
            b[9] = KECCAK_ROTATE(a[22] ^ d2, 61); \\
            b[10] = KECCAK_ROTATE(a[1] ^ d1, 1); \\
            b[11] = KECCAK_ROTATE(a[7] ^ d2, 6); \\
            b[12] = KECCAK_ROTATE(a[13] ^ d3, 25); \\
            b[13] = KECCAK_ROTATE(a[19] ^ d4, 8); \\
            b[14] = KECCAK_ROTATE(a[20] ^ d0, 18); \\
            b[15] = KECCAK_ROTATE(a[4] ^ d4, 27); \\
            b[16] = KECCAK_ROTATE(a[5] ^ d0, 36); \\
            b[17] = KECCAK_ROTATE(a[11] ^ d1, 10); \\
            b[18] = KECCAK_ROTATE(a[17] ^ d2, 15); \\
            b[19] = KECCAK_ROTATE(a[23] ^ d3, 56); \\
            b[20] = KECCAK_ROTATE(a[2] ^ d2, 62); \\
            b[21] = KECCAK_ROTATE(a[8] ^ d3, 55); \\
            b[22] = KECCAK_ROTATE(a[14] ^ d4, 39); \\
            b[23] = KECCAK_ROTATE(a[15] ^ d0, 41); \\
            b[24] = KECCAK_ROTATE(a[21] ^ d1, 2); \\
            for (y = 0; y < 25; y += 5) { \\
                a[y + 0] = b[y + 0] ^ (~b[y + 1] & b[y + 2]); \\
                a[y + 1] = b[y + 1] ^ (~b[y + 2] & b[y + 3]); \\
                a[y + 2] = b[y + 2] ^ (~b[y + 3] & b[y + 4]); \\
                a[y + 3] = b[y + 3] ^ (~b[y + 4] & b[y + 0]); \\
                a[y + 4] = b[y + 4] ^ (~b[y + 0] & b[y + 1]); \\
            } \\
            a[0] ^= keccak_round_constants[round]; \\
        } \\
    }

    /* `width` states, lane by lane side by side, after absorbing; 256 lanes of output for each. */
    #define KECCAK_SQUEEZE(NAME, T, WIDTH, PERMUTATION, ATTRIBUTES) \\
    ATTRIBUTES static void NAME(uint64_t (*states)[25], uint64_t (*out)[256]) { \\
        union { T vector[25]; uint64_t lane[25][WIDTH]; } a; \\
        int i, j, done; \\
        for (i = 0; i < 25; i++) \\
            for (j = 0; j < WIDTH; j++) a.lane[i][j] = states[j][i]; \\
        for (done = 0; done < 256; done += 21) { \\
            PERMUTATION(a.vector); \\
            for (j = 0; j < WIDTH; j++) \\
                for (i = 0; i < 21 && done + i < 256; i++) out[j][done + i] = a.lane[i][j]; \\
        } \\
    }

    KECCAK_PERMUTATION(keccak_1, uint64_t, )
    KECCAK_SQUEEZE(squeeze_1, uint64_t, 1, keccak_1, )

    typedef void (*squeeze_function)(uint64_t (*)[25], uint64_t (*)[256]);

    #if defined(__x86_64__) && defined(__GNUC__)
    typedef uint64_t keccak_lanes_4 __attribute__((vector_size(32)));
    typedef uint64_t keccak_lanes_8 __attribute__((vector_size(64)));
    KECCAK_PERMUTATION(keccak_4, keccak_lanes_4, __attribute__((target("avx2"))))
    KECCAK_SQUEEZE(squeeze_4, keccak_lanes_4, 4, keccak_4, __attribute__((target("avx2"))))
    KECCAK_PERMUTATION(keccak_8, keccak_lanes_8, __attribute__((target("avx512f"))))
    KECCAK_SQUEEZE(squeeze_8, keccak_lanes_8, 8, keccak_8, __attribute__((target("avx512f"))))

    static squeeze_function squeeze_of_width(int width) {
        __builtin_cpu_init();
        if (width == 8 && __builtin_cpu_supports("avx512f")) return squeeze_8;
        if (width == 4 && __builtin_cpu_supports("avx2")) return squeeze_4;
        return width == 1 ? squeeze_1 : NULL;
    }
    #else
    static squeeze_function squeeze_of_width(int width) { return width == 1 ? squeeze_1 : NULL; }
    #endif

    /* vector[i] += or -= lanes[i] in 1024 lanes of 16 bits, little-endian on either side. */
    static void add_lanes(uint16_t *vector, const uint64_t *lanes, int subtract) {
        const uint16_t *other = (const uint16_t *)lanes;
        int i;
        if (subtract) for (i = 0; i < 1024; i++) vector[i] = (uint16_t)(vector[i] - other[i]);
        else for (i = 0; i < 1024; i++) vector[i] = (uint16_t)(vector[i] + other[i]);
    }

    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the state hash is written for little-endian machines"
    #endif
    """
    ctypedef void (*squeeze_function)(uint64_t (*)[25], uint64_t (*)[256]) noexcept nogil
    squeeze_function squeeze_of_width(int width) noexcept nogil
    void keccak_1(uint64_t* state) noexcept nogil
    void add_lanes(uint16_t* vector, const uint64_t* lanes, bint subtract) noexcept nogil

cdef enum:
    HASH = 32
    VECTOR = 2048
    RATE = 168
    WIDTH_MAX = 8

cdef uint64_t U32_MAX = 0xFFFFFFFF
cdef squeeze_function squeeze_four = squeeze_of_width(4)
cdef squeeze_function squeeze_eight = squeeze_of_width(8)
cdef squeeze_function squeeze_one = squeeze_of_width(1)


cdef struct Element:
    const uint8_t* key
    const uint8_t* row
    size_t key_size
    size_t row_size
    size_t bucket
    bint subtract


cdef struct Sponge:
    uint64_t state[25]
    size_t filled


cdef inline uint8_t* octets(bytes data) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(data)


cdef void absorb(Sponge* sponge, const uint8_t* data, size_t size) noexcept nogil:
    cdef uint8_t* state = <uint8_t*>sponge.state
    cdef size_t i, step
    while size:
        step = min(size, RATE - sponge.filled)
        for i in range(step):
            state[sponge.filled + i] ^= data[i]
        sponge.filled += step
        data += step
        size -= step
        if sponge.filled == RATE:
            keccak_1(sponge.state)
            sponge.filled = 0


cdef void absorb_element(Sponge* sponge, const Element* element) noexcept nogil:
    """Tag, key and row with SHAKE's padding, all but the last permutation, which is the first of the squeezing."""
    cdef uint32_t size
    cdef int i
    for i in range(25):
        sponge.state[i] = 0
    sponge.filled = 0
    absorb(sponge, <const uint8_t*>"ROW\0\0\0\0\0", 8)
    size = <uint32_t>element.key_size
    absorb(sponge, <const uint8_t*>&size, 4)
    absorb(sponge, element.key, element.key_size)
    size = <uint32_t>element.row_size
    absorb(sponge, <const uint8_t*>&size, 4)
    absorb(sponge, element.row, element.row_size)
    (<uint8_t*>sponge.state)[sponge.filled] ^= 0x1F
    (<uint8_t*>sponge.state)[RATE - 1] ^= 0x80


cdef void add_elements(uint8_t* vectors, size_t buckets, Element* elements, size_t count, int width_max) noexcept nogil:
    """Finds each element's bucket and adds or subtracts it, up to `width_max` at a time."""
    cdef uint64_t states[WIDTH_MAX][25]
    cdef uint64_t lanes[WIDTH_MAX][256]
    cdef uint8_t digest[HASH]
    cdef Sponge sponge
    cdef size_t done = 0, width, i
    cdef squeeze_function squeeze
    memset(states, 0, sizeof(states))
    while done < count:
        # A half-filled vector is cheaper than one by one from about a third on.
        if squeeze_eight != NULL and width_max >= 8 and count - done > 2:
            squeeze = squeeze_eight
            width = min(<size_t>8, count - done)
        elif squeeze_four != NULL and width_max >= 4 and count - done > 1:
            squeeze = squeeze_four
            width = min(<size_t>4, count - done)
        else:
            squeeze = squeeze_one
            width = 1
        for i in range(width):
            absorb_element(&sponge, &elements[done + i])
            memcpy(states[i], sponge.state, sizeof(sponge.state))
        squeeze(states, lanes)
        for i in range(width):
            sha256_of(digest, elements[done + i].key, elements[done + i].key_size)
            elements[done + i].bucket = (digest[0] | (<size_t>digest[1] << 8)) % buckets
            add_lanes(
                <uint16_t*>(vectors + VECTOR * elements[done + i].bucket), lanes[i], elements[done + i].subtract
            )
        done += width


cdef class StateHash:
    """LtHash16 of a set of rows in `buckets` vectors (Bellare and Micciancio 1997; Lewi et al. 2019).

    A row's element is SHAKE128(tag8("ROW") || u32 length || key || u32 length || row), 2048 bytes read
    as 1024 u16 lanes; a bucket is the lane-wise sum mod 2**16 of its rows' elements, so that adding
    and removing commute. The set is as the caller says: an old row that was never added is not noticed.
    """

    cdef uint8_t* vectors
    cdef uint8_t* digests
    cdef uint8_t* fresh
    cdef size_t buckets

    def __cinit__(self, buckets):
        self.buckets = as_unsigned(buckets, 65536, "number of buckets")
        if self.buckets == 0:
            raise ValueError("a state hash needs a bucket")
        self.vectors = <uint8_t*>PyMem_Calloc(self.buckets, VECTOR)
        self.digests = <uint8_t*>PyMem_Calloc(self.buckets, HASH)
        self.fresh = <uint8_t*>PyMem_Calloc(self.buckets, 1)
        if self.vectors == NULL or self.digests == NULL or self.fresh == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.vectors)
        PyMem_Free(self.digests)
        PyMem_Free(self.fresh)

    def update(self, key, old_row, new_row):
        """Take the old row out (None: there was none) and put the new one in (None: deleted)."""
        self.add_all(((key, old_row, new_row),), WIDTH_MAX)

    def update_many(self, changes):
        """`update` for each (key, old row, new row); on an error none has been done."""
        self.add_all(changes, WIDTH_MAX)

    cdef int add_all(self, changes, int width_max) except -1:
        cdef list kept = [
            (as_bytes(key), None if old is None else as_bytes(old), None if new is None else as_bytes(new))
            for key, old, new in changes
        ]
        cdef bytes table = new_bytes(2 * len(kept) * sizeof(Element))
        cdef Element* elements = <Element*>octets(table)
        cdef size_t count = 0, i
        cdef bytes key_bytes
        cdef tuple change
        for change in kept:
            key_bytes = <bytes>change[0]
            if <uint64_t>PyBytes_GET_SIZE(key_bytes) > U32_MAX:
                raise ValueError("a key has at most 2**32-1 bytes")
            if change[1] == change[2]:
                continue
            if change[1] is not None:
                set_element(&elements[count], key_bytes, <bytes>change[1], True)
                count += 1
            if change[2] is not None:
                set_element(&elements[count], key_bytes, <bytes>change[2], False)
                count += 1
        # The GIL is kept: the executor is the only user of its state, and two threads must not add at once.
        add_elements(self.vectors, self.buckets, elements, count, width_max)
        for i in range(count):
            self.fresh[elements[i].bucket] = 0
        return 0

    cdef size_t bucket(self, i) except? 1:
        return as_unsigned(i, self.buckets - 1, "bucket")

    def vector(self, i):
        """The 2048 bytes of bucket `i`."""
        return PyBytes_FromStringAndSize(<const char*>self.vectors + VECTOR * self.bucket(i), VECTOR)

    def load(self, i, vector):
        """Replace the vector of bucket `i`."""
        cdef bytes checked = sized(vector, VECTOR, "vector")
        cdef size_t bucket = self.bucket(i)
        memcpy(self.vectors + VECTOR * bucket, octets(checked), VECTOR)
        self.fresh[bucket] = 0

    cdef const uint8_t* digest(self, size_t bucket) noexcept:
        if not self.fresh[bucket]:
            sha256_of(self.digests + HASH * bucket, self.vectors + VECTOR * bucket, VECTOR)
            self.fresh[bucket] = 1
        return self.digests + HASH * bucket

    def bucket_digest(self, i):
        """H(vector of bucket `i`)."""
        return PyBytes_FromStringAndSize(<const char*>self.digest(self.bucket(i)), HASH)

    def root(self):
        """Merkle root over H(0x00 || bucket digest) of all buckets."""
        cdef bytes leaves = new_bytes(HASH * self.buckets), out = new_bytes(HASH)
        cdef uint8_t text[1 + HASH]
        cdef size_t i
        text[0] = 0
        for i in range(self.buckets):
            memcpy(text + 1, self.digest(i), HASH)
            sha256_of(octets(leaves) + HASH * i, text, 1 + HASH)
        root_in_place(octets(leaves), self.buckets, octets(out))
        return out


cdef int set_element(Element* element, bytes key, bytes row, bint subtract) except -1:
    if <uint64_t>PyBytes_GET_SIZE(row) > U32_MAX:
        raise ValueError("a row has at most 2**32-1 bytes")
    element.key = octets(key)
    element.key_size = PyBytes_GET_SIZE(key)
    element.row = octets(row)
    element.row_size = PyBytes_GET_SIZE(row)
    element.subtract = subtract
    return 0


def _check_shake():
    """RuntimeError unless every form of Keccak that this machine runs agrees with hashlib."""
    cdef StateHash state
    for width in (1, 4, 8):
        for count in (1, 3, 5, 8):
            rows = [bytes([i]) * (40 + 61 * i) for i in range(count)]
            state = StateHash(1)
            state.add_all([(b"", None, row) for row in rows], width)
            expected = [0] * 1024
            for row in rows:
                text = b"ROW\0\0\0\0\0" + bytes(4) + len(row).to_bytes(4, "little") + row
                element = hashlib.shake_128(text).digest(VECTOR)
                for i in range(1024):
                    expected[i] = (expected[i] + int.from_bytes(element[2 * i : 2 * i + 2], "little")) & 0xFFFF
            if state.vector(0) != b"".join([lane.to_bytes(2, "little") for lane in expected]):
                raise RuntimeError(f"SHAKE128 is wrong for {count} rows, {width} side by side")


_check_shake()
