"""The page of a comparison is one well-formed file without network, and says what the figures say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from support.runs import CELL, client_of, run_of, runs_with, whole_experiment

from blossom_edge.simulation.experiments.page import headline, weak_points, write_page
from blossom_edge.simulation.experiments.records import RunRecord
from blossom_edge.simulation.experiments.run_scores import grouped, looks_of
from blossom_edge.simulation.report_svg import Line, Look, interval_chart, line_chart

LOOK = Look("full", "full model", "m-full")


def _parse(records: list[RunRecord], path: Path) -> tuple[str, ElementTree.Element]:
    write_page(records, path)
    text = path.read_text("utf-8")
    return text, ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def test_page_of_a_whole_experiment_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    text, root = _parse(whole_experiment(), tmp_path / "index.html")
    assert root.tag == "html"
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img|\bsrc=|\bhref=", text)
    pictures = list(root.iter("svg"))
    assert len(pictures) == 4 * 3 + 1
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(picture.findtext("title") and picture.findtext("desc") for picture in pictures)


def test_table_has_mean_and_spread_and_marks_the_best_that_can_be_chosen(tmp_path: Path) -> None:
    records = runs_with({"local": [50, 52], "full": [60, 62], "centralised": [90, 90]})
    _, root = _parse(records, tmp_path / "index.html")
    rows = [[("".join(cell.itertext()), cell.get("class") or "") for cell in row] for row in root.iter("tr")]
    assert [
        ("ucihar 5-5-0 iid 60", "name"),
        ("51.0\u00a0±\u00a01.4", "number"),
        ("61.0\u00a0±\u00a01.4", "number best"),
        ("90.0\u00a0±\u00a00.0", "number"),
    ] in rows
    assert ["ucihar 5-5-0 iid 60", "-10.0 (-10.0\u00a0to\u00a0-10.0)"] in [[text for text, _ in row] for row in rows]


def test_one_seed_has_no_spread_and_the_page_says_so(tmp_path: Path) -> None:
    _, root = _parse(runs_with({"local": [50], "full": [60]}), tmp_path / "index.html")
    shown = "".join(root.itertext())
    assert "One seed shows no spread" in shown
    assert "±" not in shown.replace("mean over the seeds ± sample standard deviation", "")


def test_headline_counts_the_cells_of_each_winner_whoever_it_is() -> None:
    other = type(CELL)("watch", "5-5-0", "iid")
    records = runs_with({"local": [70], "full": [60]}) + runs_with({"local": [50], "full": [60]}, cell=other)
    assert headline(grouped(records)) == "Best macro F1 in 2 cells: local only in 1, full model in 1"
    assert headline({}) == "No score to compare yet"


def test_modes_below_what_they_should_beat_are_named() -> None:
    records = runs_with({"local": [60, 61], "full": [55, 61.5], "dual": [65, 66], "private-head-fusion": [66, 66]})
    assert weak_points(grouped(records)) == [
        # full - local: -5 and +0.5, mean -2.25, sd 3.889, error 2.75, quantile 12.7062: 34.94
        f"{CELL}: full model is 2.2 points below local only (95 % interval -37.2 to +32.7, 1 of 2 seeds lost).",
        # dual - private head + fusion: -1 and 0, error 0.5
        f"{CELL}: dual is 0.5 points below private head + fusion (95 % interval -6.9 to +5.9, 1 of 2 seeds lost).",
    ]


def test_what_comes_from_elsewhere_is_escaped(tmp_path: Path) -> None:
    odd = run_of("<script>alert(1)</script>", 0, [client_of(3, 1, modalities=("<b>&",), curve=(0.1, 0.5))])
    text, root = _parse([odd], tmp_path / "index.html")
    assert "<script" not in text
    assert "<script>alert(1)</script>" in "".join(root.itertext())


def test_modes_of_the_experiment_get_colours_of_their_own() -> None:
    looks = looks_of(["prox-1", "full", "median"])
    assert [(look.key, look.css) for look in looks] == [("full", "m-full"), ("median", "m-x1"), ("prox-1", "m-x2")]


def test_band_goes_around_the_line_and_the_axis_follows_its_limits() -> None:
    line = Line(LOOK, [0.5, 0.75], band=[(0.5, 0.5), (0.5, 1.0)])
    root = ElementTree.fromstring(line_chart("x", "t", "a", [line], limits=(0.5, 1.0)))
    # 340 x 230 with margins 36, 12, 10, 30: limits at heights 200 and 12, rounds 0 and 1 at 36 and 330
    (band,) = [polygon.get("points") for polygon in root.iter("polygon")]
    assert band == "36.0,200.0 330.0,12.0 330.0,200.0 36.0,200.0"
    assert [line.get("points") for line in root.iter("polyline")] == ["36.0,200.0 330.0,106.0"]


def test_mode_without_rounds_is_a_level_line() -> None:
    curve = Line(Look("dual", "dual", "m-dual"), [0.0, 1.0])
    root = ElementTree.fromstring(line_chart("x", "t", "a", [Line(LOOK, [0.5]), curve]))
    flat = next(line for line in root.iter("polyline") if line.get("class") == "flat m-full")
    assert flat.get("points") == "36.0,106.0 330.0,106.0"


@pytest.mark.parametrize(("value", "at"), [(0.0, "170.0"), (5.0, "251.0"), (-99.0, "8.0")])
def test_interval_chart_puts_the_dot_at_its_value_and_ends_at_the_edge(value: float, at: str) -> None:
    root = ElementTree.fromstring(
        interval_chart("x", "t", {"full": (value, None, None)}, looks=[LOOK], largest=10, unit="points")
    )
    assert [dot.get("cx") for dot in root.iter("circle")] == [at]  # from 8 to 332, 0 in the middle
    assert "thick" not in ElementTree.tostring(root, "unicode")
