"""A first-in-first-out list of references, in chunks: push and pop never copy or move.

One growing array would copy eighty megabytes at ten million events, with the GIL held;
chunks cost nothing beyond the references, and go back to the allocator as they drain. The
first chunk is part of the queue. So ten thousand queues that hold a few events each do not
need the allocator, which halves the cost of an event to all of them.

All functions are called under the owner's lock and run no Python code.
"""

from cpython.object cimport PyObject
from libc.stdlib cimport free, malloc
from posix.mman cimport (
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    mmap,
    munmap,
)

from .sync cimport incref

cdef enum:
    FEW = 26  # references in the first chunk: a queue stays below 1 KiB
    SMALL = 32  # ... in the second; each further one is twice as large
    LARGE = 1024  # ... up to this
    MAPPED = 8190  # ... but for a long backlog, and for a block that does not fit: see new_chunk
    LONG = 65536  # a backlog of so many references is long


cdef struct Chunk:
    Chunk *next
    Py_ssize_t size
    PyObject *items[FEW]  # `size` of them


cdef struct Backlog:
    Chunk *tail
    Py_ssize_t end  # index in tail after the newest
    Py_ssize_t count
    Chunk *head
    Py_ssize_t first  # index in head of the oldest
    Chunk own  # the first chunk


cdef inline size_t chunk_bytes(Py_ssize_t size) noexcept nogil:
    return sizeof(Chunk) + (size - FEW) * sizeof(PyObject *)


cdef inline Chunk *new_chunk(Py_ssize_t size) noexcept nogil:
    """NULL without memory. A large chunk has pages of its own, which go back to the system when
    it is freed. The allocator would keep all memory below a block that is in use."""
    cdef Chunk *chunk
    if size > LARGE:
        chunk = <Chunk *>mmap(
            NULL, chunk_bytes(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        if chunk == MAP_FAILED:
            return NULL
    else:
        chunk = <Chunk *>malloc(chunk_bytes(size))
        if chunk == NULL:
            return NULL
    chunk.next = NULL
    chunk.size = size
    return chunk


cdef inline void free_chunk(Chunk *chunk) noexcept nogil:
    if chunk.size > LARGE:
        munmap(chunk, chunk_bytes(chunk.size))
    else:
        free(chunk)


cdef inline void backlog_init(Backlog *self) noexcept nogil:
    self.head = self.tail = &self.own
    self.first = self.end = self.count = 0
    self.own.next = NULL
    self.own.size = FEW


cdef inline bint backlog_reserve(Backlog *self, Py_ssize_t n) noexcept nogil:
    """Make room for n more, which are pushed at once; false without memory."""
    cdef Py_ssize_t room = self.tail.size - self.end
    cdef Py_ssize_t size
    cdef Chunk *chunk
    if n <= room:
        return True
    size = SMALL if self.tail.size < SMALL else 2 * self.tail.size
    if size > LARGE:
        size = MAPPED if self.count >= LONG else LARGE
    if size < n - room:
        size = n - room
    chunk = new_chunk(size)
    self.tail.next = chunk
    return chunk != NULL


cdef inline void take_all(PyObject **room, PyObject **items, Py_ssize_t n) noexcept:
    """Copy references, and count each."""
    cdef Py_ssize_t i
    for i in range(n):
        incref(items[i])
        room[i] = items[i]


cdef inline bint backlog_extend(Backlog *self, PyObject **items, Py_ssize_t n) noexcept:
    """Append n, each counted; false without memory, and then none is appended."""
    cdef Py_ssize_t here
    if not backlog_reserve(self, n):
        return False
    here = min(n, self.tail.size - self.end)
    take_all(self.tail.items + self.end, items, here)
    self.end += here
    if here < n:
        self.tail = self.tail.next
        self.end = n - here
        take_all(self.tail.items, items + here, n - here)
    self.count += n
    return True


cdef inline bint backlog_append(Backlog *self, PyObject *item) noexcept nogil:
    """Reserve and push one; false without memory."""
    cdef Chunk *tail = self.tail
    if self.end == tail.size:
        if not backlog_reserve(self, 1):
            return False
        self.tail = tail = tail.next
        self.end = 0
    tail.items[self.end] = item
    self.end += 1
    self.count += 1
    return True


cdef inline PyObject *backlog_pop(Backlog *self) noexcept nogil:
    """Take the oldest; the backlog must not be empty."""
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
            free_chunk(chunk)
    return item


cdef inline void backlog_clear(Backlog *self) noexcept nogil:
    """Free all chunks; what they held was popped, or is leaked on purpose."""
    cdef Chunk *chunk = self.head
    cdef Chunk *after
    while chunk != NULL:
        after = chunk.next
        if chunk != &self.own:
            free_chunk(chunk)
        chunk = after
    backlog_init(self)


cdef inline Chunk *backlog_detach(Backlog *self, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil:
    """Take the whole oldest chunk, with the items from first to end; the caller frees it.

    NULL if it is part of the queue: its few events are popped one by one.
    """
    cdef Chunk *chunk = self.head
    if chunk == &self.own:
        return NULL
    first[0] = self.first
    end[0] = self.end if chunk == self.tail else chunk.size
    self.count -= end[0] - first[0]
    if self.count == 0:
        backlog_init(self)  # that was the only one
    else:
        self.head = chunk.next
        self.first = 0
    return chunk
