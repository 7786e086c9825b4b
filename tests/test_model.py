"""Loading, refusing, resizing and saving networks."""

from __future__ import annotations

import json
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgeprune.cards import known_models
from edgeprune.errors import MissingExtraError, ModelError, UsageError, WeightsError
from edgeprune.inspection import inspect
from edgeprune.model import Model, load_model, load_saved, save_model, with_tensors
from edgeprune.program import capture, network_of
from edgeprune.request import Request
from edgeprune.weights import fit_weights

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)
        self.again = self.fc
        self.register_buffer("scale", torch.ones(8), persistent=False)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        return self.again(x * self.scale)

def build():
    print("built")
    return Net()

ready = Net()
number = 7
def wants(width): return Net()
def text(): return "net"
def breaks(): return 1 / 0
def pair():
    class Pair(Net):
        def forward(self, x): return super().forward(x), x
    return Pair()
def image(): return nn.Conv2d(1, 2, 1)
def lazy(): return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))
"""
SHAPE = (1, 6, 6)


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return f"{path}:build"


def own(net: str, function: str = "build", **options: object) -> Model:
    return load_model(net.replace(":build", f":{function}"), input_shape=SHAPE, **options)


def outputs(model: Model | nn.Module, shape: tuple[int, ...] = SHAPE) -> Tensor:
    module = model.module if isinstance(model, Model) else model
    with torch.no_grad():
        return module(torch.randn(4, *shape, generator=torch.Generator().manual_seed(1)))


def written(state: object, path: Path) -> Path:
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


# --- where a network comes from


def test_a_file_s_function_is_built_in_eval_mode_and_named_after_the_file(net: str, capsys: pytest.CaptureFixture[str]):
    model = own(net)
    assert (model.name, model.source, model.plans, model.weights) == ("net", net, (), "")
    assert (model.input.shape, model.input.mean, model.input.std) == (SHAPE, (0.0,), (1.0,))
    assert not model.module.training
    assert capsys.readouterr().out == ""


def test_a_relative_path_is_remembered_as_absolute(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert load_model("net.py:build", input_shape=SHAPE).source == net


def test_a_module_s_function_is_built(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "some_networks.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = load_model("some_networks:build", input_shape=SHAPE)
    assert (model.name, model.source) == ("some_networks", "some_networks:build")


@pytest.mark.parametrize("function", ["Net", "lazy"])
def test_a_class_or_a_lazy_network_is_taken(net: str, function: str):
    model = own(net, function)
    assert model.name == function
    assert outputs(model).shape == (4, 5)


def test_a_ready_network_is_copied_so_that_each_load_is_fresh(net: str):
    first = own(net, "ready")
    with torch.no_grad():
        first.module.fc.weight.zero_()
    assert own(net, "ready").module.fc.weight.abs().sum() > 0


def test_options_replace_what_the_card_says():
    model = load_model("resnet20", input_shape=(3, 16, 24), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    assert (model.input.shape, model.input.mean, model.input.std) == ((3, 16, 24), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="resnet2O") as caught:
        load_model("resnet2O")
    assert "'resnet20'" in caught.value.fix
    assert "path/net.py:build" in caught.value.fix


def test_a_file_without_a_function_says_how_to_name_one():
    with pytest.raises(UsageError, match="not the function") as caught:
        load_model("net.py")
    assert "net.py:build" in caught.value.fix


def test_a_network_of_one_s_own_needs_its_input_size(net: str):
    with pytest.raises(UsageError, match="input size") as caught:
        load_model(net)
    assert "--input" in caught.value.fix


def test_a_mean_of_the_wrong_length_is_refused(net: str):
    with pytest.raises(UsageError, match="3 values of mean for 1 channels"):
        own(net, mean=(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("nothing", "no model 'nothing'"),
        ("number", "type int, not a torch.nn.Module"),
        ("text", "type str, not a torch.nn.Module"),
        ("wants", "TypeError"),
        ("breaks", "ZeroDivisionError"),
        ("pair", "gives a tuple, not one tensor"),
        ("image", r"\[2, 2, 6, 6\], not float \[2, classes\]"),
    ],
)
def test_what_is_not_a_classifier_is_refused(net: str, function: str, told: str):
    with pytest.raises(ModelError, match=told) as caught:
        own(net, function)
    assert function in caught.value.where
    assert caught.value.fix


def test_an_input_size_that_the_network_rejects_is_quoted_with_its_own_error(net: str):
    with pytest.raises(ModelError, match=r"3x6x6: RuntimeError: Given groups=1.*3 channels") as caught:
        load_model(net, input_shape=(3, 6, 6))
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_zoo_that_does_not_import_is_one_line_and_a_fix(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / f"{library}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, library, raising=False)
    with pytest.raises(ModelError, match=r"does not import: operator torchvision::nms does not exist") as caught:
        load_model(f"{library}:resnet18")
    assert "built for torch" in caught.value.fix
    assert "more" not in str(caught.value)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_zoo_that_is_not_installed_names_the_extra(library: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeprune\[zoo\]'"):
        load_model(f"{library}:resnet18")


@pytest.mark.zoo
@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_zoo_network_is_built_without_a_download_and_a_wrong_name_gets_the_nearest(library: str):
    try:
        __import__(library)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{library} does not import: {error}")
    model = load_model(f"{library}:resnet18")
    assert model.input.shape == (3, 224, 224)
    assert model.input.mean == (0.485, 0.456, 0.406)
    with pytest.raises(UsageError, match="resnet188") as caught:
        load_model(f"{library}:resnet188")
    assert "resnet18" in caught.value.fix


# --- weights


def wrapped(state: dict[str, Tensor]) -> dict[str, object]:
    return {
        "as they are": state,
        "state_dict": {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        "model": {"model": state, "epoch": 3},
        "model_state_dict": {"model_state_dict": state},
        "module.": {f"module.{name}": value for name, value in state.items()},
        "compiled and parallel": {"state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        "half": {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
        "no counters": {name: value for name, value in state.items() if "num_batches" not in name},
        "shared once": {name: value for name, value in state.items() if not name.startswith("again")},
    }


@pytest.mark.parametrize("form", list(wrapped({})))
def test_a_state_dict_is_understood_however_it_was_wrapped(net: str, tmp_path: Path, form: str):
    source = own(net)
    file = written(wrapped(source.module.state_dict())[form], tmp_path / "w.pt")
    loaded = own(net, weights=file)
    assert loaded.weights == str(file)
    assert not torch.equal(outputs(own(net)), outputs(source))
    torch.testing.assert_close(outputs(loaded), outputs(source), rtol=1e-2, atol=1e-2)
    assert loaded.module.conv.weight.dtype == torch.float32


def test_safetensors_are_read(net: str, tmp_path: Path):
    source = own(net)
    state = {name: value.clone() for name, value in source.module.state_dict().items()}
    loaded = own(net, weights=written(state, tmp_path / "w.safetensors"))
    torch.testing.assert_close(outputs(loaded), outputs(source), rtol=0, atol=0)


class Versioned(nn.Conv2d):
    """Loads only what says of which version it is, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, versions: dict, *others: object) -> None:
        if versions.get("version") != self._version:
            raise ValueError(f"version should be 2 instead of {versions.get('version')}")
        super()._load_from_state_dict(state, prefix, versions, *others)


def test_a_network_that_asks_for_its_version_gets_it_though_files_of_tensors_carry_none(tmp_path: Path):
    source, module = Versioned(3, 4, 3), nn.Sequential(Versioned(3, 4, 3))
    state = {f"0.{name}": value.clone() for name, value in source.state_dict().items()}
    fit_weights(module, state, tmp_path / "w.safetensors")
    torch.testing.assert_close(module[0].weight, source.weight, rtol=0, atol=0)


def test_missing_surplus_and_reshaped_tensors_are_named_and_nothing_is_loaded(net: str, tmp_path: Path):
    state = own(net).module.state_dict()
    state["head.weight"] = state.pop("conv.weight")
    state["fc.bias"] = torch.zeros(9)
    with pytest.raises(WeightsError) as caught:
        own(net, weights=written(state, tmp_path / "w.pt"))
    told = str(caught.value)
    assert "1 missing: conv.weight" in told
    assert "1 surplus: head.weight" in told
    assert "fc.bias (file [9], model [5])" in told
    assert str(tmp_path / "w.pt") in told


def test_weights_of_another_architecture_name_five_of_each_and_count_the_rest():
    with pytest.raises(WeightsError, match=r"\d+ missing: (\S+, ){5}\.\.\.; 35 surplus") as caught:
        load_model("resnet20", weights=known_models()["digits"].weights)
    assert "num_batches_tracked" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(net: str, tmp_path: Path, value: float):
    state = own(net).module.state_dict()
    state["bn.running_var"][3] = value
    with pytest.raises(WeightsError, match=r"NaN or infinity in 1 of \d+ tensors: bn.running_var"):
        own(net, weights=written(state, tmp_path / "w.pt"))


def test_integer_weights_for_a_float_layer_are_refused(net: str, tmp_path: Path):
    state = own(net).module.state_dict()
    state["conv.weight"] = state["conv.weight"].to(torch.int8)
    with pytest.raises(WeightsError, match=r"conv.weight \(file torch.int8, model torch.float32\)"):
        own(net, weights=written(state, tmp_path / "w.pt"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(net: str, tmp_path: Path):
    file = written(own(net).module.state_dict(), tmp_path / "w.pt")
    file.chmod(0)
    with pytest.raises(WeightsError, match="cannot read the weights: Permission denied"):
        own(net, weights=file)


def test_a_missing_file_and_a_folder_are_told_apart(net: str, tmp_path: Path):
    with pytest.raises(WeightsError, match="no such file"):
        own(net, weights=tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="is a folder"):
        own(net, weights=tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_said_to_be_torn(net: str, tmp_path: Path, name: str, share: float):
    file = written({key: value.clone() for key, value in own(net).module.state_dict().items()}, tmp_path / name)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="not a whole") as caught:
        own(net, weights=file)
    assert str(file) in str(caught.value)


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_pickle_that_wants_to_run_code_is_not_opened(net: str, tmp_path: Path, wrap: bool):
    trap = Runs(tmp_path / "ran")
    file = written({**own(net).module.state_dict(), "trap": trap} if wrap else trap, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"was not opened.*run code \((posix|nt).system\)") as caught:
        own(net, weights=file)
    assert "safetensors" in caught.value.fix
    assert not (tmp_path / "ran").exists()


def test_a_pickled_network_is_not_opened(net: str, tmp_path: Path):
    with pytest.raises(WeightsError, match=r"was not opened.*torch.nn.modules.linear.Linear") as caught:
        own(net, weights=written(nn.Linear(2, 2), tmp_path / "w.pt"))
    assert "state_dict()" in caught.value.fix


def test_other_files_are_no_checkpoints(net: str, tmp_path: Path):
    file = tmp_path / "w.pt"
    for content in (b"hello", b"\x93NUMPY" * 99, pickle.dumps({"a": 1}, protocol=4), b"PK\x03\x04" + bytes(50)):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=r"not a (whole )?PyTorch checkpoint"):
            own(net, weights=file)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (torch.zeros(3), "holds a Tensor, not tensors by name"),
        ([1, 2], "holds a list"),
        ({}, "holds no tensors"),
        ({"epoch": 3, "lr": 0.1}, r"more than tensors by name: epoch \(int\), lr \(float\)"),
    ],
)
def test_a_checkpoint_without_a_state_dict_says_what_it_holds(net: str, tmp_path: Path, content: object, told: str):
    with pytest.raises(WeightsError, match=told):
        own(net, weights=written(content, tmp_path / "w.pt"))


# --- with_tensors


def test_a_cut_chain_computes_what_the_kept_filters_compute():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.PReLU(8),
        nn.Conv2d(8, 4, 1),
        nn.Flatten(),
        nn.Linear(64, 2),
    ).eval()
    keep = torch.tensor([0, 3, 7])
    state = net.state_dict()
    cut = with_tensors(
        net,
        {
            name: state[name][keep]
            for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight")
        }
        | {"3.weight": state["3.weight"][:, keep]},
    )
    with torch.no_grad():
        net[3].weight[:, [i for i in range(8) if i not in keep.tolist()]] = 0
    torch.testing.assert_close(outputs(cut, (3, 6, 6)), outputs(net, (3, 6, 6)), rtol=1e-5, atol=1e-6)
    assert (cut[0].out_channels, cut[1].num_features, cut[2].num_parameters, cut[3].in_channels) == (3, 3, 3, 3)
    assert (net[0].out_channels, net[0].weight.shape[0]) == (8, 8)
    assert not cut.training


@pytest.mark.parametrize(("filters", "kept"), [(6, 4), (12, 8), (6, 1), (18, 3)])
def test_a_depthwise_convolution_stays_one(filters: int, kept: int):
    multiplier = filters // 6
    layer = nn.Conv2d(6, filters, 3, groups=6)
    state = layer.state_dict()
    cut = with_tensors(layer, {name: value[:kept] for name, value in state.items()})
    assert (cut.in_channels, cut.out_channels, cut.groups) == (kept // multiplier, kept, kept // multiplier)
    x = torch.randn(2, 6, 5, 5)
    torch.testing.assert_close(cut(x[:, : cut.in_channels]), layer(x)[:, :kept])


def test_a_part_of_a_depthwise_channel_is_refused():
    layer = nn.Conv2d(4, 8, 3, groups=4, bias=False)
    with pytest.raises(ValueError, match="5 filters"):
        with_tensors(layer, {"weight": layer.weight[:5]})


@pytest.mark.parametrize(
    ("layer", "tensors", "sizes"),
    [
        (nn.Conv1d(4, 6, 3), {"weight": (5, 2, 3), "bias": (5,)}, {"in_channels": 2, "out_channels": 5, "groups": 1}),
        (nn.Conv2d(8, 6, 3, groups=2), {"weight": (6, 3, 3, 3)}, {"in_channels": 6, "out_channels": 6, "groups": 2}),
        (nn.Conv3d(4, 6, 1), {"weight": (6, 2, 1, 1, 1)}, {"in_channels": 2, "out_channels": 6}),
        (nn.Conv2d(1, 6, 3), {"weight": (3, 1, 3, 3)}, {"in_channels": 1, "out_channels": 3, "groups": 1}),
        (nn.ConvTranspose2d(4, 6, 3), {"weight": (2, 5, 3, 3)}, {"in_channels": 2, "out_channels": 5}),
        (
            nn.ConvTranspose2d(4, 4, 3, groups=4),
            {"weight": (2, 1, 3, 3)},
            {"in_channels": 2, "out_channels": 2, "groups": 2},
        ),
        (nn.Linear(4, 6), {"weight": (5, 3), "bias": (5,)}, {"in_features": 3, "out_features": 5}),
        (nn.BatchNorm1d(4, affine=False), {"running_mean": (3,), "running_var": (3,)}, {"num_features": 3}),
        (nn.BatchNorm3d(4), {"weight": (3,)}, {"num_features": 3}),
        (nn.InstanceNorm2d(4, affine=True), {"weight": (3,), "bias": (3,)}, {"num_features": 3}),
        (nn.GroupNorm(4, 8), {"weight": (6,), "bias": (6,)}, {"num_channels": 6, "num_groups": 3}),
        (nn.LayerNorm((4, 3)), {"weight": (2, 3), "bias": (2, 3)}, {"normalized_shape": (2, 3)}),
        (nn.PReLU(4), {"weight": (3,)}, {"num_parameters": 3}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_layer_s_sizes_follow_its_tensors(
    layer: nn.Module, tensors: dict[str, tuple[int, ...]], sizes: dict[str, object]
):
    cut = with_tensors(layer, {name: torch.ones(shape) for name, shape in tensors.items()})
    assert {name: getattr(cut, name) for name in sizes} == sizes


def test_two_names_given_one_tensor_share_one_parameter_and_the_given_tensor_is_copied(net: str):
    module = own(net).module
    given = module.fc.weight.detach()[:3]
    cut = with_tensors(module, {"fc.weight": given, "again.weight": given})
    assert cut.fc.weight is cut.again.weight
    assert cut.fc.weight.data_ptr() != given.data_ptr()
    twin = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    twin[1].weight = twin[0].weight
    smaller = torch.ones(1, 2)
    cut = with_tensors(twin, {"0.weight": smaller, "1.weight": smaller})
    assert cut[0].weight is cut[1].weight
    assert cut[0].weight is not twin[0].weight


def test_kind_and_gradient_of_a_parameter_are_kept():
    layer = nn.Linear(4, 4).to(torch.float64)
    layer.weight.requires_grad_(False)
    cut = with_tensors(layer, {"weight": torch.ones(4, 8)[:, ::2], "bias": torch.ones(4)})
    assert (cut.weight.dtype, cut.weight.requires_grad, cut.bias.requires_grad) == (torch.float64, False, True)
    assert isinstance(cut.weight, nn.Parameter)
    assert cut.weight.is_contiguous()


def test_an_unknown_name_and_another_rank_are_refused():
    layer = nn.Linear(4, 4, bias=False)
    for name in ("bias", "nothing", "inner.weight", "in_features"):
        with pytest.raises(KeyError, match=name):
            with_tensors(layer, {name: torch.ones(4)})
    with pytest.raises(ValueError, match="rank 1 given, 2 wanted"):
        with_tensors(layer, {"weight": torch.ones(4)})


# --- saving and loading again


def cut_net(net: str) -> Model:
    model = own(net, mean=(0.5,), std=(0.25,))
    module = model.module
    smaller = {"fc.weight": module.fc.weight[:, :6]}
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    smaller |= {name: value[:6] for name, value in tensors.items() if value.ndim and not name.startswith("fc")}
    return Model(with_tensors(module, smaller), model.input, "net", net, ("a", "b"), "w.pt")


def test_a_cut_network_comes_back_as_it_was(net: str, tmp_path: Path):
    model = cut_net(net)
    save_model(model, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["pruned.json", "pruned.safetensors"]
    again = load_saved(tmp_path / "run")
    torch.testing.assert_close(outputs(again), outputs(model), rtol=0, atol=0)
    assert (again.name, again.source, again.plans, again.input, again.weights) == (
        "net", net, ("a", "b"), model.input, "w.pt",
    )  # fmt: skip
    assert (again.module.conv.out_channels, again.module.bn.num_features, again.module.fc.in_features) == (6, 6, 6)
    assert again.module.fc.weight is again.module.again.weight
    assert not again.module.training


def test_a_cut_resnet20_comes_back_as_it_was(tmp_path: Path):
    model = load_model("resnet20")
    state, cut = model.module.state_dict(), {}
    for name, value in state.items():
        if ".conv1." in name or (".bn1." in name and value.ndim):
            cut[name] = value[: len(value) // 2]
        elif ".conv2." in name:
            cut[name] = value[:, : value.shape[1] // 2]
    smaller = Model(with_tensors(model.module, cut), model.input, "resnet20", "resnet20", ("f",))
    before, after = (sum(p.numel() for p in m.module.parameters()) for m in (model, smaller))
    assert after < 0.55 * before
    save_model(smaller, tmp_path, "half")
    torch.testing.assert_close(outputs(load_saved(tmp_path, "half"), (3, 32, 32)), outputs(smaller, (3, 32, 32)))


def test_views_of_one_storage_and_transposed_weights_are_saved(net: str, tmp_path: Path):
    model = own(net)
    whole = torch.randn(2, 8)
    model.module.bn.running_mean, model.module.bn.bias.data = whole[0], whole[1]
    model.module.fc.weight.data = torch.randn(8, 5).t()
    save_model(model, tmp_path)
    # Another layout in memory may be summed in another order.
    torch.testing.assert_close(outputs(load_saved(str(tmp_path))), outputs(model))


def test_lazy_layers_come_back(net: str, tmp_path: Path):
    model = own(net, "lazy")
    save_model(model, tmp_path)
    torch.testing.assert_close(outputs(load_saved(tmp_path)), outputs(model), rtol=0, atol=0)


def test_a_changed_missing_or_moved_source_file_is_told_apart(net: str, tmp_path: Path):
    model = cut_net(net)
    save_model(model, tmp_path / "run")
    file = tmp_path / "net.py"
    file.write_text(NET + "\n# edited\n")
    with pytest.raises(ModelError, match="has changed") as caught:
        load_saved(tmp_path / "run")
    assert "Restore" in caught.value.fix
    file.unlink()
    with pytest.raises(ModelError, match="missing") as caught:
        load_saved(tmp_path / "run")
    assert caught.value.where == str(file)
    (tmp_path / "moved.py").write_text(NET)
    again = load_saved(tmp_path / "run", source=f"{tmp_path}/moved.py:build")
    torch.testing.assert_close(outputs(again), outputs(model), rtol=0, atol=0)


def test_tensors_of_another_save_are_refused(net: str, tmp_path: Path):
    save_model(cut_net(net), tmp_path)
    file = tmp_path / "pruned.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    with pytest.raises(WeightsError, match="not the tensors that were saved"):
        load_saved(tmp_path)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_saved(tmp_path)
    file.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        load_saved(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("schema", 99, "schema 1"),
        ("tensors", None, "tensors missing or of the wrong kind"),
        ("name", None, "name missing"),
        ("input", {"shape": [1]}, "not an input spec"),
        ("source", "resnet20", "do not fit the network"),
        ("shared", {}, "do not fit the network: again.bias, again.weight"),
        ("widths", {"fc": 3}, "no layer 'fc' has such a width"),
    ],
)
def test_a_saved_document_that_is_wrong_says_where(net: str, tmp_path: Path, key: str, value: object, told: str):
    model = own(net)
    save_model(model, tmp_path)
    path = tmp_path / "pruned.json"
    document = {**json.loads(path.read_text()), key: value}
    if key == "source":
        document |= {"source_sha256": None, "input": load_model("resnet20").input.to_json()}
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=told):
        load_saved(tmp_path)


def test_a_folder_without_a_saved_model_is_told(tmp_path: Path):
    with pytest.raises(ModelError, match="no saved model") as caught:
        load_saved(tmp_path)
    assert caught.value.where == str(tmp_path / "pruned.json")
    (tmp_path / "pruned.json").write_text('{"schema": 1')
    with pytest.raises(ModelError, match="not a saved model"):
        load_saved(tmp_path)


# --- networks as graphs, and others than classifiers


def graph_of(model: Model) -> Model:
    program = capture(model.module, model.input_shapes)
    return replace(model, module=network_of(program, model.module), rewritten="for a test")


def test_a_network_that_is_a_graph_comes_back_bit_by_bit_without_its_file(net: str, tmp_path: Path):
    model = own(net)
    graph = graph_of(model)
    save_model(graph, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["pruned.json", "pruned.safetensors"]
    (tmp_path / "net.py").unlink()
    again = load_saved(tmp_path / "run")
    assert torch.equal(outputs(again), outputs(model))
    assert (again.name, again.source, again.input) == (model.name, model.source, model.input)
    assert again.rewritten == "for a test"
    assert again.module.state_dict().keys() == model.module.state_dict().keys()
    assert again.module.get_submodule("fc").weight is again.module.get_submodule("again").weight
    save_model(again, tmp_path / "again")
    assert torch.equal(outputs(load_saved(tmp_path / "again")), outputs(model))


def test_a_graph_s_tensors_may_have_other_sizes(net: str, tmp_path: Path):
    model = cut_net(net)
    save_model(graph_of(model), tmp_path)
    assert torch.equal(outputs(load_saved(tmp_path)), outputs(model))


def test_a_saved_graph_that_names_other_functions_is_not_loaded(net: str, tmp_path: Path):
    save_model(graph_of(own(net)), tmp_path)
    path = tmp_path / "pruned.json"
    document = json.loads(path.read_text())
    document["graph"]["nodes"][0]["target"] = "os.system"
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match=r"os\.system is not one of ATen's") as caught:
        load_saved(tmp_path)
    assert caught.value.where == str(path)


def test_a_document_from_before_graphs_is_still_read(net: str, tmp_path: Path):
    model = own(net)
    save_model(model, tmp_path)
    path = tmp_path / "pruned.json"
    document = json.loads(path.read_text())
    del document["graph"], document["more_inputs"], document["rewritten"]
    path.write_text(json.dumps(document))
    assert torch.equal(outputs(load_saved(tmp_path)), outputs(model))


@pytest.mark.parametrize("function", ["pair", "image"])
def test_any_network_is_loaded_and_saved_where_no_classifier_is_asked_for(net: str, tmp_path: Path, function: str):
    model = own(net, function, classifier=False)
    save_model(graph_of(model), tmp_path)
    given, wanted = outputs(load_saved(tmp_path)), outputs(model)
    assert type(given) is type(wanted)
    assert all(torch.equal(one, other) for one, other in zip(given, wanted, strict=True))


def test_a_network_of_several_inputs_is_loaded_and_saved(tmp_path: Path):
    (tmp_path / "two.py").write_text(TWO)
    source = f"{tmp_path}/two.py:build"
    model = load_model(source, input_shape=SHAPE, more_inputs=((3,),))
    assert model.input_shapes == (SHAPE, (3,))
    images, codes = torch.randn(4, *SHAPE), torch.randn(4, 3)
    for number, one in enumerate((model, graph_of(model))):
        save_model(one, tmp_path / str(number))
        again = load_saved(tmp_path / str(number))
        assert again.more_inputs == ((3,),)
        with torch.no_grad():
            assert torch.equal(again.module(images, codes), model.module(images, codes))
    with pytest.raises(ModelError, match="does not take an input of 1x6x6: TypeError"):
        load_model(source, input_shape=SHAPE)
    with pytest.raises(ModelError, match="does not take an input of 1x6x6, 4: RuntimeError"):
        load_model(source, input_shape=SHAPE, more_inputs=((4,),))


TWO = """
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(1, 4, 3), nn.Linear(3, 4)

    def forward(self, image, code):
        return self.conv(image).mean((2, 3)) * self.gate(code)

build = Two
"""


def test_inspect_takes_networks_that_are_no_classifiers(net: str, tmp_path: Path):
    (tmp_path / "two.py").write_text(TWO)
    described = inspect(Request(model=f"{tmp_path}/two.py:build", input_shape=SHAPE, more_inputs=((3,),)))
    assert "conv" in str(described)
    assert "conv" in str(inspect(Request(model=net.replace(":build", ":pair"), input_shape=SHAPE)))
