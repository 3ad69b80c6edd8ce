"""The strands on a timer: a binary heap by `when`. Each strand knows its slot.

The heap has room for every strand there is, so that nothing here can fail. All functions are
called under the dispatcher's lock, without the GIL.
"""

from libc.stdlib cimport realloc

from .strand cimport Strand


cdef struct Timers:
    Strand **heap
    Py_ssize_t count  # of those on a timer
    Py_ssize_t room  # how many fit
    Py_ssize_t strands  # how many exist


cdef inline bint timers_make_room(Timers *self, Py_ssize_t more) noexcept nogil:
    """Make room for `more` strands, which count as existing from now on; false without memory."""
    cdef Strand **heap
    cdef Py_ssize_t room = 2 * self.room + more
    if self.strands + more > self.room:
        heap = <Strand **>realloc(self.heap, room * sizeof(Strand *))
        if heap == NULL:
            return False
        self.heap = heap
        self.room = room
    self.strands += more
    return True


cdef inline bint timers_due(Timers *self, double now) noexcept nogil:
    """Whether the time of the first strand has come."""
    return self.count and self.heap[0].when <= now


cdef inline void timers_add(Timers *self, Strand *strand, double when) noexcept nogil:
    strand.when = when
    self.count += 1
    sift_up(self.heap, self.count, strand)


cdef inline void timers_remove(Timers *self, Strand *strand) noexcept nogil:
    """Take out a strand that is in the heap; the last one fills its place."""
    cdef Py_ssize_t at = strand.slot
    cdef Strand *last = self.heap[self.count - 1]
    self.count -= 1
    strand.slot = 0
    if last == strand:
        return
    if at > 1 and self.heap[at // 2 - 1].when > last.when:
        sift_up(self.heap, at, last)
    else:
        sift_down(self.heap, self.count, at, last)


cdef inline void place(Strand **heap, Py_ssize_t at, Strand *strand) noexcept nogil:
    heap[at - 1] = strand
    strand.slot = at


cdef inline void sift_up(Strand **heap, Py_ssize_t at, Strand *strand) noexcept nogil:
    while at > 1 and heap[at // 2 - 1].when > strand.when:
        place(heap, at, heap[at // 2 - 1])
        at //= 2
    place(heap, at, strand)


cdef inline void sift_down(
    Strand **heap, Py_ssize_t size, Py_ssize_t at, Strand *strand
) noexcept nogil:
    cdef Py_ssize_t child
    while 2 * at <= size:
        child = 2 * at
        if child < size and heap[child].when < heap[child - 1].when:
            child += 1
        if heap[child - 1].when >= strand.when:
            break
        place(heap, at, heap[child - 1])
        at = child
    place(heap, at, strand)
