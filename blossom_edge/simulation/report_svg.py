"""Charts of a comparison as inline SVG: lines, bars and intervals. Needs no script, no network and no library.

Colours come from the page's style by the class of a `Look`: `m-alone`, `m-full`, `m-dual`, ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from blossom_edge.simulation.results import MODE_NAMES, MODES

LEFT, TOP, RIGHT, BOTTOM = 36.0, 12.0, 10.0, 30.0
CURVE_SIZE = (340.0, 230.0)
BAR_WIDTH, BAR_HEIGHT, BAR_GAP, GROUP_GAP = 340.0, 11.0, 2.0, 14.0
BAR_LEFT = 98.0
ROW = 20.0
STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, slots=True)
class Look:
    """How a mode appears: its key in the figures, its name for people, its class in the style."""

    key: str
    name: str
    css: str


@dataclass(frozen=True, slots=True)
class Line:
    """One mode's score after 0, 1, ... rounds; thin: lines behind it; band: (low, high) at every point, or empty."""

    look: Look
    mean: Sequence[float]
    thin: Sequence[Sequence[float]] = ()
    band: Sequence[tuple[float, float]] = ()


LOOKS = tuple(Look(mode, MODE_NAMES[mode], f"m-{mode}") for mode in MODES)
"""The three modes of the demo and of `compare`."""


def curve_chart(mode: str, curves: Sequence[Sequence[float]], *, base: float) -> str:
    """Own score over the rounds in one mode: a thin line per device, a bold one for their mean.

    curves: one per device, scores from 0 to 1 after 0, 1, ... rounds; base: a dashed line to compare with.
    """
    look = next(look for look in LOOKS if look.key == mode)
    rounds = max(max((len(curve) for curve in curves), default=1) - 1, 1)
    shortest = min((len(curve) for curve in curves), default=0)
    mean = [sum(curve[i] for curve in curves) / len(curves) for i in range(shortest)]
    last = f"{mean[-1]:.3f}" if mean else "unknown"
    about = f"Mean of {len(curves)} devices after {rounds} rounds: {last}."
    return line_chart(
        f"curve-{mode}", f"Own score by round, {look.name}", about, [Line(look, mean, thin=curves)], base=base
    )


def line_chart(
    name: str,
    title: str,
    about: str,
    lines: Sequence[Line],
    *,
    base: float | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
) -> str:
    """Scores over the rounds, one bold line per mode, over its band and its thin lines.

    base: height of a dashed line to compare with; limits: scores at the bottom and at the top. A mode with one
    point alone, which does not learn by rounds, is a dashed line in its colour.
    """
    width, height = CURVE_SIZE
    rounds = max(max((len(curve) for line in lines for curve in (line.mean, *line.thin)), default=1) - 1, 1)
    low, high = limits

    def x(number: float) -> float:
        return LEFT + number / rounds * (width - LEFT - RIGHT)

    def y(score: float) -> float:
        return TOP + (high - score) / (high - low) * (height - TOP - BOTTOM)

    def points(scores: Sequence[float]) -> list[tuple[float, float]]:
        return [(x(i), y(score)) for i, score in enumerate(scores)]

    parts = [_grid(y, width, [low + (high - low) * i / 4 for i in range(5)])]
    for number in _round_ticks(rounds):
        parts.append(_text(x(number), height - 12, str(number), "middle"))
    parts.append(_text((LEFT + width - RIGHT) / 2, height - 1, "rounds", "middle"))
    if base is not None:
        parts.append(f'<path class="base" d="M{LEFT:.1f} {y(base):.1f}H{width - RIGHT:.1f}"/>')
    for line in lines:
        if len(line.band) > 1:
            around = [*points([top for _, top in line.band]), *reversed(points([foot for foot, _ in line.band]))]
            parts.append(f'<polygon class="band {line.look.css}" points="{_points(around)}"/>')
    for line in lines:
        parts += [_line(points(curve), f"thin {line.look.css}") for curve in line.thin]
        if len(line.mean) == 1 and not line.thin:
            parts.append(_line([(x(0), y(line.mean[0])), (x(rounds), y(line.mean[0]))], f"flat {line.look.css}"))
        elif line.mean:
            parts.append(_line(points(line.mean), f"bold {line.look.css}"))
            at, last = x(len(line.mean) - 1), y(line.mean[-1])
            parts.append(f'<circle class="dot {line.look.css}" cx="{at:.1f}" cy="{last:.1f}" r="4"/>')
    return _svg(name, width, height, title, about, parts)


def bar_chart(
    name: str,
    title: str,
    scores: Mapping[str, Mapping[str, float]],
    *,
    base: float | None = None,
    looks: Sequence[Look] = LOOKS,
    largest: float = 1.0,
    show: Callable[[float], str] = "{:.3f}".format,
    labels_above: bool = False,
) -> str:
    """Bars from 0 to `largest`, one group per device and one bar per mode; `scores` is device -> mode -> score.

    A mode that a group lacks has no bar there. base: a dashed line; show: how a value is written beside its bar;
    labels_above: for long names of groups.
    """
    head = 16.0 if labels_above else 0.0
    left = 8.0 if labels_above else BAR_LEFT
    room = BAR_WIDTH - left - (38 if largest == 1.0 else 58)
    shown = {group: [look for look in looks if look.key in by_mode] for group, by_mode in scores.items()}
    sizes = [head + len(some) * (BAR_HEIGHT + BAR_GAP) + GROUP_GAP for some in shown.values()]
    height = TOP + sum(sizes) + 18

    def x(score: float) -> float:
        return left + score / largest * room

    parts = []
    for tick in (0.0, largest / 2, largest):
        parts.append(f'<path class="rule" d="M{x(tick):.1f} {TOP:.1f}V{height - 18:.1f}"/>')
        label = f"{tick:g}" if largest == 1.0 else show(tick)
        parts.append(_text(x(tick), height - 4, label, "middle" if tick or not labels_above else "start"))
    for i, (group, some) in enumerate(shown.items()):
        top = TOP + sum(sizes[:i])
        if labels_above:
            parts.append(_text(left, top + 11, group, "start", "value"))
        else:
            parts.append(_text(BAR_LEFT - 6, top + (sizes[i] - GROUP_GAP) / 2 + 4, group, "end"))
        for k, look in enumerate(some):
            value = scores[group][look.key]
            at = top + head + k * (BAR_HEIGHT + BAR_GAP)
            bar = max(value / largest * room, 0.5)
            parts.append(
                f'<rect class="bar {look.css}" x="{left:.1f}" y="{at:.1f}" width="{bar:.1f}" '
                f'height="{BAR_HEIGHT:.1f}" rx="2"/>'
            )
            parts.append(_text(x(value) + 4, at + BAR_HEIGHT - 2, show(value), "start", "value"))
    if base is not None:
        parts.append(f'<path class="base" d="M{x(base):.1f} {TOP:.1f}V{height - 18:.1f}"/>')
    about = "; ".join(
        f"{group}: " + ", ".join(f"{look.name} {show(scores[group][look.key])}" for look in some)
        for group, some in shown.items()
    )
    return _svg(name, BAR_WIDTH, height, title, about, parts)


def interval_chart(
    name: str,
    title: str,
    values: Mapping[str, tuple[float, float | None, float | None]],
    *,
    looks: Sequence[Look],
    largest: float,
    unit: str,
) -> str:
    """One row per mode: a dot at its value and a line over its interval, around a dashed line at 0.

    values: mode -> (value, low, high); low and high are None where there is no interval. The axis goes from -largest
    to largest, and what lies beyond ends at its edge; unit: written below the axis.
    """
    rows = [look for look in looks if look.key in values]
    left, room = 8.0, BAR_WIDTH - 16.0
    height = TOP + len(rows) * (ROW + 14) + 34

    def x(value: float) -> float:
        return left + (min(max(value, -largest), largest) + largest) / (2 * largest) * room

    foot = height - 32
    parts = []
    for tick in (-largest, -largest / 2, largest / 2, largest):
        anchor = "start" if tick == -largest else "end" if tick == largest else "middle"
        parts.append(f'<path class="rule" d="M{x(tick):.1f} {TOP:.1f}V{foot:.1f}"/>')
        parts.append(_text(x(tick), height - 18, f"{tick:+g}", anchor))
    parts.append(f'<path class="base" d="M{x(0):.1f} {TOP:.1f}V{foot:.1f}"/>')
    parts += [_text(x(0), height - 18, "0", "middle"), _text(x(0), height - 3, unit, "middle")]
    told = []
    for i, look in enumerate(rows):
        value, low, high = values[look.key]
        top = TOP + i * (ROW + 14)
        interval = "" if low is None or high is None else f" ({low:+.1f} to {high:+.1f})"
        told.append(f"{look.name} {value:+.1f}{interval}")
        parts.append(_text(left, top + 11, f"{look.name} {value:+.1f}{interval}", "start", "value halo"))
        at = top + 22
        if low is not None and high is not None:
            parts.append(f'<path class="thick {look.css}" d="M{x(low):.1f} {at:.1f}H{x(high):.1f}"/>')
        parts.append(f'<circle class="dot {look.css}" cx="{x(value):.1f}" cy="{at:.1f}" r="4.5"/>')
    return _svg(name, BAR_WIDTH, height, title, "; ".join(told) + f" {unit}", parts)


def _svg(name: str, width: float, height: float, title: str, about: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(about)}</desc>{"".join(parts)}</svg>'
    )


def _grid(y: Callable[[float], float], width: float, scores: Sequence[float]) -> str:
    parts = []
    for score in scores:
        parts.append(f'<path class="rule" d="M{LEFT:.1f} {y(score):.1f}H{width - RIGHT:.1f}"/>')
        parts.append(_text(LEFT - 6, y(score) + 4, f"{score:.3g}", "end"))
    return "".join(parts)


def _round_ticks(rounds: int) -> list[int]:
    step = next((step for step in STEPS if rounds / step <= 6), rounds)
    return list(range(0, rounds + 1, step))


def _line(points: Sequence[tuple[float, float]], css: str) -> str:
    return f'<polyline class="{css}" points="{_points(points)}"/>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _text(x: float, y: float, text: str, anchor: str, css: str = "label") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
