"""The tables of a comparison as a Markdown file, to put into a document of one's own. Assumes no winner."""

from __future__ import annotations

from collections.abc import Sequence

from blossom_edge.simulation.experiments.gains import gains_of
from blossom_edge.simulation.experiments.judgement import is_registered, judge_dual
from blossom_edge.simulation.experiments.page_charts import gains_over_full
from blossom_edge.simulation.experiments.records import RunRecord
from blossom_edge.simulation.experiments.run_scores import METRICS, grouped
from blossom_edge.simulation.experiments.tables import (
    DUAL_NOTE,
    GAIN_NOTE,
    MEAN_NOTE,
    MODALITIES_NOTE,
    REFERENCE_NOTE,
    RELATIVE_NOTE,
    TEST_NOTE,
    Table,
    dual_rows,
    gain_rows,
    modality_rows,
    mode_means,
    reference_rows,
    relative_rows,
    score_rows,
)


def markdown(records: Sequence[RunRecord]) -> str:
    """All tables, macro F1 first.

    Raises:
        ConfigError: `usage`; two runs claim the same place.
    """
    cells = grouped(records)
    names = ", ".join(sorted({record.experiment for record in records}))
    parts = [f"# {names}: {len(records)} runs"]
    if is_registered(records):
        parts.append(f"Registered rule: {judge_dual(records).words}")
    for number, metric in enumerate(sorted(METRICS, key=lambda name: name != "macro_f1")):
        if any(mode_means(by_mode, metric) for by_mode in cells.values()):
            about = METRICS[metric].title
            parts += [f"## {about[0].upper()}{about[1:]}", *([] if number else [MEAN_NOTE])]
            parts.append(lines(score_rows(cells, metric)))
    for title, note, found in (
        ("Macro F1 by modalities", MODALITIES_NOTE, modality_rows(cells)),
        ("Dual above the others", DUAL_NOTE, dual_rows(cells)),
        ("What the change of each mode costs", REFERENCE_NOTE, reference_rows(cells)),
    ):
        if found is not None:
            parts += [f"## {title}", note, lines(found)]
    if any(gains_over_full(by_mode) for by_mode in cells.values()):
        points, tests = gain_rows(cells)
        parts += ["## Gain over the full model", GAIN_NOTE, lines(points), TEST_NOTE, lines(tests)]
        if gains := gains_of(cells):
            parts += ["## Relative gain, as the paper counts it", RELATIVE_NOTE, lines(relative_rows(gains))]
    return "\n\n".join(parts) + "\n"


def lines(table: Table) -> str:
    """A table in Markdown; what is marked is bold."""
    rows = [
        [f"**{text}**" if (number, column) in table.marked else text for column, text in enumerate(row)]
        for number, row in enumerate(table.rows)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in (table.heads, ["---"] * len(table.heads), *rows))
