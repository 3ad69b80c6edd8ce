"""A first-in-first-out list of references, in chunks: push and pop never copy or move.

One growing array would copy eighty megabytes at ten million events, with the GIL held;
chunks cost nothing beyond the references, and go back to the allocator as they drain. The
first chunk is part of the queue, for the one or two events that a queue mostly holds.
All functions are called under the owner's lock; they own what is pushed, and run no
Python code.
"""

from cpython.object cimport PyObject
from libc.stdlib cimport free, malloc

cdef enum:
    FEW = 4  # references in the first chunk
    SMALL = 16  # ... in the second; each further one is twice as large
    LARGE = 1024  # ... up to this, unless a larger block is pushed


cdef struct Chunk:
    Chunk *next
    Py_ssize_t size
    PyObject *items[FEW]  # `size` of them


cdef struct Backlog:
    Chunk *head
    Chunk *tail
    Py_ssize_t first  # index in head of the oldest
    Py_ssize_t end  # index in tail after the newest
    Py_ssize_t count
    Chunk own  # the first chunk


cdef inline void backlog_init(Backlog *self) noexcept nogil:
    self.head = self.tail = &self.own
    self.first = self.end = self.count = 0
    self.own.next = NULL
    self.own.size = FEW


cdef inline bint backlog_reserve(Backlog *self, Py_ssize_t n) noexcept nogil:
    """Make room for n more, so that n pushes succeed; false without memory."""
    cdef Py_ssize_t room = self.tail.size - self.end
    cdef Py_ssize_t size
    cdef Chunk *chunk
    if n <= room:
        return True
    if self.tail.next != NULL:  # reserved before, and not used
        if n <= room + self.tail.next.size:
            return True
        free(self.tail.next)
        self.tail.next = NULL
    size = SMALL if self.tail.size < SMALL else 2 * self.tail.size
    if size > LARGE:
        size = LARGE
    if size < n - room:
        size = n - room
    chunk = <Chunk *>malloc(sizeof(Chunk) + (size - FEW) * sizeof(PyObject *))
    if chunk == NULL:
        return False
    chunk.next = NULL
    chunk.size = size
    self.tail.next = chunk
    return True


cdef inline void backlog_push(Backlog *self, PyObject *item) noexcept nogil:
    """Append, after backlog_reserve."""
    if self.end == self.tail.size:
        self.tail = self.tail.next
        self.end = 0
    self.tail.items[self.end] = item
    self.end += 1
    self.count += 1


cdef inline PyObject *backlog_pop(Backlog *self) noexcept nogil:
    """Take the oldest; there is one."""
    cdef Chunk *chunk = self.head
    cdef PyObject *item = chunk.items[self.first]
    self.first += 1
    self.count -= 1
    if self.count == 0:
        backlog_clear(self)
    elif self.first == chunk.size:
        self.head = chunk.next
        self.first = 0
        if chunk != &self.own:
            free(chunk)
    return item


cdef inline void backlog_clear(Backlog *self) noexcept nogil:
    """Give back all chunks; what they held was popped, or is leaked on purpose."""
    cdef Chunk *chunk = self.head
    cdef Chunk *after
    while chunk != NULL:
        after = chunk.next
        if chunk != &self.own:
            free(chunk)
        chunk = after
    backlog_init(self)


cdef inline Chunk *backlog_detach(Backlog *self, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil:
    """Take the oldest chunk whole: items first to end, the caller frees it.

    NULL if it is the queue's own, whose few events are popped one by one.
    """
    cdef Chunk *chunk = self.head
    if chunk == &self.own:
        return NULL
    first[0] = self.first
    end[0] = self.end if chunk == self.tail else chunk.size
    self.count -= end[0] - first[0]
    if self.count == 0:
        self.head = chunk.next  # reserved, and not used
        backlog_clear(self)
    else:
        self.head = chunk.next
        self.first = 0
    return chunk
