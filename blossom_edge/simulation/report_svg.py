"""Charts of a comparison as inline SVG: learning curves and bars. Needs no script, no network and no library.

Colours come from the page's style by class: `m-alone`, `m-full`, `m-private_head_fusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from blossom_edge.simulation.results import MODE_NAMES, MODES

LEFT, TOP, RIGHT, BOTTOM = 36.0, 12.0, 10.0, 30.0
CURVE_SIZE = (340.0, 230.0)
BAR_WIDTH, BAR_HEIGHT, BAR_GAP, GROUP_GAP = 340.0, 11.0, 2.0, 14.0
BAR_LEFT = 98.0


def curve_chart(mode: str, curves: Sequence[Sequence[float]], *, base: float) -> str:
    """Own score over the rounds in one mode: a thin line per device, a bold one for their mean.

    curves: one per device, scores from 0 to 1 after 0, 1, ... rounds; base: a dashed line to compare with.
    """
    width, height = CURVE_SIZE
    rounds = max(max((len(curve) for curve in curves), default=1) - 1, 1)

    def x(number: float) -> float:
        return LEFT + number / rounds * (width - LEFT - RIGHT)

    def y(score: float) -> float:
        return TOP + (1 - score) * (height - TOP - BOTTOM)

    shortest = min((len(curve) for curve in curves), default=0)
    mean = [sum(curve[i] for curve in curves) / len(curves) for i in range(shortest)]
    parts = [_grid(y, width)]
    for number in _round_ticks(rounds):
        parts.append(_text(x(number), height - 12, str(number), "middle"))
    parts.append(_text((LEFT + width - RIGHT) / 2, height - 1, "rounds", "middle"))
    parts.append(f'<path class="base" d="M{LEFT:.1f} {y(base):.1f}H{width - RIGHT:.1f}"/>')
    for curve in curves:
        parts.append(_line([(x(i), y(score)) for i, score in enumerate(curve)], f"thin m-{mode}"))
    if mean:
        parts.append(_line([(x(i), y(score)) for i, score in enumerate(mean)], f"bold m-{mode}"))
        parts.append(f'<circle class="dot m-{mode}" cx="{x(shortest - 1):.1f}" cy="{y(mean[-1]):.1f}" r="4"/>')
    last = f"{mean[-1]:.3f}" if mean else "unknown"
    about = f"Mean of {len(curves)} devices after {rounds} rounds: {last}."
    return _svg(f"curve-{mode}", width, height, f"Own score by round, {MODE_NAMES[mode]}", about, parts)


def bar_chart(name: str, title: str, scores: Mapping[str, Mapping[str, float]], *, base: float) -> str:
    """Bars from 0 to 1, one group per device and one bar per mode; `scores` is device -> mode -> score."""
    group = len(MODES) * (BAR_HEIGHT + BAR_GAP) + GROUP_GAP
    height = TOP + len(scores) * group + 18
    room = BAR_WIDTH - BAR_LEFT - 38

    def x(score: float) -> float:
        return BAR_LEFT + score * room

    parts = []
    for tick in (0.0, 0.5, 1.0):
        parts.append(f'<path class="rule" d="M{x(tick):.1f} {TOP:.1f}V{height - 18:.1f}"/>')
        parts.append(_text(x(tick), height - 4, f"{tick:g}", "middle"))
    for i, (device, by_mode) in enumerate(scores.items()):
        top = TOP + i * group
        parts.append(_text(BAR_LEFT - 6, top + (group - GROUP_GAP) / 2 + 4, device, "end"))
        for k, mode in enumerate(MODES):
            at = top + k * (BAR_HEIGHT + BAR_GAP)
            bar = max(by_mode[mode] * room, 0.5)
            parts.append(
                f'<rect class="bar m-{mode}" x="{BAR_LEFT:.1f}" y="{at:.1f}" width="{bar:.1f}" '
                f'height="{BAR_HEIGHT:.1f}" rx="2"/>'
            )
            parts.append(_text(x(by_mode[mode]) + 4, at + BAR_HEIGHT - 2, f"{by_mode[mode]:.3f}", "start", "value"))
    parts.append(f'<path class="base" d="M{x(base):.1f} {TOP:.1f}V{height - 18:.1f}"/>')
    about = "; ".join(
        f"{device}: " + ", ".join(f"{MODE_NAMES[mode]} {by_mode[mode]:.3f}" for mode in MODES)
        for device, by_mode in scores.items()
    )
    return _svg(name, BAR_WIDTH, height, title, about, parts)


def _svg(name: str, width: float, height: float, title: str, about: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(about)}</desc>{"".join(parts)}</svg>'
    )


def _grid(y: Callable[[float], float], width: float) -> str:
    parts = []
    for score in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<path class="rule" d="M{LEFT:.1f} {y(score):.1f}H{width - RIGHT:.1f}"/>')
        parts.append(_text(LEFT - 6, y(score) + 4, f"{score:g}", "end"))
    return "".join(parts)


def _round_ticks(rounds: int) -> list[int]:
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if rounds / step <= 6), rounds)
    return list(range(0, rounds + 1, step))


def _line(points: Sequence[tuple[float, float]], css: str) -> str:
    return f'<polyline class="{css}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _text(x: float, y: float, text: str, anchor: str, css: str = "label") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
