"""Tables, gains and the registered rule, on runs whose figures are known."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.runs import CELL, client_of, run_of, runs_with, whole_experiment

from blossom_edge.cli.experiment_report import report
from blossom_edge.console.output import table_lines
from blossom_edge.core.errors import ConfigError, StorageError
from blossom_edge.simulation.experiments.gains import ORACLE, gains_of, mean_gains
from blossom_edge.simulation.experiments.judgement import REGISTERED_CELLS, Verdict, judge_dual
from blossom_edge.simulation.experiments.reading import read_records
from blossom_edge.simulation.experiments.records import Cell, RunRecord
from blossom_edge.simulation.experiments.run_scores import grouped, mean_curve, run_score
from blossom_edge.simulation.experiments.summary import score_table, short_cells, summarise, write_results
from blossom_edge.simulation.experiments.tables import reference_rows


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _cells(num: int) -> list[Cell]:
    return [Cell("ucihar", "5-5-0", "iid", i + 20) for i in range(num)]


def _registered(
    dual: list[float], other: list[float], *, odd: tuple[list[float], list[float]] | None = None
) -> Verdict:
    """The rule on 16 equal cells of 5 seeds, the first being odd."""
    records: list[RunRecord] = []
    for i, cell in enumerate(_cells(REGISTERED_CELLS)):
        pair = odd if odd is not None and i == 0 else (dual, other)
        records += runs_with({"dual": pair[0], "private-head-fusion": pair[1]}, cell=cell)
    return judge_dual(records)


def test_score_of_a_run_weighs_clients_by_test_windows_or_alike() -> None:
    run = run_of("full", 0, [client_of(40, 10), client_of(5, 5), client_of(0, 0)])
    # 0.8 of 100 windows and 0.5 of 20: (80 + 10) / 120 = 0.75, plain 0.65; the third has none
    assert run_score(run, "macro_f1") == pytest.approx(0.75)
    assert run_score(run, "accuracy", weighting="clients") == pytest.approx(0.65)
    assert run_score(run, "unseen_accuracy") is None


def test_absent_classes_count_as_zero_for_the_paper_alone() -> None:
    client = client_of(3, 1)
    confusion = ((3, 1, 0), (1, 3, 0), (0, 0, 0))
    run = run_of("full", 0, [replace(client, confusion=confusion)])
    assert run_score(run, "macro_f1") == pytest.approx(0.75)
    assert run_score(run, "macro_f1_paper") == pytest.approx(0.5)  # (0.75 + 0.75 + 0) / 3


def test_curve_of_a_run_weighs_its_clients_and_ends_with_the_shortest() -> None:
    run = run_of("full", 0, [client_of(30, 0, curve=(0.1, 0.5)), client_of(10, 0, curve=(0.5, 0.9, 1.0))])
    assert mean_curve(run) == [pytest.approx(0.2), pytest.approx(0.6)]  # (3 * .1 + .5) / 4, (3 * .5 + .9) / 4


def test_tables_have_every_run_client_and_pair(tmp_path: Path) -> None:
    records = [
        *runs_with({"local": [50, 60], "full": [55, 62]}),
        run_of("dual", 0, [client_of(40, 10, unseen=(3, 7)), client_of(5, 5, id="c1", bytes_up=1000.0)]),
    ]
    paths = write_results(records, tmp_path / "out")
    runs = _rows(paths.results)
    assert [(row["mode"], row["seed"]) for row in runs] == [
        ("local", "0"), ("local", "1"), ("full", "0"), ("full", "1"), ("dual", "0"),
    ]  # fmt: skip
    last = runs[-1]
    assert (last["macro_f1"], last["macro_f1_plain"], last["unseen_accuracy"]) == ("0.75", "0.65", "0.3")
    assert (last["bytes_up"], last["digest"], last["cpu_s"]) == ("500", "ab" * 32, "1.5")
    clients = _rows(paths.clients)
    assert len(clients) == 6
    assert (clients[-1]["client"], clients[-1]["unseen_accuracy"], clients[-1]["confusion"]) == ("c1", "", "5 5; 5 5")
    pair = next(
        row
        for row in _rows(paths.summary_csv)
        if (row["mode"], row["other"], row["metric"], row["weighting"]) == ("full", "local", "macro_f1", "windows")
    )
    assert (pair["n"], pair["difference"], pair["won"], pair["lost"]) == ("2", "0.035", "2", "0")
    # differences .05 and .02: sd .0212132, error .015, quantile 12.7062
    assert float(pair["low"]) == pytest.approx(0.035 - 12.7062 * 0.015, abs=2e-6)
    summary = json.loads(paths.summary_json.read_text())
    assert summary["num_runs"] == 5
    assert paths.page.exists()


def test_the_tables_in_markdown_have_every_score_difference_and_group(tmp_path: Path) -> None:
    other = client_of(8, 2, id="c1", modalities=("accel", "gyro"))
    modes = {"full": 50, "private-head-fusion": 60, "dual": 70}
    records = [run_of(m, seed, [client_of(v, 100 - v), other]) for m, v in modes.items() for seed in (0, 1)]
    text = write_results(records, tmp_path).tables.read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert all(len(row) == len(rows[0]) for row in rows[:3])
    # (0.5 of 200 windows and 0.8 of 20) / 220 = 0.527..., 0.618..., 0.709...
    assert rows[2] == ["ucihar 5-5-0 iid 60", "52.7 ± 0.0", "61.8 ± 0.0", "**70.9 ± 0.0**"]
    assert ["ucihar 5-5-0 iid 60", "accel", "50.0", "60.0", "70.0"] in rows
    assert ["ucihar 5-5-0 iid 60", "accel + gyro", "80.0", "80.0", "80.0"] in rows
    assert ["ucihar 5-5-0 iid 60", "+18.2 (+18.2 to +18.2)", "+9.1 (+9.1 to +9.1)"] in rows
    assert ["dual", "+34.5 % (1)", "+34.5 % (1)"] in rows


def test_a_mode_is_held_against_its_reference_device_by_device(tmp_path: Path) -> None:
    known, gone, odd = client_of(5, 5, id="c0"), client_of(9, 1, id="c1"), client_of(2, 8, id="c2")
    plain = [run_of("full", seed, [known, gone, replace(odd, confusion=((6, 4), (4, 6)))]) for seed in (0, 1)]
    words = "lose = 'accel', at_round = 4"
    hurt = [replace(run_of("hurt", seed, [known, replace(odd, behaviour=words)]), reference="full") for seed in (0, 1)]
    found = reference_rows(grouped([*plain, *hurt]))
    assert found is not None
    # c1 is in one of them alone: (0.5 + 0.2) / 2 against (0.5 + 0.6) / 2, and the odd one by itself 0.2 against 0.6
    same = ["ucihar 5-5-0 iid 60", "hurt", "full model"]
    assert found.rows == [
        [*same, "all", "35.0", "-20.0 (-20.0 to -20.0)", "35.0", "-20.0 (-20.0 to -20.0)"],
        [*same, words, "20.0", "-40.0 (-40.0 to -40.0)", "20.0", "-40.0 (-40.0 to -40.0)"],
    ]
    paths = write_results([*plain, *hurt], tmp_path)
    assert f"| hurt | full model | {words} | 20.0 |" in paths.tables.read_text("utf-8")
    assert "What the change of each mode costs" in paths.page.read_text("utf-8")
    assert reference_rows(grouped(plain)) is None


def test_equal_records_in_another_order_give_equal_files(tmp_path: Path) -> None:
    records = whole_experiment(seeds=2, rounds=3)
    for name, given in (("a", records), ("b", records[::-1])):
        write_results(given, tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_two_results_for_one_place_are_refused() -> None:
    with pytest.raises(ConfigError, match="two results of full in ucihar 5-5-0 iid 60 with seed 0"):
        grouped(runs_with({"full": [50]}) + runs_with({"full": [51]}))


def test_no_run_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one run"):
        write_results([], tmp_path)


def test_gain_over_full_is_relative_and_the_better_mode_an_oracle() -> None:
    other = Cell("ucihar", "3-3-4", "iid", 60)
    records = [
        *runs_with({"full": [40, 60], "private-head": [55, 65], "private-head-fusion": [50, 55], "centralised": [90]}),
        *runs_with({"full": [80], "private-head": [60], "private-head-fusion": [72]}, cell=other),
    ]
    gains = gains_of(grouped(records))
    found = {(gain.cell.mix, gain.choice): (gain.mode, pytest.approx(gain.gain)) for gain in gains}
    # means over seeds: full 50, private head 60, private head + fusion 52.5
    assert found["5-5-0", "private-head"] == ("private-head", 0.2)
    assert found["5-5-0", "private-head-fusion"] == ("private-head-fusion", 0.05)
    assert found["5-5-0", ORACLE] == ("private-head", 0.2)
    assert found["3-3-4", ORACLE] == ("private-head-fusion", -0.1)
    assert not any("centralised" in choice for _, choice in found)
    means = {(row["choice"], row["mix"]): (row["gain"], row["cells"]) for row in mean_gains(gains)}
    assert means[ORACLE, "all"] == (pytest.approx(0.05), 2)
    assert means["private-head", "all"] == (pytest.approx(-0.025), 2)  # (0.2 - 0.25) / 2


def test_dual_becomes_the_default_with_two_points_and_no_loss() -> None:
    verdict = _registered([62, 63, 62, 63, 62], [60, 61, 60, 61, 60])
    assert verdict.is_default is True
    assert verdict.mean_gain == pytest.approx(2.0)
    assert verdict.words.startswith("Dual becomes the default: its mean gain over private head + fusion is +2.00")


def test_dual_stays_an_option_below_two_points() -> None:
    verdict = _registered([61.9, 62.9, 61.9, 62.9, 61.9], [60, 61, 60, 61, 60])
    assert verdict.is_default is False
    assert verdict.words.startswith("Dual stays an option: ")


def test_one_cell_wholly_below_half_a_point_forbids_it_and_is_named() -> None:
    verdict = _registered([70] * 5, [60] * 5, odd=([50, 50.1, 50, 50.1, 50], [51, 51, 51, 51, 51]))
    # differences -1, -0.9, -1, -0.9, -1: interval about -1.03 to -0.89
    assert verdict.is_default is False
    assert [str(loss.cell) for loss in verdict.losses] == ["ucihar 5-5-0 iid 20"]
    assert "ucihar 5-5-0 iid 20 (-1.03 to -0.89)" in verdict.words


def test_a_loss_whose_interval_reaches_half_a_point_does_not_forbid_it() -> None:
    verdict = _registered([70] * 5, [60] * 5, odd=([49, 52, 49, 52, 49], [51, 51, 51, 51, 51]))
    assert verdict.is_default is True
    assert verdict.losses == ()


def test_rule_says_nothing_final_while_cells_or_seeds_are_missing() -> None:
    records = runs_with({"dual": [70, 71], "private-head-fusion": [60, 61]})
    verdict = judge_dual(records)
    assert verdict.is_default is None
    assert verdict.missing == ("1 of 16 cells", f"{CELL}: 2 of 5 seeds")
    assert judge_dual(records, cells=1, seeds=2).is_default is True
    assert judge_dual(runs_with({"full": [60]})).mean_gain is None


def test_cells_with_fewer_windows_than_they_ask_for_are_named() -> None:
    # 40 training windows and 20 test windows are the 60 of the cell; with 16 test windows four are missing
    whole, short = client_of(5, 5), client_of(5, 3)
    assert short_cells([run_of("full", 0, [whole, whole])]) == []
    assert short_cells([run_of(mode, 0, [whole, short]) for mode in ("full", "dual")]) == [
        "ucihar 5-5-0 iid 60: some clients have fewer windows, the least 56"
    ]


def test_terminal_table_fits_80_columns_and_has_points() -> None:
    records = whole_experiment(seeds=2)
    rows, headers = score_table(records, width=80)
    assert headers[1:3] == ["local only", "full model"]
    lines = table_lines(rows, headers, width=80)
    assert max(map(len, lines)) <= 80
    one = summarise(runs_with({"full": [50, 60]}))
    assert (one["scores"][0]["mean"], one["scores"][0]["n"]) == (0.55, 2)
    assert score_table(runs_with({"full": [50, 60]}), width=80)[0] == [["ucihar 5-5-0 iid 60", "55.0 ± 7.1"]]


def _save(records: list[RunRecord], folder: Path) -> None:
    (folder / "runs").mkdir(parents=True)
    for i, record in enumerate(records):
        (folder / "runs" / f"{i}.json").write_text(json.dumps(record.to_dict()))


def test_records_are_read_back_as_they_were(tmp_path: Path) -> None:
    records = whole_experiment(seeds=1, rounds=2)[:3]
    _save(records, tmp_path)
    assert read_records(tmp_path) == records


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "clients": 3, "cell": {}}', "[" * 100_000],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    _save(runs_with({"full": [50]}), tmp_path)
    (tmp_path / "runs" / "x.json").write_text(text)
    with pytest.raises(StorageError, match=r"x\.json is no record of a run") as found:
        read_records(tmp_path)
    assert found.value.error_id == "file-damaged"


@pytest.mark.parametrize("confusion", [[[1, 2]], [[1, 2], [3]], [[1, -2], [3, 4]], [[0.5, 1], [1, 1]], []])
def test_a_confusion_matrix_that_cannot_be_is_refused(tmp_path: Path, confusion: list[list[float]]) -> None:
    values = json.loads(json.dumps(runs_with({"full": [50]})[0].to_dict()))
    values["clients"][0]["confusion"] = confusion
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "0.json").write_text(json.dumps(values))
    with pytest.raises(StorageError, match="confusion of c0"):
        read_records(tmp_path)


def test_folder_without_runs_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished run") as found:
        read_records(tmp_path / "none")
    assert found.value.error_id == "nothing-found"


def test_the_registered_rule_speaks_of_the_registered_experiment_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = runs_with({"dual": [70, 71], "private-head-fusion": [60, 61]})
    _save([replace(record, experiment="registered") for record in records], tmp_path)
    report.main([str(tmp_path)], standalone_mode=False)
    assert "Not decided yet" in capsys.readouterr().out
    assert "Registered rule" in (tmp_path / "index.html").read_text("utf-8")
    report.main([str(tmp_path), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["dual_rule"]["is_default"] is None


def test_command_writes_the_files_and_shows_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save(runs_with({"dual": [70, 71], "private-head-fusion": [60, 61]}), tmp_path)
    report.main([str(tmp_path)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "70.5 ± 0.7" in shown
    assert "decided" not in shown
    assert max(map(len, shown.replace(str(tmp_path), "").splitlines())) <= 80
    report.main([str(tmp_path), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["dual_rule"] is None
    assert {path.name for path in tmp_path.iterdir()} == {
        "runs", "results.csv", "clients.csv", "summary.csv", "summary.json", "tables.md", "index.html",
    }  # fmt: skip
