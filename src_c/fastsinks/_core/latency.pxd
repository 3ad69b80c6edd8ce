"""How long events take from being accepted to being done with, without a clock read for each.

A mark is a position in the queue and the time when the event there was accepted. An event
counts as old as the latest mark at or before it. So it never seems younger than it is, and
older by at most the time between two marks. The first event after each attempt at delivery is
marked. Between two attempts ever fewer are, so that marks cost nothing however many events are
written. When there is no room for another mark, every other one is deleted.

Events that are done with are counted by age, in a histogram. All functions are called under the
owner's lock, and run no Python code.
"""

cdef enum:
    MARKS = 16
    BUCKETS = 9


cdef struct Latency:
    unsigned long long position[MARKS]  # ascending; events before position[0] are done with
    double time[MARKS]
    int count
    unsigned long long stride  # from the latest mark to the next
    unsigned long long buckets[BUCKETS]  # events; the bounds are in stats.py
    double total  # seconds


cdef inline unsigned long long latency_mark(
    Latency *self, unsigned long long position, double now
) noexcept nogil:
    """Mark the event that is about to be accepted; where the next mark is due."""
    cdef unsigned long long due = position + self.stride
    cdef int i
    if self.count == MARKS:
        self.count = MARKS // 2
        for i in range(self.count):
            self.position[i] = self.position[2 * i]
            self.time[i] = self.time[2 * i]
    self.position[self.count] = position
    self.time[self.count] = now
    self.count += 1
    self.stride *= 2
    return due


cdef inline int latency_find(Latency *self, unsigned long long position) noexcept nogil:
    """The latest mark at or before a position; there must be a mark."""
    cdef int i = self.count - 1
    while i > 0 and self.position[i] > position:
        i -= 1
    return i


cdef inline double latency_latest(Latency *self) noexcept nogil:
    """When the latest mark was made; 0.0 if there is none."""
    return self.time[self.count - 1] if self.count else 0.0


cdef inline void latency_done(
    Latency *self,
    unsigned long long first,
    unsigned long long count,
    unsigned long long oldest,
    const double *bounds,
    double now,
) noexcept nogil:
    """`count` events from position `first` on are done with, and all events before `oldest`."""
    cdef unsigned long long stop = first + count
    cdef unsigned long long end
    cdef double age
    cdef int bucket
    cdef int i
    cdef int mark
    if self.count == 0:
        return
    mark = latency_find(self, first)
    while first < stop:
        end = stop
        if mark + 1 < self.count and self.position[mark + 1] < stop:
            end = self.position[mark + 1]
        age = now - self.time[mark]
        bucket = 0
        while bucket < BUCKETS - 1 and age > bounds[bucket]:
            bucket += 1
        self.buckets[bucket] += end - first
        self.total += age * <double>(end - first)
        first = end
        mark += 1
    mark = latency_find(self, oldest)
    for i in range(mark, self.count):
        self.position[i - mark] = self.position[i]
        self.time[i - mark] = self.time[i]
    self.count -= mark
