"""Votes for digests, and the k-th largest value (see `_py`, the specification)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy

from fastpath._sodium cimport as_unsigned, sized

import operator

cdef enum:
    HASH = 32


cdef struct Vote:
    uint8_t digest[HASH]
    bint cast_already


cdef class Tally:
    """Votes of `senders` replicas, numbered from 0, for 32-byte digests. The first vote of each counts."""

    cdef Vote* votes
    cdef Py_ssize_t senders

    def __cinit__(self, senders):
        self.senders = as_unsigned(senders, 0xFFFF, "number of senders")
        if self.senders == 0:
            raise ValueError("a tally needs a sender")
        self.votes = <Vote*>PyMem_Calloc(self.senders, sizeof(Vote))
        if self.votes == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.votes)

    cdef Py_ssize_t total(self, const uint8_t* digest) noexcept:
        cdef Py_ssize_t i, votes = 0
        for i in range(self.senders):
            if self.votes[i].cast_already and memcmp(self.votes[i].digest, digest, HASH) == 0:
                votes += 1
        return votes

    def add(self, sender, digest):
        """The number of votes for `digest` with this one; 0: a repetition; -1: it voted otherwise before."""
        cdef Vote* its = &self.votes[as_unsigned(sender, self.senders - 1, "sender")]
        cdef bytes vote = sized(digest, HASH, "digest")
        cdef const uint8_t* octets = <const uint8_t*>PyBytes_AS_STRING(vote)
        if its.cast_already:
            return 0 if memcmp(its.digest, octets, HASH) == 0 else -1
        memcpy(its.digest, octets, HASH)
        its.cast_already = True
        return self.total(octets)

    def count(self, digest):
        """Votes for `digest`."""
        cdef bytes vote = sized(digest, HASH, "digest")
        return self.total(<const uint8_t*>PyBytes_AS_STRING(vote))

    def voters(self, digest):
        """Who voted for `digest`, ascending."""
        cdef bytes vote = sized(digest, HASH, "digest")
        cdef const uint8_t* octets = <const uint8_t*>PyBytes_AS_STRING(vote)
        cdef Py_ssize_t i
        return [
            i
            for i in range(self.senders)
            if self.votes[i].cast_already and memcmp(self.votes[i].digest, octets, HASH) == 0
        ]

    def vote_of(self, sender):
        """What this sender voted for, or None."""
        cdef Vote* its = &self.votes[as_unsigned(sender, self.senders - 1, "sender")]
        return PyBytes_FromStringAndSize(<char*>its.digest, HASH) if its.cast_already else None


def kth_largest(values, k):
    """The k-th largest value, counted from 1; equal values count each."""
    cdef list ordered = sorted(values, reverse=True)
    position = operator.index(k)
    if not 1 <= position <= len(ordered):
        raise ValueError(f"there is no {position}-th of {len(ordered)} values")
    return ordered[position - 1]
