"""Export to Prometheus: a collector that reads the endpoints when it is scraped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from weakref import WeakKeyDictionary, ref

from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from . import _multiprocess
from ._accounts import accounts
from ._families import FAMILIES


class Collector:
    """What is registered with a registry of prometheus-client."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = None if registry is None else ref(registry)

    def describe(self) -> Iterator[Metric]:
        """The names alone: a registry finds those used twice without reading anything."""
        for family in FAMILIES:
            yield Metric(family.name, family.help, family.kind)

    def collect(self) -> Iterator[Metric]:
        """The present numbers: of this process, or of all that share a directory."""
        if _omitted.get():
            return
        if _multiprocess.enabled():
            _multiprocess.publisher.refresh()
            if not self._has_company():
                yield from _of_all_processes()
            return
        found = accounts.by_name()
        for family in FAMILIES:
            metric = Metric(family.name, family.help, family.kind)
            metric.samples = [
                Sample(name, dict(zip(labels, values, strict=True)), number)
                for account in found
                for name, labels, values, number in family.rows(account)
            ]
            yield metric

    def _has_company(self) -> bool:
        """Whether another collector of the registry reads the same files, and so our numbers."""
        registry = None if self._registry is None else self._registry()
        others = getattr(registry, "_collector_to_names", ())
        return any(isinstance(other, MultiProcessCollector) for other in others)


def _of_all_processes() -> Iterator[Metric]:
    ours = {family.name for family in FAMILIES}
    for metric in MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]
        if metric.name in ours:
            yield metric


# Whether the caller adds our families by itself.
_omitted: ContextVar[bool] = ContextVar("_omitted", default=False)


@contextmanager
def omitted() -> Iterator[None]:
    """Within this, registries that are read on this thread leave us out."""
    token = _omitted.set(True)
    try:
        yield
    finally:
        _omitted.reset(token)


_lock = Lock()
_collectors: WeakKeyDictionary[CollectorRegistry, Collector] = WeakKeyDictionary()  # _lock


def register(registry: CollectorRegistry | None = None) -> None:
    """Export to ``registry``, by default prometheus-client's own, until ``unregister``.

    The endpoints' own counters are read at each scrape, nothing is done in between. The
    totals of a closed endpoint stay. Registering twice is a no-op; ValueError if another
    collector has taken one of the names.
    """
    registry = REGISTRY if registry is None else registry
    with _lock:
        if registry not in _collectors:
            collector = Collector(registry)
            registry.register(collector)
            _collectors[registry] = collector


def unregister(registry: CollectorRegistry | None = None) -> None:
    """Undo ``register``; a no-op where there is nothing to undo.

    With the last registry, the totals of closed endpoints are forgotten.
    """
    registry = REGISTRY if registry is None else registry
    with _lock:
        collector = _collectors.pop(registry, None)
        if collector is not None:
            registry.unregister(collector)
            if not _collectors:
                accounts.forget()


def is_registered(registry: CollectorRegistry) -> bool:
    with _lock:
        return registry in _collectors
