"""The networks people really use are cut exactly, or say what they leave whole (needs torchvision and timm)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nets import (
    Keep,
    Traced,
    assert_attributes_are_true,
    folded,
    ignoring,
    noise,
    plan_of,
    random_keep,
    silenced,
    traced,
)
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from zoo import NETWORKS, Network, import_zoo

from edgeprune.graph import GraphNetwork
from edgeprune.model import Model, load_saved, save_model
from edgeprune.program import may_take_any_size
from edgeprune.prune.surgery import apply
from edgeprune.resize import all_tensors

TOLERANCE = 1e-4
"""Largest difference between two ways to compute one output, as a share of its largest value; in float32."""
SEEN = 1e-3
"""A cut changes outputs by more than this; otherwise the comparison would see nothing."""
WHOLE = dict.fromkeys(
    ("timm:convnextv2_atto", "timm:convnextv2_femto"), "every block is normalised over all its channels"
)
"""CNNs of which no filter is free, and why."""
_QUICK = (
    "torchvision:squeezenet1_1 torchvision:mobilenet_v3_small torchvision:shufflenet_v2_x0_5 pyramid:resnet18 "
    "segmentation:lraspp_mobilenet_v3_large timm:test_resnet timm:resnext26ts timm:seresnet18 timm:resnetblur18 "
    "timm:resnest14d timm:regnetx_002 timm:dla46x_c timm:mobilenetv2_035 timm:mobilenetv4_conv_small_035 "
    "timm:ghostnet_050 timm:repvgg_a0 timm:mobileone_s0 timm:lcnet_050 timm:convnext_zepto_rms timm:fasternet_t0 "
    "timm:starnet_s050 timm:ese_vovnet19b_slim timm:tinynet_e timm:hgnetv2_b0 timm:mobilevit_xxs"
)
QUICK = frozenset(_QUICK.split())
"""One small network of each kind, tried in CI."""

MISSING = [library for library in ("torchvision", "timm") if importlib.util.find_spec(library) is None]
pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed (make zoo installs them)"),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A second thread has nothing to do on images this small, and waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outputs(module: nn.Module, images: Tensor) -> list[Tensor]:
    """The tensors that a network returns, in lists, tuples or dictionaries."""
    with torch.no_grad():
        return tree_leaves(module(images))


def difference(some: list[Tensor], others: list[Tensor]) -> float:
    """The largest difference of two outputs, as a share of the output's largest value."""
    assert [one.shape for one in some] == [other.shape for other in others]
    assert all(tensor.isfinite().all() for tensor in (*some, *others))
    return max(
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-30))
        for one, other in zip(some, others, strict=True)
    )


def cut(found: Traced, seed: int) -> tuple[Keep, Model]:
    keep = random_keep(found.channel_map, seed)
    return keep, apply(plan_of(found.channel_map, keep), found.channel_map, found.model)


def unlike_the_traced(model: Model, sizes: bool = True) -> list[Tensor]:
    """Images in numbers, and where the network takes such, of a size, that it was not traced with."""
    channels, height, width = model.input.shape
    if not sizes:
        return [noise(model, count=3)]
    larger = torch.randn(1, channels, height + 32, width + 64, generator=torch.Generator().manual_seed(2))
    try:
        outputs(model.module, larger)
    except (RuntimeError, AssertionError):
        return [noise(model, count=3)]
    return [noise(model, count=3), larger]


def assert_exact(found: Traced, pruned: Model, keep: Keep, sizes: bool = True) -> None:
    """The oracle of `nets.assert_exact`, for any outputs, images of another size, and plans that change something."""
    ignoring_them, silencing_them = ignoring(found, keep), silenced(found, keep)
    for images in unlike_the_traced(found.model, sizes):
        output, ignored = outputs(pruned.module, images), outputs(ignoring_them, images)
        assert difference(output, ignored) <= TOLERANCE
        assert difference(output, outputs(silencing_them, images)) <= TOLERANCE
        assert not keep or difference(ignored, outputs(found.model.module, images)) > SEEN


def assert_saved_and_loaded_equal(pruned: Model, folder: Path) -> None:
    save_model(pruned, folder)
    again = load_saved(folder)
    images = noise(pruned)
    pairs = zip(outputs(again.module, images), outputs(pruned.module, images), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def check(network: Network, folder: Path) -> None:
    found = traced(folded(network.model()))
    state = {name: (tensor, tensor.clone()) for name, tensor in all_tensors(found.model.module).items()}
    modules = dict(found.model.module.named_modules())
    for seed in (0, 1):
        keep, pruned = cut(found, seed)
        # Where positions are padded by amounts that follow from the images' size, a graph stands for one size alone.
        bound = network.transformer or not may_take_any_size(found.program)
        one_size = bound and isinstance(pruned.module, GraphNetwork)
        assert_exact(found, pruned, keep, sizes=not one_size)
        assert_attributes_are_true(pruned.module)
    assert dict(found.model.module.named_modules()) == modules
    assert {name: id(tensor) for name, tensor in all_tensors(found.model.module).items()} == {
        name: id(tensor) for name, (tensor, _) in state.items()
    }
    assert all(torch.equal(tensor, before) for tensor, before in state.values())
    free = [space.name for space in found.channel_map.spaces if not space.protected]
    assert network.transformer or bool(free) != (network.name in WHOLE)
    if network.rebuilt:
        assert_saved_and_loaded_equal(pruned, folder)


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.name in QUICK], ids=lambda network: network.name)
def test_one_network_of_each_kind_is_cut_exactly(network, tmp_path):
    check(network, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("network", [n for n in NETWORKS if n.name not in QUICK], ids=lambda network: network.name)
def test_a_network_is_cut_exactly(network, tmp_path):
    check(network, tmp_path)


def test_every_exception_names_a_network():
    assert QUICK | WHOLE.keys() <= {network.name for network in NETWORKS}


def test_the_zoo_has_every_classification_network_of_torchvision_and_many_cnns_of_timm():
    models = import_zoo()[0].models
    names = [network.name for network in NETWORKS]
    assert len(set(names)) == len(names)
    assert {name for name in names if name.startswith("torchvision:")} == {
        f"torchvision:{name}" for name in models.list_models(module=models)
    }
    assert sum(network.name.startswith("timm:") and not network.transformer for network in NETWORKS) >= 150
