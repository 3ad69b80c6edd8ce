"""The command ``fastsinks``.

Exit status: 0 if everything was delivered, 1 if not, 2 for bad usage.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .._core.version import __version__

DELIVERED, UNDELIVERED, USAGE = 0, 1, 2

MAXSIZE = 5_000
"""Events that may be pending at an endpoint, so that a large file does not fill the memory."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status (argparse exits by itself with 0 or 2)."""
    parser = build_parser()
    options = parser.parse_args(argv)
    # SIGTERM, like Ctrl-C, has to report and clean up.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        status = UNDELIVERED
    finally:
        signal.signal(signal.SIGTERM, before)
    try:
        if sys.stdout is not None:  # else the process was started without one
            sys.stdout.flush()
    except BrokenPipeError:  # the program that read the output has ended
        _discard_stdout()
    return status


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastsinks",
        description="Send events to every endpoint: queued, in order, retried.",
        epilog="exit status: 0 if everything was delivered, 1 if not, 2 for bad usage",
    )
    parser.add_argument("--version", action="version", version=f"fastsinks {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    send = commands.add_parser(
        "send",
        help="send the events of a file to one or more URLs",
        description="Send every event of FILE to every URL, in order, each at least once.\n"
        "FILE holds JSON, an event or a recorded envelope of events a line.",
        epilog="An endpoint that is away holds back the others once 5,000 events wait for it,\n"
        "and is given up when none was delivered or dropped for --give-up-after seconds.\n\n"
        "exit status: 0 if everything was delivered, 1 if not, 2 for bad usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    send.set_defaults(run=partial(_send, send))
    send.add_argument("file", metavar="FILE", help="newline-delimited JSON; - is standard input")
    send.add_argument(
        "--to",
        metavar="URL",
        type=_url,
        action="append",
        required=True,
        help="where to; repeatable",
    )
    send.add_argument(
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        help="a header of every request; repeatable",
    )
    send.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="bounds each request as a whole (default: %(default)g)",
    )
    send.add_argument(
        "--batch-size",
        metavar="N",
        type=_positive,
        default=100,
        help="events a request at most (default: %(default)s)",
    )
    send.add_argument(
        "--max-attempts",
        metavar="N",
        type=_positive,
        help="drop an event that failed so often (default: never)",
    )
    send.add_argument(
        "--give-up-after",
        metavar="SECONDS",
        type=_seconds,
        default=15.0,
        help="give up on an endpoint when none of its events was delivered or dropped for so long; "
        "inf: never (default: %(default)g)",
    )
    send.add_argument("--quiet", action="store_true", help="no progress and no summary")

    demo = commands.add_parser(
        "demo",
        help="see it deliver to three receivers, two of them bad",
        description="Start three receivers on this machine, a good one, a slow one and one that "
        "refuses, fails, hangs up and is killed; send the same events to all; then check what "
        "each of them got.",
        epilog="exit status: 0 if each receiver got every event, first arrivals in order",
    )
    demo.set_defaults(run=_demo)
    demo.add_argument(
        "--events",
        metavar="N",
        type=_positive,
        default=30_000,
        help="how many (default: %(default)s)",
    )
    demo.add_argument(
        "--seed",
        metavar="N",
        type=int,
        default=1,
        help="chooses the event ids and the faults (default: %(default)s)",
    )
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")
    return value


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return value


def _url(text: str) -> str:
    from .._http.url import URL

    try:
        URL.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _headers(parser: argparse.ArgumentParser, lines: Sequence[str]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            parser.error("--header needs the form 'Name: value'")  # may hold a secret: not quoted
        headers.setdefault(name.strip(), []).append(value.strip())
    return headers


def _open(parser: argparse.ArgumentParser, path: str) -> io.FileIO:
    try:
        file = io.FileIO(0, closefd=False) if path == "-" else io.FileIO(path)
        file.read(0)
    except OSError as error:
        parser.error(f"{path}: {error.strerror or error}")
    return file


def _send(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    # The imports are here so that --help and bad usage do not wait for them.
    from .display import Display, summary
    from .route import Route
    from .send import LAST_CHANCE, Sending

    file = _open(parser, options.file)
    headers = _headers(parser, options.header)
    try:
        routes = [
            Route(
                _name(url),
                url,
                max_attempts=options.max_attempts,
                timeout=options.timeout,
                headers=headers,
                batch_size=options.batch_size,
                maxsize=max(MAXSIZE, options.batch_size),
                when_full="block",
                close_timeout=LAST_CHANCE,
            )
            for url in options.to
        ]
    except ValueError as error:
        parser.error(str(error))
    display = Display(quiet=options.quiet)
    source = "standard input" if options.file == "-" else Path(options.file).name
    sending = Sending(source, file, routes, display, give_up_after=options.give_up_after)
    delivered = sending.run()
    if not options.quiet:
        _print("\n".join(summary(route.look() for route in routes)))
    return DELIVERED if delivered else UNDELIVERED


def _demo(options: argparse.Namespace) -> int:
    from .demo import Demo
    from .display import Display

    demo = Demo(options.events, options.seed, Display(sys.stdout))
    return DELIVERED if demo.run() else UNDELIVERED


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _discard_stdout()


def _name(url: str) -> str:
    """What an endpoint is called in messages: its URL, without credentials and query."""
    from .._http.url import URL

    return URL.parse(url).shown.partition("?")[0]


def _discard_stdout() -> None:
    """Discard further output, also at exit: standard output has no reader any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
