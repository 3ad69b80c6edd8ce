"""The one door to user code: every object that a user hands in is called from here.

The compiled core's half is ``callbacks.pxd``; it uses this module where speed does not matter.
Each function says what becomes of an exception. What a sink or a matcher raises, or a strategy
that decides, goes to the caller. What a listener, a dead letter or ``success`` raises is logged,
because the event has its outcome already. Ctrl-C is raised all the same (see thread_state).

No function here is called under a lock, in either backend: user code may block, call back
into any sink, or never return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import CodeType
from typing import Any, TypeVar

from . import log
from .arguments import FOREVER
from .errors import DeliveryError
from .log import Drops, describe_error
from .thread_state import is_interrupt, may_be_ctrl_c

T = TypeVar("T")

# ------------------------------------------------------------------------------ sinks


def write(sink: Any, event: Any) -> None:
    """Hand one event to a sink. Raises what the sink raises."""
    sink.write(event)


def write_many(sink: Any, events: Sequence[Any]) -> None:
    """Hand a block to a sink that takes blocks. Raises what the sink raises."""
    sink.write_many(events)


def fit(sink: Any, events: Sequence[Any]) -> int:
    """How many of ``events``, from the first, a sink of ours wants to be written together."""
    return max(1, int(sink.fit(events)))


def close(sink: Any, left: float) -> None:
    """Close a sink, within ``left`` seconds where its ``close`` takes a timeout."""
    if left < FOREVER and takes_timeout(sink.close):
        sink.close(timeout=max(0.0, left))
    else:
        sink.close()


def takes_timeout(close: Any) -> bool:
    """Whether a sink's ``close`` has a parameter of that name."""
    code = getattr(close, "__code__", None)
    if isinstance(code, CodeType) and not hasattr(close, "__wrapped__"):
        return "timeout" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    text = getattr(close, "__text_signature__", None)  # a compiled function has this
    if text is not None:
        return "timeout" in text
    # A decorated function, a partial or a callable object. Importing inspect costs as much as
    # the rest of the core, and most programs never need it.
    from inspect import signature

    try:
        return "timeout" in signature(close).parameters
    except (TypeError, ValueError):  # built in, without a signature
        return False


def bury(dead_letter: Any, events: Iterable[Any]) -> None:
    """Hand dropped events to the dead letter, in order, if there is one.

    What it raises is logged. Ctrl-C, which may also strike between two events, is raised once
    all of them have been handed over.
    """
    if dead_letter is None:
        return
    left = iter(events)
    interrupt: BaseException | None = None
    while True:
        try:
            for event in left:
                dead_letter.write(event)
            break
        except BaseException as error:
            if is_interrupt(error):
                interrupt = error
            log.error("a dead letter refused an event: %s", describe_error(error))
    if interrupt is not None:
        raise interrupt


def report_drops(
    trouble: Drops,
    dead_letter: Any,
    listeners: tuple[Any, ...],
    events: Sequence[Any],
    reason: str,
) -> None:
    """Report what a queue has dropped and counted: to the log, the dead letter, the listeners."""
    try:
        trouble.happened(events[0], reason, len(events))
    finally:  # Ctrl-C may strike in a log handler
        bury(dead_letter, events)
        tell_all(listeners, "egress", events)


# -------------------------------------------------------------- listeners and matchers


def tell(listeners: tuple[Any, ...], method: str, *args: Any) -> None:
    """Call ``method`` of every listener. What one raises is logged, and the others are told."""
    for listener in listeners:
        try:
            getattr(listener, method)(*args)
        except BaseException as error:
            log.error("a listener's %s() raised %s", method, describe_error(error))
            if is_interrupt(error):
                raise


def tell_all(listeners: tuple[Any, ...], method: str, events: Iterable[Any], *args: Any) -> None:
    """The same for each of ``events``, in order."""
    if listeners:
        for event in events:
            tell(listeners, method, event, *args)


def match(matcher: Any, event: Any) -> bool:
    """Whether a matcher, by now a callable, accepts the event. Raises what it raises."""
    return bool(matcher(event))


# ---------------------------------------------------------------- strategies, errors


def proceed(strategy: Any, event: Any) -> float:
    """Seconds that a strategy wants to wait before the attempt. Raises what it raises, and
    ValueError for NaN."""
    wait = float(strategy.proceed(event))
    if wait != wait:
        raise ValueError("a strategy's proceed() returned NaN")
    return min(wait, FOREVER)


def failure(strategy: Any, event: Any, error: BaseException) -> bool:
    """Tell a strategy of a failed attempt; true drops the event. Raises what it raises."""
    return bool(strategy.failure(event, error))


def success(strategy: Any, event: Any) -> None:
    """Tell a strategy of a success. What it raises is logged: the event is committed."""
    try:
        strategy.success(event)
    except BaseException as error:
        log.error("a strategy's success() raised %s", describe_error(error))
        if is_interrupt(error):
            raise


def is_permanent(error: BaseException) -> bool:
    """Whether an exception says that trying again cannot help."""
    try:
        return bool(getattr(error, "permanent", False))
    except Exception:  # a property that raises counts as absent
        return False


def retry_after(error: BaseException) -> float:
    """How many seconds an exception asks the sender to wait; 0 if it does not ask."""
    try:
        after = getattr(error, "retry_after", None)
    except Exception:
        return 0.0
    if isinstance(after, (int, float)) and after > 0:  # false for NaN
        return FOREVER if after >= FOREVER else float(after)
    return 0.0


# ---------------------------------------------------------------- requests over HTTP


def encode(encoder: Any, events: Sequence[Any]) -> bytes:
    """The body of a request. Whatever goes wrong is a permanent DeliveryError.

    The text and the traceback of what the encoder raises are left out: they may quote the event.
    """
    name = type(encoder).__name__
    try:
        body = encoder.encode(events)
    except DeliveryError:
        raise
    except BaseException as error:
        if may_be_ctrl_c(error):
            raise
        kinds = ", ".join(sorted({type(event).__name__ for event in events}))
        raise DeliveryError(
            f"{name} cannot encode {kinds}: {type(error).__name__}", permanent=True
        ) from None
    if not isinstance(body, bytes):
        raise DeliveryError(f"{name} made {type(body).__name__} instead of bytes", permanent=True)
    return body


def sign(signer: Any, check: Callable[[Any], T], *args: Any) -> T:
    """The headers that a signer adds: what ``check`` makes of the signer's result.

    Raises DeliveryError without the signer's own exception, which may contain its secret.
    """
    try:
        return check(signer(*args))
    except BaseException as error:
        if may_be_ctrl_c(error):
            raise
        raise DeliveryError(f"the signer raised {type(error).__name__}") from None


def allow(allowed: Any, address: Any) -> bool:
    """Whether ``allow`` lets an address through. Raises DeliveryError if ``allow`` raises."""
    try:
        return bool(allowed(address))
    except BaseException as error:
        if may_be_ctrl_c(error):
            raise
        raise DeliveryError(f"allow raised {type(error).__name__}") from error
