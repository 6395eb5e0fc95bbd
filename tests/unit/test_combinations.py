"""Settings that cannot stand together: each is refused with key, what was found and what is expected, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.learning import tiny

from blossom_edge.core.errors import ConfigError
from blossom_edge.federation.combinations import COMBINATIONS, num_bad, rule_in_force, updates_needed
from blossom_edge.federation.spec import encoder_id, scale_id

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text()
PRIVATE = tuple(f"blocks.{b}.visibility=private" for b in ("encoder/accel", "encoder/gyro"))


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (("rounds.rule=median", "rounds.quorum=2"), "rounds.quorum: found 2, median expected at least 3"),
        (("rounds.rule=trimmed-mean",), "rounds.quorum: found 1, trimmed-mean expected at least 3"),
        (
            ("rounds.rule=multi-krum", "rounds.quorum=4"),
            "rounds.quorum: found 4, multi-krum with trusted_share 0.8 expected at least 5",
        ),
        (
            ("rounds.rule=multi-krum", "rounds.quorum=8", "rounds.trusted_share=0.6"),
            "rounds.quorum: found 8, multi-krum with trusted_share 0.6 expected at least 9",
        ),
        (
            ("blocks.encoder/accel.rule=median",),
            'blocks."encoder/accel".quorum: found 1, median expected at least 3',
        ),
        (
            ("visibility=cohort-head-fusion", "rounds.rule=median", "rounds.quorum=3", "blocks.fusion/har.quorum=2"),
            'blocks."fusion/har".quorum: found 2, median expected at least 3',
        ),
        (
            ("rounds.rule=multi-krum", "rounds.quorum=5", "rounds.trusted_share=1.0"),
            "rounds.trusted_share: found 1.0 with multi-krum, expected below 1",
        ),
        (("rounds.trusted_share=0.7",), "rounds.trusted_share: found 0.7, no block has a rule that uses it"),
        (
            ("rounds.server_momentum=0.5",),
            "rounds.server_momentum: found 0.5 with server_optimizer avg, only avgm, adam, yogi use it",
        ),
        (
            ("rounds.server_optimizer=adagrad", "rounds.server_lr=0.1", "rounds.server_beta2=0.5"),
            "rounds.server_beta2: found 0.5 with server_optimizer adagrad",
        ),
        (("rounds.server_tau=0.1",), "rounds.server_tau: found 0.1 with server_optimizer avg"),
        (("rounds.server_optimizer=adam",), "rounds.server_lr: found 1.0 with adam, expected below 1"),
        (("blocks.head/har.rule=norm-clip",), 'blocks."head/har".rule: found norm-clip, the block is private'),
        ((*PRIVATE, "training.prox_mu=0.1"), "training.prox_mu: found 0.1, all blocks are private"),
        ((*PRIVATE, "rounds.rule=norm-clip"), "rounds.rule: found norm-clip, all blocks are private"),
        ((*PRIVATE, "rounds.server_optimizer=avgm"), "rounds.server_optimizer: found avgm, all blocks are private"),
        (
            ("tasks.har.modalities=['accel']", "training.modality_dropout=0.2"),
            "training.modality_dropout: found 0.2, every task has one modality",
        ),
    ],
)
def test_what_cannot_stand_together_is_refused(sets: tuple[str, ...], line: str) -> None:
    if any("tasks.har.modalities" in s for s in sets):
        sets = (*sets, "tasks.other={type='classification', classes=['x', 'y'], modalities=['gyro']}", *OTHER)
    with pytest.raises(ConfigError) as caught:
        tiny(*sets)
    assert line in str(caught.value)


OTHER = ("blocks.fusion/other={type='concat', width=8}", "blocks.head/other={type='mlp', hidden=4}")


@pytest.mark.parametrize(
    "sets",
    [
        ("rounds.rule=norm-clip",),
        ("rounds.rule=median", "rounds.quorum=3"),
        ("rounds.rule=trimmed-mean", "rounds.quorum=3", "rounds.trusted_share=0.7"),
        ("rounds.rule=multi-krum", "rounds.quorum=5"),
        ("blocks.encoder/accel.rule=median", "blocks.encoder/accel.quorum=3"),
        ("visibility=cohort-head-fusion", "rounds.rule=median", "rounds.quorum=3"),
        ("visibility=dual", "rounds.rule=median", "rounds.quorum=3", "blocks.head/har.rule=norm-clip"),
        ("rounds.server_optimizer=avgm", "rounds.server_momentum=0.5"),
        ("rounds.server_optimizer=yogi", "rounds.server_lr=0.1", "rounds.server_beta2=0.9", "rounds.server_tau=0.01"),
        ("training.prox_mu=0.1", "training.modality_dropout=0.2"),
        PRIVATE,
    ],
)
def test_what_can_stand_together_is_taken(sets: tuple[str, ...]) -> None:
    assert tiny(*sets).spec


def test_how_many_updates_a_rule_takes_to_be_bad() -> None:
    assert [num_bad(n, 0.8) for n in (3, 5, 9, 10, 15, 50)] == [1, 1, 1, 2, 3, 10]
    assert [num_bad(n, 0.6) for n in (5, 10)] == [2, 4]


def test_how_many_updates_a_rule_needs() -> None:
    assert [updates_needed("median", n, 0.8) for n in (1, 3, 7)] == [3, 3, 7]
    assert [updates_needed("multi-krum", n, 0.8) for n in (1, 4, 5, 10)] == [5, 5, 5, 10]
    # share 0.6: 8 updates may have 3 bad ones among them, for which 9 are needed; 9 have 3 as well
    assert [updates_needed("multi-krum", n, 0.6) for n in (7, 8, 9)] == [7, 9, 9]
    assert updates_needed("mean", 1, 0.8) == updates_needed("norm-clip", 1, 0.8) == 1


def test_a_share_just_above_a_half_asks_for_more_devices_than_there_are_and_takes_no_time() -> None:
    assert updates_needed("multi-krum", 5, 0.51) == 51
    assert updates_needed("multi-krum", 5, 0.5 + 1e-12) > 65_000


def test_an_agreed_scale_has_a_rule_of_its_own() -> None:
    federation = tiny("modalities.accel.normalise=agreed", "rounds.rule=trimmed-mean", "rounds.quorum=3")
    assert rule_in_force(federation, scale_id("accel")) == "median"
    assert rule_in_force(federation, encoder_id("accel")) == "trimmed-mean"
    clipped = tiny("modalities.accel.normalise=agreed", "rounds.rule=norm-clip")
    assert rule_in_force(clipped, scale_id("accel")) == "mean"


def test_the_page_about_algorithms_has_every_refused_combination_and_no_other() -> None:
    section = re.search(r"^## Combinations that are refused$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    table = [line for line in section[1].splitlines() if line.startswith("| `")]
    assert table == [f"| `{c.key}` | {c.refused} | {c.reason} |" for c in COMBINATIONS]
