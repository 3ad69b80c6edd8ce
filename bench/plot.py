"""The scaling plot: events a second against the number of sinks, log-log, as an SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import median

from .contenders import FASTSINKS, GO, LOGGING, LOOP, QUEUE, SIMPLE_QUEUE, TWIN
from .race import Samples
from .work import Work
from .works import fanout

Curve = Sequence[tuple[int, float]]  # (sinks, events a second)
Panel = Mapping[str, Curve]

COLOURS = {
    FASTSINKS.label: "#d1242f",
    TWIN.label: "#e9967a",
    GO.label: "#0969da",
    SIMPLE_QUEUE.label: "#1a7f37",
    QUEUE.label: "#8250df",
    LOGGING.label: "#9a6700",
    LOOP.label: "#57606a",
}

WIDTH, HEIGHT = 460, 360  # of a panel, with its labels
LEFT, TOP, RIGHT, BOTTOM = 58, 40, 14, 46
LEGEND = 30  # height of a row


def curves(samples: Samples) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """From nanoseconds for an event at a sink to events a second."""
    panels = {
        "Broadcaster → N native sinks, direct": fanout.DIRECT,
        "Broadcaster → N Queues → native sinks, end to end": fanout.QUEUED,
    }
    return {title: _panel(samples, works) for title, works in panels.items()}


def _panel(samples: Samples, works: Mapping[int, Work]) -> dict[str, list[tuple[int, float]]]:
    panel: dict[str, list[tuple[int, float]]] = {}
    for sinks, work in works.items():
        for lane in work.lanes:
            if lane.run in samples.values:
                each = median(samples.of(lane))
                panel.setdefault(lane.contender.label, []).append((sinks, 1e9 / each / sinks))
    return panel


def scaling(panels: Mapping[str, Panel]) -> str:
    rates = [rate for panel in panels.values() for curve in panel.values() for _, rate in curve]
    bottom = math.floor(math.log10(min(rates)))
    top = math.ceil(math.log10(max(rates)))
    labels = [label for label in COLOURS if any(label in panel for panel in panels.values())]
    width, height = WIDTH * len(panels), HEIGHT + LEGEND * -(-len(labels) // 4) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
        "<title>Events a second against the number of sinks</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, (title, panel) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">')
        parts += _axes(title, bottom, top)
        for label, curve in panel.items():
            parts += _line(curve, COLOURS[label], bottom, top, label == FASTSINKS.label)
        parts.append("</g>")
    parts += _legend(labels, width)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _x(sinks: float) -> float:
    first, last = math.log10(fanout.SIZES[0]), math.log10(fanout.SIZES[-1])
    return LEFT + (math.log10(sinks) - first) / (last - first) * (WIDTH - LEFT - RIGHT)


def _y(rate: float, bottom: int, top: int) -> float:
    share = (math.log10(rate) - bottom) / max(1, top - bottom)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#1f2328"{more}>'
        f"{escape(text)}</text>"
    )


def _axes(title: str, bottom: int, top: int) -> Iterable[str]:
    yield _text((LEFT + WIDTH - RIGHT) / 2, 24, title, more=' font-weight="bold"')
    for power in range(bottom, top + 1):
        y = _y(10.0**power, bottom, top)
        yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>'
        yield _text(LEFT - 6, y + 4, _power(power), "end")
    for sinks in fanout.SIZES:
        x = _x(sinks)
        yield f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#d0d7de"/>'
        yield _text(x, HEIGHT - BOTTOM + 16, f"{sinks:,}", "end" if x > WIDTH - 40 else "middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "sinks")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    yield _text(14, middle, "events a second", more=f' transform="rotate(-90 14 {middle:.1f})"')


def _power(power: int) -> str:
    if power < 0:
        return f"{10.0**power:g}"
    unit = " kM"[power // 3] if power < 9 else "G"
    return f"{10 ** (power - 3 * ' kMG'.index(unit))} {unit}".strip()


def _line(curve: Curve, colour: str, bottom: int, top: int, ours: bool) -> Iterable[str]:
    points = [(_x(sinks), _y(rate, bottom, top)) for sinks, rate in curve]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    thick = 3 if ours else 1.8
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{thick + 1}" fill="{colour}"/>'


def _legend(labels: Sequence[str], width: int) -> Iterable[str]:
    for number, label in enumerate(labels):
        x = 24 + number % 4 * (width - 24) / 4
        y = HEIGHT + 16 + number // 4 * LEGEND
        yield f'<path d="M{x:.1f} {y}h22" stroke="{COLOURS[label]}" stroke-width="3"/>'
        yield _text(x + 28, y + 4, label, "start")
