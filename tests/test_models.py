"""The networks in models/: what they compute, what they cost, and what real weights make of them."""

from __future__ import annotations

import io
import lzma
import os
import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgeprune.cards import known_models, read_card
from edgeprune.errors import ModelError
from edgeprune.imports import load_object
from edgeprune.model import Model, load_model
from edgeprune.registry import shipped

DATA = Path(os.environ.get("EDGEPRUNE_DATA", "../shared/data"))
NAMES = ["digits", "mobilenet_v2", "mobilenet_v2_tf", "resnet20", "resnet56", "vgg16_bn_cifar"]
# (MACs, parameters), counted by hand from the layers; the published counts agree where there are any.
COST = {
    "digits": (14_193_280, 223_306),
    "mobilenet_v2": (300_774_272, 3_504_872),
    "mobilenet_v2_tf": (300_774_272, 3_504_872),
    "resnet20": (40_551_040, 269_722),
    "resnet56": (125_485_696, 853_018),
    "vgg16_bn_cifar": (313_463_808, 14_991_946),
}


def real_file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name} in {DATA} (EDGEPRUNE_DATA)")
    return path


def macs_of(model: Model) -> int:
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    layers = [layer for layer in model.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model.module(torch.zeros(1, *model.input.shape))
    for hook in hooks:
        hook.remove()
    return total


def right(model: Model, images: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        found = [
            model.module(torch.from_numpy(model.input.normalise(images[start : start + 50]))).argmax(1)
            for start in range(0, len(images), 50)
        ]
    return float((torch.cat(found).numpy() == labels).mean())


def test_the_known_models_are_these():
    assert list(known_models()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_network_has_its_known_cost_and_its_card_s_classes(name: str):
    model = load_model(name)
    parameters = sum(parameter.numel() for parameter in model.module.parameters())
    assert (macs_of(model), parameters) == COST[name]
    with torch.no_grad():
        assert model.module(torch.zeros(3, *model.input.shape)).shape == (3, known_models()[name].classes)


@pytest.mark.parametrize(
    "name", ["digits", "resnet20", "vgg16_bn_cifar", pytest.param("mobilenet_v2_tf", marks=pytest.mark.slow)]
)
def test_a_network_is_exported_by_torch_with_a_free_batch_size(name: str):
    model = load_model(name)
    batch = torch.randn(2, *model.input.shape)
    shapes = ({0: torch.export.Dim("N")},)
    program = torch.export.export(model.module, (batch,), dynamic_shapes=shapes).module()
    more = torch.randn(5, *model.input.shape)
    torch.testing.assert_close(program(more), model.module(more), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_building_twice_gives_two_networks(name: str):
    first, second = load_model(name).module, load_model(name).module
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


def test_an_option_a_shortcut_takes_every_second_pixel_and_adds_zeros_on_both_sides():
    block = load_model("resnet20").module.layer2[0]
    x = torch.randn(1, 16, 8, 8)
    shortcut = block.shortcut(x)
    assert shortcut.shape == (1, 32, 4, 4)
    torch.testing.assert_close(shortcut[:, 8:24], x[:, :, ::2, ::2])
    assert shortcut[:, :8].abs().sum() == shortcut[:, 24:].abs().sum() == 0


def test_both_mobilenets_have_the_same_tensors_and_differ_in_padding_and_norm():
    torch_like, tf_like = load_model("mobilenet_v2").module, load_model("mobilenet_v2_tf").module
    tensors = torch_like.state_dict()
    assert {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in tf_like.state_dict().items()
    }
    tf_like.load_state_dict(tensors)
    stem, tf_stem = torch_like.features[0], tf_like.features[0]
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        by_hand = nn.functional.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), stem[0].weight, stride=2)
        torch.testing.assert_close(tf_stem[0](x), by_hand)
        torch.testing.assert_close(stem[0](x), nn.functional.conv2d(x, stem[0].weight, stride=2, padding=1))
    assert (stem[1].eps, tf_stem[1].eps) == (1e-5, 1e-3)


def test_the_demo_s_weights_are_small_and_right_on_images_they_have_never_seen():
    card = known_models()["digits"]
    assert card.weights.stat().st_size < 1_500_000
    images, labels = load_object(card.data, "data function")()
    assert right(load_model("digits"), images, labels) >= 0.985


def test_the_demo_s_data_are_a_fixed_disjoint_split_of_uint8_images():
    card = known_models()["digits"]
    (scored, labels), (trained, _) = (load_object(source, "data")() for source in (card.data, card.calibration_data))
    assert (scored.shape, trained.shape) == ((600, 8, 8, 1), (1197, 8, 8, 1))
    assert scored.dtype == np.uint8
    assert (scored.min(), scored.max()) == (0, 255)
    assert labels.dtype == np.int64
    assert not {image.tobytes() for image in scored} & {image.tobytes() for image in trained}
    again, _ = load_object(card.data, "data")()
    np.testing.assert_array_equal(scored, again)


def test_the_demo_s_card_holds_the_mean_and_std_of_its_training_images():
    card = known_models()["digits"]
    pixels = load_object(card.calibration_data, "data")()[0] / 255
    assert card.input.mean == (round(pixels.mean(), 3),)
    assert card.input.std == (round(pixels.std(), 3),)


@pytest.mark.slow
def test_the_training_script_makes_working_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(shipped("models")))
    script = runpy.run_path(str(shipped("models") / "train_digits.py"))
    script["main"].__globals__.update(EPOCHS=2, WEIGHTS=tmp_path / "new.safetensors")
    script["main"]()
    sys.modules.pop("digits")
    images, labels = load_object(known_models()["digits"].data, "data")()
    assert right(load_model("digits", weights=tmp_path / "new.safetensors"), images, labels) > 0.8
    assert [path.name for path in tmp_path.iterdir()] == ["new.safetensors"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("classes = 10", "", "classes is missing"),
        ("classes = 10", "clases = 10", "clases is not a key"),
        ("classes = 10", 'classes = "ten"', "classes is of the wrong kind"),
        ("mean = [0.306]", "mean = [0.306, 0.5]", "2 values of mean for 1 channels"),
        ("mean = [0.306]", "mean = [", "cannot read the model card"),
    ],
)
def test_a_wrong_card_is_named_with_its_key(tmp_path: Path, old: str, new: str, told: str):
    path = tmp_path / "mine.toml"
    path.write_text((shipped("models") / "digits.toml").read_text().replace(old, new))
    with pytest.raises(ModelError, match=told) as caught:
        read_card(path)
    assert caught.value.where == str(path)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "file", "bound"),
    [
        ("resnet20", "resnet20_cifar10_jpegft.safetensors", 0.8684),
        ("resnet56", "resnet56_cifar10_jpegft.safetensors", 0.8882),
    ],
)
def test_published_cifar_weights_are_as_right_as_published(name: str, file: str, bound: float):
    from PIL import Image

    weights = real_file(file)
    packed = np.load(io.BytesIO(lzma.decompress(real_file("cifar10_test_jpeg.npz.xz").read_bytes())))
    content, offsets = packed["jpeg"].tobytes(), packed["offsets"]
    chosen = np.random.RandomState(0).permutation(len(packed["labels"]))[:300]
    images = [Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]])).convert("RGB") for i in chosen]
    # Three standard errors of 300 images.
    assert abs(right(load_model(name, weights=weights), np.stack(images), packed["labels"][chosen]) - bound) < 0.06


@pytest.mark.data
@pytest.mark.slow
def test_tensorflow_s_mobilenet_weights_are_as_right_as_published():
    from PIL import Image

    weights = real_file("mobilenet_v2_1.0_224_imagenet.safetensors")
    with tarfile.open(real_file("imagenet_val1300_227.tar")) as tar:
        rows = [line.rsplit(" ", 1) for line in tar.extractfile("labels.txt").read().decode().splitlines()]
        rows = [rows[i] for i in np.random.RandomState(0).permutation(len(rows))[:300]]
        opened = [Image.open(io.BytesIO(tar.extractfile(path).read())).convert("RGB") for path, _ in rows]
        images = np.stack([np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)) for image in opened])
    labels = np.array([int(label) for _, label in rows])
    assert abs(right(load_model("mobilenet_v2_tf", weights=weights), images, labels) - 0.78) < 0.075


@pytest.mark.data
@pytest.mark.parametrize("name", ["resnet20", "resnet56", "mobilenet_v2_tf"])
def test_a_network_has_exactly_the_tensors_of_its_published_weights(name: str):
    file = {"mobilenet_v2_tf": "mobilenet_v2_1.0_224_imagenet"}.get(name, f"{name}_cifar10")
    published = load_file(real_file(f"{file}.safetensors"))
    built = load_model(name).module.state_dict()
    assert {key: value.shape for key, value in published.items()} == {key: value.shape for key, value in built.items()}
