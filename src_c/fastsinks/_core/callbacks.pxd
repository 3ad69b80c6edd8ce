"""The compiled core's half of the one door to user code: the calls made for every event.

All others go through `callbacks.py`. Compiled sinks are not user code: they are called through
their vtable. Nothing here is called under a lock.
"""

from .destination cimport Destination


cdef inline int write(Destination dst, object event) except -1:
    """Hand one event to what a sink writes to. Raises what that raises."""
    if dst._native is not None:
        return dst._native.write_c(event)
    dst._write(event)
    return 0


cdef inline int write_many(Destination dst, object events) except -1:
    """Hand on a list or a tuple: as a block where the sink takes blocks."""
    if dst._native_many is not None:
        return dst._native_many.write_many_c(events)
    if dst._write_many is not None:
        dst._write_many(events)
        return 0
    for event in events:
        write(dst, event)
    return 0


cdef inline bint match(object matcher, object event) except -1:
    """Whether a matcher, by now a callable, accepts the event. Raises what it raises."""
    return matcher(event)
