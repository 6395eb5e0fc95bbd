"""Block types of an installed package: found by name, used as our own, held to the same; never found elsewhere."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blossom_edge.core.blocks import BlockId, BlockKind
from blossom_edge.core.errors import ConfigError
from blossom_edge.federation import foreign_types
from blossom_edge.federation.block_types import find_type
from blossom_edge.federation.initial import initial_block
from blossom_edge.federation.load import load_federation
from blossom_edge.federation.skeletons import skeleton_digest

ACCEL, HEAD, REST, PART = (
    BlockId.parse(text) for text in ("encoder/accel", "head/har", "fusion/har", "fusion/har.accel")
)
SETS = [
    "blocks.encoder/accel={type='tiny_mean', width=6}",
    "blocks.encoder/gyro={type='mlp', widths=[6]}",
    "blocks.fusion/har={type='tiny_sum', width=5}",
    "blocks.head/har={type='tiny_linear', width=1}",
]
MODULE = '''
from blossom_edge.core.blocks import TensorSpec
from blossom_edge.federation.block_types import BlockOptions


class Options(BlockOptions):
    width: int = 4


class Mean:
    """The mean over time, then a linear layer."""

    kind, name, options = "encoder", "tiny_mean", Options

    def tensors(self, options, *, signal):
        if signal.shape:
            raise ValueError("type: tiny_mean takes single numbers alone")
        return (TensorSpec("bias", (options.width,)), TensorSpec("weight", (options.width, signal.width)))

    def width(self, options):
        return options.width

    def module(self, options, *, signal):
        from torch import nn

        class Module(nn.Linear):
            def forward(self, window):
                return super().forward(window.mean(dim=1))

        return Module(signal.width, options.width)


class Sum:
    """The sum of projections, scaled by what stands in the rest."""

    kind, name, options = "fusion", "tiny_sum", Options

    def part(self, options, *, embedding):
        return (TensorSpec("weight", (options.width, embedding)),)

    def rest(self, options):
        return (TensorSpec("scale", (options.width,)),)

    def width(self, options):
        return options.width

    def part_module(self, options, *, embedding):
        from torch import nn

        class Part(nn.Linear):
            def forward(self, embedding):
                return super().forward(embedding), embedding.sum(dim=1)

        return Part(embedding, options.width, bias=False)

    def rest_module(self, options):
        import torch
        from torch import nn

        class Rest(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.zeros(options.width))

            def forward(self, values, scores, present):
                return (1 + self.scale) * values.masked_fill(~present.unsqueeze(2), 0.0).sum(dim=1)

        return Rest()


class Linear:
    """One linear layer."""

    kind, name, options = "head", "tiny_linear", Options

    def tensors(self, options, *, width, outputs):
        return (TensorSpec("bias", (outputs,)), TensorSpec("weight", (outputs, width)))

    def module(self, options, *, width, outputs):
        from torch import nn

        return nn.Linear(width, outputs)


class Broken(Mean):
    """As Mean, with a module that breaks one rule, chosen by its name."""

    def __init__(self, name):
        self.name = name

    def tensors(self, options, *, signal):
        if self.name == "zero":
            return (TensorSpec("matrix", (options.width, signal.width)),)
        if self.name == "unsorted":
            return tuple(reversed(super().tensors(options, signal=signal)))
        return super().tensors(options, signal=signal)

    def module(self, options, *, signal):
        import torch
        from torch import nn

        rule = self.name

        class Module(nn.Module):
            def __init__(self):
                super().__init__()
                width = options.width + (rule == "shape")
                self.weight = nn.Parameter(torch.ones(width, signal.width))
                self.bias = nn.Parameter(torch.zeros(options.width))
                if rule == "zero":
                    self.matrix = nn.Parameter(torch.zeros(options.width, signal.width))
                    del self.weight, self.bias
                if rule == "buffer":
                    self.register_buffer("steps", torch.zeros(1))
                if rule == "double":
                    self.bias = nn.Parameter(torch.zeros(options.width, dtype=torch.float64))
                if rule == "constant":
                    self.table = torch.ones(options.width)

            def forward(self, window):
                x = window.mean(dim=1)
                if rule == "rows":
                    x = x - x.mean(dim=0)
                y = x @ self.weight.T
                if rule == "wide":
                    return y[:, :1] + self.bias[:1]
                if rule == "nan":
                    return (y + self.bias) / 0.0
                if rule == "data":
                    return y + self.bias if window.sum() > 0 else y - self.bias
                return y if rule == "gradient" else y + self.bias

        return Module()


RULES = ["zero", "unsorted", "shape", "buffer", "double", "constant", "rows", "wide", "nan", "data", "gradient"]
broken = {rule: Broken(rule) for rule in RULES}
for rule, found in broken.items():
    globals()["broken_" + rule] = found


class Unkind:
    name, options = "unkind", Options


class Half:
    kind, name, options = "head", "half", Options


class Bare(Linear):
    name, options = "bare", dict


class Misnamed(Linear):
    name = "another"
'''
RULES = {
    "unsorted": "`tensors` are in the order weight, bias, expected sorted by name",
    "shape": r"parameter weight of its module has shape \(7, 3\), `tensors` says \(6, 3\)",
    "buffer": "buffers steps: they would not be averaged",
    "double": r"parameter bias is torch\.float64, expected float32",
    "constant": "table is a tensor and no parameter",
    "zero": "matrix starts at zero; a matrix must be called `weight`",
    "wide": r"embedding has shape \[5, 1\], expected \[5, 6\]",
    "nan": "embedding has values that are not finite",
    "gradient": "parameter bias gets no finite gradient",
    "rows": "the output of a row depends on the other rows",
}
"""What a type breaks, and what it is told."""
ENTRY_POINTS = f"""[blossom_edge.block_types]
tiny_mean = tiny_third_party:Mean
tiny_sum = tiny_third_party:Sum
tiny_linear = tiny_third_party:Linear
mlp = tiny_third_party:Mean
gone = tiny_third_party_gone:Mean
lost = tiny_third_party:Lost
unkind = tiny_third_party:Unkind
half = tiny_third_party:Half
bare = tiny_third_party:Bare
misnamed = tiny_third_party:Misnamed
{chr(10).join(f"{rule} = tiny_third_party:broken_{rule}" for rule in [*RULES, "data"])}
"""


@pytest.fixture
def tiny_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on sys.path as pip would have installed it."""
    (tmp_path / "tiny_third_party.py").write_text(MODULE)
    about = tmp_path / "tiny_third_party-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-third-party\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("tiny_third_party", None)


def refusal(*sets: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_federation("har", sets=sets)
    assert caught.value.error_id == "federation-invalid"
    return str(caught.value)


@pytest.mark.usefixtures("tiny_package")
def test_a_federation_with_blocks_of_an_installed_package_has_its_tensors_and_digests() -> None:
    federation = load_federation("har", sets=SETS)
    shapes = {str(b): {t.name: t.shape for t in federation.spec[b].tensors} for b in (ACCEL, HEAD, REST, PART)}
    assert shapes == {
        "encoder/accel": {"weight": (6, 3), "bias": (6,)},
        "fusion/har.accel": {"weight": (5, 6)},
        "fusion/har": {"scale": (5,)},
        "head/har": {"weight": (7, 5), "bias": (7,)},
    }
    assert federation.spec[ACCEL].options == (("width", 6),)
    again = load_federation("har", sets=SETS)
    assert skeleton_digest(again, ACCEL) == skeleton_digest(federation, ACCEL)
    wider = load_federation("har", sets=[*SETS, "blocks.encoder/accel.width=7"])
    assert skeleton_digest(wider, ACCEL) != skeleton_digest(federation, ACCEL)


@pytest.mark.usefixtures("tiny_package")
def test_options_and_shapes_of_such_a_block_are_checked_as_those_of_our_own() -> None:
    assert 'blocks."encoder/accel".' in refusal("blocks.encoder/accel={type='tiny_mean', width='six'}")
    text = refusal("blocks.encoder/accel={type='tiny_mean'}", "modalities.accel.shape=[2, 2]")
    assert 'blocks."encoder/accel".type: tiny_mean takes single numbers alone' in text


@pytest.mark.usefixtures("tiny_package")
def test_an_unknown_type_lists_the_installed_ones_of_its_kind_and_says_where_it_must_be_installed() -> None:
    text = refusal("blocks.head/har={type='tiny_linaer'}")
    assert "did you mean 'tiny_linear'?" in text
    assert "expected mlp, mlp_norm, tiny_linear; a type of another package must be installed" in text
    assert "on gateway and devices" in text


def test_without_the_package_its_types_are_unknown() -> None:
    text = refusal("blocks.head/har={type='tiny_linear'}")
    assert "found 'tiny_linear', expected mlp, mlp_norm; a type of another package must be installed" in text


@pytest.mark.usefixtures("tiny_package")
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("gone", "cannot be loaded: No module named 'tiny_third_party_gone'"),
        ("lost", "cannot be loaded: module 'tiny_third_party' has no attribute 'Lost'"),
        ("unkind", "kind is None, expected encoder, fusion or head"),
        ("half", "a head without tensors, module"),
        ("bare", "options is <class 'dict'>, expected a class made from BlockOptions"),
        ("misnamed", "its name is 'another', expected that of the entry point"),
    ],
)
def test_a_package_whose_type_cannot_be_used_is_named_with_the_reason(name: str, what: str) -> None:
    text = refusal(f"blocks.head/har={{type='{name}'}}")
    assert f"blocks.\"head/har\".type: type '{name}' of the package tiny-third-party 1.0" in text
    assert what in text


@pytest.mark.usefixtures("tiny_package")
def test_a_type_of_another_kind_is_not_taken() -> None:
    assert "found 'tiny_mean'" in refusal("blocks.head/har={type='tiny_mean'}")


def test_a_module_is_never_named_by_the_federation(tiny_package: Path) -> None:
    assert "found 'tiny_third_party:Mean'" in refusal("blocks.encoder/accel={type='tiny_third_party:Mean'}")


@pytest.mark.usefixtures("tiny_package")
def test_a_built_in_name_is_ours_and_costs_no_look_through_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the packages were looked through")

    monkeypatch.setattr(importlib.metadata, "entry_points", looked)
    foreign_types._find.cache_clear()
    assert load_federation("har").spec[ACCEL].type == "conv1d_gru"
    assert load_federation("two-tasks").spec[ACCEL].tensors[0].name == "layers.0.bias"


@pytest.mark.usefixtures("tiny_package")
def test_a_type_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    real = foreign_types._entries
    monkeypatch.setattr(foreign_types, "_entries", lambda: looks.append(1) or real())
    assert find_type(BlockKind.HEAD, "tiny_linear") is find_type(BlockKind.HEAD, "tiny_linear")
    assert len(looks) == 1


# ---- with torch


@pytest.mark.torch
@pytest.mark.usefixtures("tiny_package")
def test_a_model_of_such_blocks_computes_what_they_say() -> None:
    torch = pytest.importorskip("torch")
    from blossom_edge.models.block_model import BlockModel

    federation = load_federation("har", sets=SETS)
    model = BlockModel(federation, [s.id for s in federation.spec.blocks]).eval()
    values = {s.id: initial_block(s, federation.digest, 0) for s in federation.spec.blocks}
    model.load(values)
    window = torch.arange(2 * 128 * 3, dtype=torch.float32).reshape(2, 128, 3) / 100
    outputs = model({"accel": window}, {"accel": torch.tensor([True, True])})["har"]
    mean = window.numpy().mean(axis=1)
    embedding = mean @ values[ACCEL]["weight"].T + values[ACCEL]["bias"]
    fused = (1 + values[REST]["scale"]) * (embedding @ values[PART]["weight"].T)
    expected = fused @ values[HEAD]["weight"].T + values[HEAD]["bias"]
    assert outputs.detach().numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.torch
@pytest.mark.usefixtures("tiny_package")
@pytest.mark.parametrize(
    "block", [HEAD, *(pytest.param(b, marks=pytest.mark.slow) for b in (ACCEL, REST, PART))], ids=str
)
def test_a_third_partys_block_is_exported_and_held_to_the_same_error_as_ours(block: BlockId) -> None:
    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from blossom_edge.testing.block_types import check_block_type

    checked = check_block_type(load_federation("har", sets=SETS), block)
    assert checked.error <= 1e-5
    assert 300 < checked.skeleton_bytes < 4096


@pytest.mark.torch
@pytest.mark.usefixtures("tiny_package")
@pytest.mark.parametrize("rule", RULES)
def test_a_block_type_that_breaks_a_rule_is_told_which(rule: str) -> None:
    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from blossom_edge.testing.block_types import NotKept, check_block_type

    federation = load_federation("har", sets=[f"blocks.encoder/accel={{type='{rule}', width=6}}"])
    with pytest.raises(NotKept, match=rf"encoder/accel \({rule}\): {RULES[rule]}"):
        check_block_type(federation, ACCEL)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.usefixtures("tiny_package")
def test_a_module_that_torch_cannot_export_is_refused_with_its_reason(capfd: pytest.CaptureFixture[str]) -> None:
    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from blossom_edge.core.errors import BlossomError
    from blossom_edge.export.graph import export_skeleton

    federation = load_federation("har", sets=["blocks.encoder/accel={type='data', width=6}"])
    with pytest.raises(BlossomError, match=r"encoder/accel: torch cannot export it: .*data-dependent") as caught:
        export_skeleton(federation, ACCEL)
    assert caught.value.error_id == "export-failed"
    assert capfd.readouterr() == ("", ""), "torch's pages about it are not for the person who exports"
