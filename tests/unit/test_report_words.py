"""The words follow from the figures, whoever won."""

from __future__ import annotations

import pytest
from support.comparison import results_of

from blossom_edge.simulation.report_words import compare, report_words, verdict
from blossom_edge.simulation.results import MODE_NAMES, MODES


def test_a_difference_larger_than_its_spread_is_called_a_win_by_more() -> None:
    words = report_words(results_of({"alone": [0.5, 0.6], "full": [0.5, 0.6], "private_head_fusion": [0.7, 0.82]}))
    # differences 0.20 and 0.22: mean 0.21, sample standard deviation 0.0141
    assert (
        words[2] == "Private head + fusion won against alone by 0.210, more than the spread over the devices (0.014)."
    )


def test_a_federation_that_lost_is_told_so() -> None:
    words = report_words(results_of({"alone": [0.8, 0.9], "full": [0.6, 0.7], "private_head_fusion": [0.7, 0.7]}))
    assert words[1].startswith("Full model lost against alone by 0.200, more than the spread")
    # differences -0.1 and -0.2: mean -0.15, sample standard deviation 0.0707
    assert (
        words[2] == "Private head + fusion lost against alone by 0.150, more than the spread over the devices (0.071)."
    )


def test_a_difference_smaller_than_its_spread_is_called_within_it() -> None:
    words = report_words(results_of({"alone": [0.5, 0.5], "full": [0.7, 0.4], "private_head_fusion": [0.5, 0.5]}))
    # differences 0.2 and -0.1: mean 0.05, sample standard deviation 0.212
    assert words[1] == "Full model won against alone by 0.050, within the spread over the devices (0.212)."


def test_equal_scores_are_no_victory() -> None:
    results = results_of({mode: [0.5, 0.6] for mode in MODES})
    assert report_words(results)[1:4] == [
        "Full model and alone came out equal.",
        "Private head + fusion and alone came out equal.",
        "Private head + fusion and full model came out equal.",
    ]
    assert verdict(results).endswith(": alone and full model and private head + fusion")


def test_one_device_shows_no_spread() -> None:
    words = report_words(results_of({"alone": [0.5], "full": [0.6], "private_head_fusion": [0.4]}))
    assert words[1] == "Full model won against alone by 0.100; one device shows no spread."
    assert compare([{"alone": 0.5, "full": 0.6}], "full", "alone").is_clear is False


@pytest.mark.parametrize("winner", MODES)
def test_headline_names_the_winner_whoever_it_is(winner: str) -> None:
    own = {mode: [0.9 if mode == winner else 0.5] for mode in MODES}
    told = f"Highest on own later recordings and on people no device has seen: {MODE_NAMES[winner]}"
    assert verdict(results_of(own)) == told


def test_headline_tells_two_winners_apart() -> None:
    own = {"alone": [0.9], "full": [0.5], "private_head_fusion": [0.6]}
    new = {"alone": [0.3], "full": [0.5], "private_head_fusion": [0.4]}
    told = "Highest on own later recordings: alone. Highest on people no device has seen: full model."
    assert verdict(results_of(own, new)) == told


def test_bytes_private_blocks_and_warnings_are_told() -> None:
    scores = {mode: [0.5, 0.6] for mode in MODES}
    words = report_words(results_of(scores, warnings=("encoder/gyro: 2 owners",)))
    assert "Bytes per device and round with private head + fusion: gyro 604 kB up, 605 kB down." in words
    assert "Note: encoder/gyro: 2 owners." in words
    assert any("(fusion/har, head/har): none." in line for line in words)
    sent = report_words(results_of(scores, private_blocks_sent=1))
    assert any("(fusion/har, head/har): 2. That must not happen" in line for line in sent)
