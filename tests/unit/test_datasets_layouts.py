"""Readers of public layouts, on tiny files as the official sets have them, written here."""

from __future__ import annotations

import sys
import types
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blossom_edge.core.errors import ConfigError
from blossom_edge.datasets.avmnist import log_mel
from blossom_edge.datasets.readers import read_dataset
from blossom_edge.datasets.spectra import mel_filters, mel_power


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def refused(source: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_dataset(source)
    assert caught.value.hint
    return caught.value


# UCI HAR


def write_ucihar(folder: Path) -> Path:
    root = folder / "UCI HAR Dataset"
    write_lines(root / "activity_labels.txt", ["1 WALKING", "2 SITTING"])
    for part, labels, people in (("train", [2, 1], [1, 3]), ("test", [1], [2])):
        write_lines(root / part / f"y_{part}.txt", [str(label) for label in labels])
        write_lines(root / part / f"subject_{part}.txt", [str(person) for person in people])
        for stem, base in (("body_acc", 0.0), ("body_gyro", 10.0)):
            for axis, letter in enumerate("xyz"):
                row = " ".join(f"{base + axis + 0.001 * t: .7e}" for t in range(128))
                write_lines(
                    root / part / "Inertial Signals" / f"{stem}_{letter}_{part}.txt", [f"  {row}"] * len(labels)
                )
    return root


def test_ucihar_has_both_parts_in_order_with_people(tmp_path: Path) -> None:
    write_ucihar(tmp_path / "ucihar")
    found = read_dataset(f"ucihar:{tmp_path / 'ucihar'}")
    assert found.classes == ("WALKING", "SITTING")
    assert found.labels.tolist() == [1, 0, 0]
    assert found.subjects.tolist() == [1, 3, 2]
    assert found.is_test is not None
    assert found.is_test.tolist() == [False, False, True]
    assert found.modalities["accel"].values.shape == (3, 128, 3)
    assert found.modalities["gyro"].values[2, 5].tolist() == pytest.approx([10.005, 11.005, 12.005])
    assert found.modalities["accel"].channels[0] == ("x", "g")


def test_ucihar_with_a_missing_row_or_file_says_which(tmp_path: Path) -> None:
    root = write_ucihar(tmp_path)
    signals = root / "test" / "Inertial Signals"
    (signals / "body_acc_y_test.txt").write_text(" ".join(["0.5"] * 128) + "\n" + " ".join(["0.5"] * 128) + "\n")
    error = refused(f"ucihar:{tmp_path}")
    assert "body_acc_y_test.txt: found 2 windows, expected 1" in str(error)
    (signals / "body_acc_y_test.txt").write_text("0.5 0.5\n")
    assert "found 2 columns, expected 128" in str(refused(f"ucihar:{tmp_path}"))
    (signals / "body_acc_y_test.txt").write_text("")
    assert "found 0 windows, expected 1" in str(refused(f"ucihar:{tmp_path}"))
    (signals / "body_acc_y_test.txt").unlink()
    assert refused(f"ucihar:{tmp_path}").error_id == "data-not-found"
    assert "data fetch ucihar" in refused(f"ucihar:{tmp_path / 'train'}").hint


# KU-HAR


def kuhar_rows(count: int, base: float) -> list[str]:
    return [f"{10 * t},{base + t},1,2,{10 * t},3,4,5" for t in range(count)]


def test_kuhar_is_cut_as_fedmultimodal_cuts_it(tmp_path: Path) -> None:
    root = tmp_path / "1.Raw_time_domian_data"
    write_lines(root / "0.Stand" / "1001_A_1.csv", kuhar_rows(384, 0.0))  # 128 rows, 128 left out, 128 rows
    write_lines(root / "10.Sit-up" / "1002_K_1.csv", kuhar_rows(127, 0.0))  # too short
    write_lines(root / "2.Talk-sit" / "1002_C_1.csv", [*kuhar_rows(130, 500.0), "1300,7,1,2,,,,"])
    found = read_dataset(f"kuhar:{tmp_path}")
    accel = found.modalities["accel"].values
    assert found.classes == ("Stand", "Talk-sit", "Sit-up")
    assert found.labels.tolist() == [0, 0, 1]
    assert found.subjects.tolist() == [1001, 1001, 1002]
    assert accel.shape == (3, 64, 3)
    assert accel[:, :2, 0].tolist() == [[0.0, 2.0], [256.0, 258.0], [500.0, 502.0]]
    assert found.modalities["gyro"].values[0, 0].tolist() == [3.0, 4.0, 5.0]
    assert found.modalities["gyro"].rate_hz == 50.0


def test_kuhar_trimmed_folder_is_read_before_the_raw_one(tmp_path: Path) -> None:
    write_lines(tmp_path / "1.Raw_time_domian_data" / "0.Stand" / "1001_A_1.csv", kuhar_rows(128, 0.0))
    write_lines(tmp_path / "2.Trimmed_interpolated_data" / "0.Stand" / "1001_A_1.csv", kuhar_rows(128, 9.0))
    assert read_dataset(f"kuhar:{tmp_path}").modalities["accel"].values[0, 0, 0] == 9.0
    write_lines(tmp_path / "2.Trimmed_interpolated_data" / "0.Stand" / "1001_A_2.csv", ["1,2,x,4,5,6,7,8"])
    assert "1001_A_2.csv" in str(refused(f"kuhar:{tmp_path}"))


# PTB-XL

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


def write_ptbxl(root: Path) -> None:
    write_lines(
        root / "scp_statements.csv",
        [
            ",description,diagnostic,form,rhythm,diagnostic_class",
            "NORM,normal ECG,1.0,,,NORM",
            "IMI,inferior infarction,1.0,,,MI",
            "SR,sinus rhythm,,,1.0,",
        ],
    )
    rows = [
        (1, 15709.0, "{'NORM': 100.0, 'SR': 0.0}", 3),
        (2, 13243.0, "{'IMI': 35.0}", 10),
        (3, 13243.0, "{'IMI': 100.0, 'NORM': 50.0}", 1),  # two superclasses
        (4, 20372.0, "{'SR': 0.0}", 1),  # none
    ]
    write_lines(
        root / "ptbxl_database.csv",
        ["ecg_id,patient_id,scp_codes,strat_fold,filename_lr"]
        + [f'{i},{person},"{codes}",{fold},records100/00000/{i:05}_lr' for i, person, codes, fold in rows],
    )
    folder = root / "records100" / "00000"
    folder.mkdir(parents=True)
    for number, _, _, _ in rows:
        name = f"{number:05}_lr"
        samples = np.tile(np.arange(12) * 100 + number, (1000, 1)).astype("<i2")  # lead k: 0.1 k mV
        (folder / f"{name}.dat").write_bytes(samples.tobytes())
        lines = [f"{name} 12 100 1000"]
        for k, lead in enumerate(LEADS):
            checksum = int(samples[:, k].sum()) % 65536
            lines.append(f"{name}.dat 16 1000.0(0)/mV 16 0 {samples[0, k]} {checksum} 0 {lead}")
        write_lines(folder / f"{name}.hea", lines)


def check_ptbxl(root: Path) -> None:
    found = read_dataset(f"ptbxl:{root}")
    assert found.classes == ("NORM", "MI", "STTC", "CD", "HYP")
    assert found.labels.tolist() == [0, 1]
    assert found.subjects.tolist() == [15709, 13243]
    assert found.is_test is not None
    assert found.is_test.tolist() == [False, True]
    assert found.modalities["limb"].values.shape == (2, 1000, 6)
    assert found.modalities["limb"].values[0, 7].tolist() == pytest.approx([0.001, 0.101, 0.201, 0.301, 0.401, 0.501])
    assert found.modalities["chest"].values[1, 999, 5] == pytest.approx(1.102)
    assert [name for name, _ in found.modalities["chest"].channels] == ["v1", "v2", "v3", "v4", "v5", "v6"]


@pytest.mark.slow  # it takes packages that nothing else here wants; .ci/run installs them
def test_ptbxl_is_read_by_wfdb_into_limb_and_chest(tmp_path: Path) -> None:
    pytest.importorskip("wfdb", reason="wfdb is not installed: pip install 'blossom-edge[ptbxl]'")
    write_ptbxl(tmp_path)
    check_ptbxl(tmp_path)


def rdsamp(path: str) -> tuple[Any, dict[str, Any]]:
    """What wfdb's function of this name gives for the files above, in a few lines."""
    header = Path(path + ".hea").read_text().splitlines()
    leads = [line.split()[-1] for line in header[1:]]
    samples = np.frombuffer(Path(path + ".dat").read_bytes(), dtype="<i2").reshape(-1, len(leads)) / 1000.0
    return samples, {"fs": int(header[0].split()[2]), "sig_name": leads, "units": ["mV"] * len(leads)}


def test_ptbxl_keeps_recordings_with_one_superclass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("wfdb")
    monkeypatch.setattr(stand_in, "rdsamp", rdsamp, raising=False)
    monkeypatch.setitem(sys.modules, "wfdb", stand_in)
    write_ptbxl(tmp_path)
    check_ptbxl(tmp_path)
    (tmp_path / "records100" / "00000" / "00002_lr.dat").write_bytes(b"\0" * 24)
    assert "00002_lr.hea: found (1, 12) at 100 Hz" in str(refused(f"ptbxl:{tmp_path}"))


def test_ptbxl_path_that_leaves_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wfdb", types.ModuleType("wfdb"))
    write_ptbxl(tmp_path)
    table = tmp_path / "ptbxl_database.csv"
    table.write_text(table.read_text().replace("records100/00000/00001_lr", "../../etc/passwd"))
    assert "../../etc/passwd" in str(refused(f"ptbxl:{tmp_path}"))


def test_ptbxl_without_wfdb_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wfdb", None)
    write_ptbxl(tmp_path)
    error = refused(f"ptbxl:{tmp_path}")
    assert (error.error_id, error.hint) == ("package-missing", "pip install 'blossom-edge[ptbxl]'")


# AV-MNIST


def test_avmnist_arrays_become_pictures_and_spectra(tmp_path: Path) -> None:
    for kind in ("image", "audio"):
        (tmp_path / kind).mkdir()
    for part, n in (("train", 3), ("test", 2)):
        np.save(tmp_path / "image" / f"{part}_data.npy", np.full((n, 784), 51.0))
        np.save(tmp_path / "audio" / f"{part}_data.npy", np.full((n, 112, 112), 255, dtype=np.uint8))
        np.save(tmp_path / f"{part}_labels.npy", np.arange(n))
    found = read_dataset(f"avmnist:{tmp_path}")
    assert found.labels.tolist() == [0, 1, 2, 0, 1]
    assert found.is_test is not None
    assert found.is_test.tolist() == [False, False, False, True, True]
    assert (found.modalities["image"].values.shape, found.modalities["image"].shape) == ((5, 1, 784), (28, 28))
    assert found.modalities["image"].values[0, 0, 0] == pytest.approx(0.2)
    assert (found.modalities["audio"].values.shape, found.modalities["audio"].values.max()) == ((5, 112, 112), 1.0)
    np.save(tmp_path / "test_labels.npy", np.array([0, 10]))
    assert "whole numbers 0 to 9" in str(refused(f"avmnist:{tmp_path}"))


def write_avdigits(folder: Path, labels: tuple[int, ...] = (3, 5, 3)) -> None:
    tone = np.round(16384 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)).astype(np.int16)
    np.savez(folder / "fsdd.npz", audio=np.stack([tone, np.zeros_like(tone)]), label=np.array([3, 5]))
    images = np.stack([np.full((28, 28), v, dtype=np.uint8) for v in (0, 255, 51)])
    np.savez(folder / "mnist10k.npz", image=images, label=np.array([5, 3, 3]))
    pairs = {"audio_idx": [0, 1, 0], "image_idx": [1, 0, 2], "label": labels, "subject": [2, 4, 2]}
    arrays: dict[str, Any] = {name: np.array(rows) for name, rows in pairs.items()}
    np.savez(folder / "avdigits_pairs.npz", **arrays, is_test=np.array([False, False, True]))


def test_pairs_of_digits_have_the_sound_that_the_papers_model_takes(tmp_path: Path) -> None:
    write_avdigits(tmp_path)
    found = read_dataset(f"avdigits:{tmp_path}")
    audio = found.modalities["audio"].values
    assert audio.shape == (3, 141, 64)
    assert np.array_equal(audio[0], audio[2])
    assert found.modalities["image"].values[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert found.subjects.tolist() == [2, 4, 2]
    once = read_dataset(f"avdigits-once:{tmp_path}")
    assert once.labels.tolist() == [3, 5]
    assert once.subjects.tolist() == [2, 4]
    assert np.array_equal(once.modalities["audio"].values, audio[:2])
    write_avdigits(tmp_path, labels=(3, 5, 4))
    assert "pairs of different digits" in str(refused(f"avdigits:{tmp_path}"))


# Sound


def test_tone_is_loudest_in_the_band_around_it() -> None:
    # 64 bands to 24 kHz: mel(24000) = 3984.0, a step 61.29; mel(1000) = 1000.0, so centre number 16.3, band 15.
    level = log_mel(np.sin(2 * np.pi * 1000 * np.arange(12000) / 8000))
    assert int(level[70].argmax()) == 15
    assert level.max() - level.min() == pytest.approx(80.0, abs=1e-3)


def test_power_of_a_constant_is_that_of_the_window_in_the_lowest_bands() -> None:
    # A Hann window of 400 sums to 200: |X| is 200 in bin 0, 100 in bin 1, 0 elsewhere. The filters leave bin 0 out.
    power = mel_power(np.ones(1600), 16_000.0, size=400, hop=160, num_bands=10)
    assert power.shape == (11, 10)
    assert power[5] == pytest.approx(100.0**2 * mel_filters(201, 10, 16_000.0)[1])


# MELD and IEMOCAP


def write_wav(path: Path, seconds: float, *, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def write_text(folder: Path, ids: list[str]) -> None:
    text = np.stack([np.full((4, 6), i, dtype=np.float16) for i in range(len(ids))])
    np.savez(folder / "text_features.npz", id=np.array(ids), text=text)


def write_meld(root: Path) -> None:
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    for part, folder in (
        ("train", "train_splits"),
        ("dev", "dev_splits_complete"),
        ("test", "output_repeated_splits_test"),
    ):
        emotions = {"train": ("joy", "surprise", "anger"), "dev": ("neutral",), "test": ("sadness",)}[part]
        rows = [f'{i},"Well, yes",Ross {i},{e},x,0,{i},1,1,"0:0:1,0","0:0:2,0"' for i, e in enumerate(emotions)]
        write_lines(root / f"{part}_sent_emo.csv", [header, *rows])
        write_wav(root / folder / "waves" / "dia0_utt0.wav", 0.5)


def test_meld_has_sound_and_text_of_four_emotions(tmp_path: Path) -> None:
    write_meld(tmp_path / "MELD.Raw")
    write_text(tmp_path / "MELD.Raw", ["test_dia0_utt0", "train_dia0_utt0", "dev_dia0_utt0"])
    found = read_dataset(f"meld:{tmp_path}")
    # train utterance 1 is surprise, and of number 2 there is no sound
    assert [found.classes[label] for label in found.labels] == ["joy", "neutral", "sadness"]
    assert found.is_test is not None
    assert found.is_test.tolist() == [False, False, True]
    assert found.subjects.tolist() == [0, 0, 0]
    audio = found.modalities["audio"].values
    assert audio.shape == (3, 1000, 80)
    # 0.5 s of 100 frames, and the one at its end; then zeros
    assert [int(np.flatnonzero(window.any(axis=1)).max()) for window in audio] == [50, 50, 50]
    assert found.modalities["text"].values[:, 0, 0].tolist() == [1.0, 2.0, 0.0]


def test_meld_without_text_features_or_sound_says_how_to_make_them(tmp_path: Path) -> None:
    write_meld(tmp_path)
    error = refused(f"meld:{tmp_path}")
    assert error.error_id == "data-not-found"
    assert "text_features.npz" in error.hint
    write_text(tmp_path, ["train_dia0_utt0"])
    assert "no text of dev_dia0_utt0 and 1 more" in str(refused(f"meld:{tmp_path}"))
    write_wav(tmp_path / "train_splits" / "waves" / "dia0_utt0.wav", 0.5, rate=8000)
    write_text(tmp_path, ["test_dia0_utt0", "train_dia0_utt0", "dev_dia0_utt0"])
    error = refused(f"meld:{tmp_path}")
    assert "16 bit at 8000 Hz" in str(error)
    assert "ffmpeg" in error.hint
    for wav in tmp_path.rglob("*.wav"):
        wav.unlink()
    assert "ffmpeg" in refused(f"meld:{tmp_path}").hint


def test_iemocap_counts_excited_as_happy_and_knows_its_actors(tmp_path: Path) -> None:
    root = tmp_path / "IEMOCAP_full_release"
    names = {"Ses01F_impro01_F000": "exc", "Ses01F_impro01_M000": "fru", "Ses02M_script01_1_M003": "ang"}
    for session, text in (("1", "Ses01F_impro01"), ("2", "Ses02M_script01_1")):
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for name, emotion in names.items():
            if name.startswith(text):
                lines += [f"[6.2901 - 8.2357]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]", "C-E2:\tNeutral;\t()", ""]
                write_wav(root / f"Session{session}" / "sentences" / "wav" / text / f"{name}.wav", 0.3)
        write_lines(root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{text}.txt", lines)
    write_text(root, list(names))
    found = read_dataset(f"iemocap:{tmp_path}")
    assert [found.classes[label] for label in found.labels] == ["happy", "angry"]
    assert found.subjects.tolist() == [1, 4]
    assert found.is_test is None
    assert found.modalities["audio"].values.shape == (2, 1000, 80)
    assert found.modalities["text"].values[:, 0, 0].tolist() == [0.0, 2.0]
