"""Which settings of a federation cannot stand together, and why: one table for the check and for docs/algorithms.md.

Only what cannot work, or would silently do nothing, is refused. Never repairs a setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blossom_edge.core.blocks import BlockId, BlockKind, BlockSpec, Visibility

if TYPE_CHECKING:
    from blossom_edge.federation.schema import Federation, RoundSettings, Rule

_SHARE_RULES = ("trimmed-mean", "multi-krum")
_ADAPTIVE = ("adam", "yogi", "adagrad")
_ROUNDING = 1e-9
_MOST_UPDATES = 1 << 16
"""More devices than one gateway has: a share just above a half would ask for endlessly many, and take as long."""
_OPTIMIZER_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "server_momentum": ("avgm", "adam", "yogi"),
    "server_beta2": ("adam", "yogi"),
    "server_tau": _ADAPTIVE,
}


def num_bad(num_updates: int, trusted_share: float) -> int:
    """How many of so many updates a robust rule takes to be bad: the share that is not trusted, and at least one."""
    return max(1, math.floor(num_updates * (1.0 - trusted_share) + _ROUNDING))


def updates_needed(rule: str, num_updates: int, trusted_share: float) -> int:
    """The least number of updates, from `num_updates` on, that a rule can join; `num_updates` itself if it can.

    `median` and `trimmed-mean` need 3: of fewer they would be the mean. `multi-krum` needs 2f + 3 with
    f = `num_bad` (Blanchard et al. 2017, arXiv:1703.02757), and f grows with the number of updates.
    """
    if rule in ("median", "trimmed-mean"):
        return max(3, num_updates)
    if rule == "multi-krum":
        needed = num_updates
        while needed < (least := 2 * num_bad(needed, trusted_share) + 3) and needed < _MOST_UPDATES:
            needed = least  # f never falls as updates are added, so nothing between them would do
        return needed
    return num_updates


def needed_updates(federation: Federation, block: BlockId, owners: int) -> int:
    """Updates without which a round of so many owners holds a block: for its quorum, its cohort or its rule."""
    rule, share = rule_in_force(federation, block), federation.rounds.trusted_share
    least = max(federation.quorum(block), federation.min_cohort(block), 1)
    of_all = updates_needed(rule, max(least, owners), share)
    return of_all if of_all > owners else updates_needed(rule, least, share)


def rule_in_force(federation: Federation, block: BlockId) -> Rule:
    """How the updates of a block are joined: its rule, but an agreed scale is a measurement and no step of training.

    Clipped or chosen as a whole it would be wrong: a scale is joined by the median where its rule is robust, else by
    the mean.
    """
    rule = federation.rule(block)
    if block.kind is BlockKind.SCALE:
        return "mean" if rule in ("mean", "norm-clip") else "median"
    return rule


@dataclass(frozen=True, slots=True)
class Combination:
    """Settings that are refused together: the `key` that is named, what is refused, why, and the check itself.

    `found` gives what follows `key: ` in the error, one text for each place; nothing where all is in order.
    """

    key: str
    refused: str
    reason: str
    found: Callable[[Federation], Iterator[tuple[str, str]]]


def refused(federation: Federation) -> Iterator[str]:
    """Every refused combination of a federation that is otherwise in order, as `key: what, found, expected`."""
    for combination in COMBINATIONS:
        for key, text in combination.found(federation):
            yield f"{key}: {text}"


def _averaged(federation: Federation) -> list[BlockSpec]:
    return [b for b in federation.spec.blocks if b.visibility is not Visibility.PRIVATE]


def _trained(federation: Federation) -> list[BlockSpec]:
    return [b for b in _averaged(federation) if b.id.kind is not BlockKind.SCALE]


def _small_quorum(federation: Federation) -> Iterator[tuple[str, str]]:
    share = federation.rounds.trusted_share
    seen: set[str] = set()
    for spec in _averaged(federation):
        rule, quorum = rule_in_force(federation, spec.id), federation.quorum(spec.id)
        needed = updates_needed(rule, quorum, share)
        settings = federation.blocks.get(str(spec.id).partition(".")[0])
        own = settings is not None and (settings.quorum is not None or settings.rule is not None)
        key = f'blocks."{spec.id}".quorum' if own else "rounds.quorum"
        if quorum < needed and key not in seen:
            seen.add(key)
            with_share = f" with trusted_share {share}" if rule == "multi-krum" else ""
            yield key, f"found {quorum}, {rule}{with_share} expected at least {needed}"


def _nobody_bad(federation: Federation) -> Iterator[tuple[str, str]]:
    rules = {rule_in_force(federation, spec.id) for spec in _averaged(federation)}
    for rule in sorted(rules.intersection(_SHARE_RULES)):
        if federation.rounds.trusted_share == 1.0:
            yield "rounds.trusted_share", f"found 1.0 with {rule}, expected below 1, or rule mean"


def _idle_share(federation: Federation) -> Iterator[tuple[str, str]]:
    rules = {rule_in_force(federation, spec.id) for spec in _averaged(federation)}
    share = federation.rounds.trusted_share
    if share != _default(federation.rounds, "trusted_share") and not rules.intersection(_SHARE_RULES):
        yield "rounds.trusted_share", f"found {share}, no block has a rule that uses it ({', '.join(_SHARE_RULES)})"


def _idle_options(federation: Federation) -> Iterator[tuple[str, str]]:
    optimizer = federation.rounds.server_optimizer
    for option, users in _OPTIMIZER_OPTIONS.items():
        value = getattr(federation.rounds, option)
        if value != _default(federation.rounds, option) and optimizer not in users:
            yield f"rounds.{option}", f"found {value} with server_optimizer {optimizer}, only {', '.join(users)} use it"


def _long_steps(federation: Federation) -> Iterator[tuple[str, str]]:
    rounds = federation.rounds
    if rounds.server_optimizer in _ADAPTIVE and rounds.server_lr >= 1.0:
        yield "rounds.server_lr", f"found {rounds.server_lr} with {rounds.server_optimizer}, expected below 1"


def _private_rule(federation: Federation) -> Iterator[tuple[str, str]]:
    for key, settings in federation.blocks.items():
        block = BlockId.parse(key)
        parts = [b for b in federation.spec.blocks if b.id == block or str(b.id).startswith(f"{key}.")]
        if settings.rule and all(b.visibility is Visibility.PRIVATE for b in parts):
            yield f'blocks."{key}".rule', f"found {settings.rule}, the block is private and expected none"


def _nothing_shared(federation: Federation) -> Iterator[tuple[str, str]]:
    if _trained(federation):
        return
    rounds = federation.rounds
    if federation.training.prox_mu:
        yield "training.prox_mu", f"found {federation.training.prox_mu}, all blocks are private and expected 0"
    if rounds.rule != "mean":
        yield "rounds.rule", f"found {rounds.rule}, all blocks are private and expected mean"
    if rounds.server_optimizer != "avg":
        yield "rounds.server_optimizer", f"found {rounds.server_optimizer}, all blocks are private and expected avg"


def _nothing_to_drop(federation: Federation) -> Iterator[tuple[str, str]]:
    dropout = federation.training.modality_dropout
    if dropout and all(len(federation.task_modalities(task)) < 2 for task in federation.tasks):
        yield "training.modality_dropout", f"found {dropout}, every task has one modality and expected 0"


def _default(rounds: RoundSettings, option: str) -> float:
    return float(type(rounds).model_fields[option].default)


COMBINATIONS: tuple[Combination, ...] = (
    Combination(
        "rounds.quorum",
        "`median`, `trimmed-mean` with a quorum below 3; `multi-krum` with a quorum n below 2f + 3",
        "of so few updates the rule is the mean, or is not defined: the block would be held in every such round",
        _small_quorum,
    ),
    Combination(
        "rounds.trusted_share",
        "`trimmed-mean` or `multi-krum` with `trusted_share = 1.0`",
        "if no update is bad nothing is trimmed or left out: that is `mean`, without its weights",
        _nobody_bad,
    ),
    Combination(
        "rounds.trusted_share",
        "`trusted_share` other than its default without `trimmed-mean` and `multi-krum`",
        "nothing reads it: `mean`, `norm-clip` and `median` have no such number",
        _idle_share,
    ),
    Combination(
        "rounds.server_momentum",
        "`server_momentum`, `server_beta2`, `server_tau` other than their defaults with an optimiser that has none",
        "nothing reads it",
        _idle_options,
    ),
    Combination(
        "rounds.server_lr",
        "`adam`, `yogi` or `adagrad` with `server_lr` of 1 or more",
        "their step is about `server_lr` for every value, however little was learned: 1.0, right for `avg`, "
        "would overwrite the block with noise",
        _long_steps,
    ),
    Combination(
        "blocks.BLOCK.rule",
        "a `rule` of a private block",
        "a private block is never joined",
        _private_rule,
    ),
    Combination(
        "training.prox_mu",
        "`prox_mu`, a `rule` other than `mean` or a `server_optimizer` other than `avg` where all blocks are private",
        "there is no shared block that they could act on",
        _nothing_shared,
    ),
    Combination(
        "training.modality_dropout",
        "`modality_dropout` where every task has one modality",
        "one modality always stays, so none is ever dropped",
        _nothing_to_drop,
    ),
)
"""All that is refused, in the order in which it is checked."""
