"""What a process has of threads, files and memory."""

from __future__ import annotations

import ctypes
import gc
import os
from typing import NamedTuple

from support import os_threads

GROWTH = 24
"""MiB by which the resident memory may have grown in the end, however long the run was: what
allocators keep in fragments, and code that was not loaded in the beginning."""


class Vitals(NamedTuple):
    threads: int
    descriptors: int
    resident: float  #: MiB

    @classmethod
    def now(cls) -> Vitals:
        """After a collection, and with all given back to the system that can be."""
        gc.collect()
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # another C library
            pass
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        descriptors = len(os.listdir("/proc/self/fd"))
        return cls(os_threads(), descriptors, pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    def compare(self, before: Vitals) -> list[str]:
        """What has not come back, in words."""
        wrong = []
        if self.threads > before.threads:
            wrong.append(f"{self.threads} threads, {before.threads} before")
        if self.descriptors > before.descriptors:
            wrong.append(f"{self.descriptors} descriptors, {before.descriptors} before")
        if self.resident > before.resident + GROWTH:
            wrong.append(f"{self.resident:.0f} MiB, {before.resident:.0f} before")
        return wrong
