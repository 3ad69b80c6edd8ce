from cpython.object cimport PyObject


cdef enum State:  # that a run leaves its strand in
    IDLE  # nothing to do, until it is scheduled again
    READY  # there is more to do, but others are to run first
    TIMED  # on a timer, where the run has put it


cdef struct Strand:
    # The dispatcher's side of a queue's flight: at most one thread runs it at a time.
    #
    # It is idle, ready, running or on a timer; while it is not idle, the dispatcher owns
    # a reference to `owner`.
    PyObject *owner  # set once
    State (*run)(Strand *strand) noexcept  # set once; called with the GIL, under no lock
    Strand *next  # dispatcher's lock: in its list of ready strands; else in a list of the owner's
    Py_ssize_t slot  # dispatcher's lock: index in the timers + 1, 0 if not there
    double when  # dispatcher's lock: of the timer
