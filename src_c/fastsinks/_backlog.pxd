"""A first-in-first-out list of references, in chunks: push and pop never copy or move.

One growing array would copy eighty megabytes at ten million events, with the GIL held;
chunks cost nothing beyond the references, and go back to the allocator as they drain.
All functions are called under the owner's lock; they own what is pushed, and run no
Python code.
"""

from cpython.object cimport PyObject
from libc.stdlib cimport free, malloc

cdef enum:
    SMALL = 8  # references in the first chunk
    LARGE = 1024  # ... and at most, unless a larger block is pushed
    KEPT = 32  # a chunk up to this size is kept when it has drained


cdef struct Chunk:
    Chunk *next
    Py_ssize_t size
    PyObject *items[1]  # `size` of them


cdef struct Backlog:
    Chunk *head
    Chunk *tail
    Py_ssize_t first  # index in head of the oldest
    Py_ssize_t end  # index in tail after the newest
    Py_ssize_t count


cdef inline bint backlog_reserve(Backlog *self, Py_ssize_t n) noexcept nogil:
    """Make room for n more, so that n pushes succeed; false without memory."""
    cdef Py_ssize_t free_slots = self.tail.size - self.end if self.tail != NULL else 0
    cdef Py_ssize_t size
    cdef Chunk *chunk
    if n <= free_slots:
        return True
    if self.tail != NULL and self.tail.next != NULL:
        free_slots += self.tail.next.size
        if n <= free_slots:
            return True
        free_slots -= self.tail.next.size
        free(self.tail.next)
        self.tail.next = NULL
    size = SMALL if self.tail == NULL else 2 * self.tail.size
    if size > LARGE:
        size = LARGE
    if size < n - free_slots:
        size = n - free_slots
    chunk = <Chunk *>malloc(sizeof(Chunk) + (size - 1) * sizeof(PyObject *))
    if chunk == NULL:
        return False
    chunk.next = NULL
    chunk.size = size
    if self.tail == NULL:
        self.head = self.tail = chunk
        self.first = self.end = 0
    else:
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
    cdef Chunk *drained = self.head
    cdef PyObject *item = drained.items[self.first]
    self.first += 1
    self.count -= 1
    if self.count == 0:
        backlog_drained(self)
    elif self.first == drained.size:
        self.head = drained.next
        self.first = 0
        free(drained)
    return item


cdef inline void backlog_drained(Backlog *self) noexcept nogil:
    """Empty: keep one small chunk, for a queue that holds an event or two at a time."""
    cdef Chunk *chunk = self.head
    cdef Chunk *after
    while chunk.next != NULL:
        after = chunk.next
        free(chunk)
        chunk = after
    if chunk.size > KEPT:
        free(chunk)
        chunk = NULL
    self.head = self.tail = chunk
    self.first = self.end = 0


cdef inline Chunk *backlog_detach(Backlog *self, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil:
    """Take the oldest chunk whole: items first to end. There is one; the caller frees it."""
    cdef Chunk *chunk = self.head
    first[0] = self.first
    end[0] = self.end if chunk == self.tail else chunk.size
    self.count -= end[0] - first[0]
    self.head = chunk.next
    self.first = 0
    if chunk == self.tail:
        # A chunk may have been reserved behind it.
        self.tail = chunk.next
        self.end = 0
    return chunk


cdef inline void backlog_free(Backlog *self) noexcept nogil:
    """Free the chunks; what they hold was popped, or is leaked on purpose."""
    cdef Chunk *chunk = self.head
    cdef Chunk *after
    while chunk != NULL:
        after = chunk.next
        free(chunk)
        chunk = after
    self.head = self.tail = NULL
    self.first = self.end = self.count = 0
