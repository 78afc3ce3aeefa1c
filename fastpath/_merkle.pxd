from libc.stdint cimport uint8_t

# Root over `count` hashes of 32 bytes, which are overwritten. Cannot fail.
cdef void root_in_place(uint8_t* nodes, size_t count, uint8_t* out) noexcept nogil

# The hashes of a sequence, copied one behind the other; ValueError unless each has 32 bytes.
cdef bytes joined_hashes(object hashes, str what)
