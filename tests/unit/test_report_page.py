"""The page is one well-formed file without network, and shows the figures it was given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from support.comparison import results_of

from blossom_edge.simulation.report import write_report
from blossom_edge.simulation.report_svg import bar_chart, curve_chart
from blossom_edge.simulation.report_words import report_words
from blossom_edge.simulation.results import Results

RESULTS = results_of(
    {"alone": [0.512, 0.634], "full": [0.613, 0.555], "private_head_fusion": [0.701, 0.402]},
    {"alone": [0.211, 0.222], "full": [0.433, 0.344], "private_head_fusion": [0.355, 0.266]},
    warnings=("encoder/gyro: 2 owners, each can work out the other's update",),
)


def _parse(results: Results, folder: Path) -> tuple[str, ElementTree.Element]:
    text = write_report(results, folder).read_text("utf-8")
    return text, ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def test_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    text, root = _parse(RESULTS, tmp_path)
    assert root.tag == "html"
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img|\bsrc=|\bhref=", text)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_tables_have_the_scores_of_every_device_and_mode(tmp_path: Path) -> None:
    _, root = _parse(RESULTS, tmp_path)
    rows = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    assert ["rpi4-gyro-1", "rpi4-gyro", "gyro", "1", "0.512", "0.613", "0.701"] in rows
    assert ["rpi4-gyro-2", "rpi4-gyro", "gyro", "2", "0.222", "0.344", "0.266"] in rows
    assert ["mean", "", "", "", "0.573", "0.584", "0.551"] in rows  # (0.512 + 0.634) / 2 = 0.573
    assert ["rpi4-gyro-1", "fusion/har, head/har", "devices/rpi4-gyro-1", "0", "604 kB", "605 kB"] in rows


def test_words_stand_on_the_page_and_before_the_figures(tmp_path: Path) -> None:
    text, root = _parse(RESULTS, tmp_path)
    shown = "".join(root.itertext())
    assert all(line in shown for line in report_words(RESULTS))
    assert text.index("What was found") < text.index("The figures")


def test_what_comes_from_elsewhere_is_escaped(tmp_path: Path) -> None:
    odd = replace(RESULTS, federation="<b>&", warnings=("<script>alert(1)</script>",))
    text, root = _parse(odd, tmp_path)
    assert "<script" not in text
    assert "<script>alert(1)</script>" in "".join(root.itertext())


def test_every_picture_has_a_title_and_tells_its_figures(tmp_path: Path) -> None:
    _, root = _parse(RESULTS, tmp_path)
    pictures = list(root.iter("svg"))
    assert len(pictures) == 5
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for picture in pictures:
        assert set((picture.get("aria-labelledby") or "").split()) <= set(ids)
        assert picture.findtext("title")
    assert "rpi4-gyro-1: alone 0.512, full model 0.613, private head + fusion 0.701" in (
        next(p for p in pictures if "bars-own-t" in (p.get("aria-labelledby") or "")).findtext("desc") or ""
    )


def test_curve_goes_through_the_scores() -> None:
    root = ElementTree.fromstring(curve_chart("alone", [[0.0, 1.0], [1.0, 1.0]], base=0.5))
    thin, other, bold = (line.get("points") for line in root.iter("polyline"))
    # 340 x 230 with margins 36, 12, 10, 30: score 1 at height 12, score 0 at 200, rounds 0 and 1 at 36 and 330
    assert thin == "36.0,200.0 330.0,12.0"
    assert other == "36.0,12.0 330.0,12.0"
    assert bold == "36.0,106.0 330.0,12.0"
    assert 'd="M36.0 106.0H330.0"' in ElementTree.tostring(root, "unicode")


def test_bars_are_as_long_as_the_scores() -> None:
    scores = {"d": {"alone": 0.5, "full": 1.0, "private_head_fusion": 0.0}}
    root = ElementTree.fromstring(bar_chart("x", "t", scores, base=0.1))
    widths = [float(bar.get("width") or "nan") for bar in root.iter("rect")]
    assert widths == [pytest.approx(102.0), pytest.approx(204.0), 0.5]  # 340 - 98 - 38 = 204


def test_json_has_the_keys_that_programs_rely_on() -> None:
    found = RESULTS.to_json(report="r.html")
    assert {"seed", "rounds", "mean_score", "new_people_score", "devices", "report"} <= set(found)
    assert found["mean_score"] == pytest.approx({"alone": 0.573, "full": 0.584, "private_head_fusion": 0.5515})
    assert {
        "id", "profile", "modalities", "score", "bytes_up_per_round", "bytes_down_per_round", "private_blocks_sent"
    } <= set(found["devices"][0])  # fmt: skip
