"""What may be cut of a model: numbers, reasons and a drawing, without images or weights."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from program_runs import Tiny, fault, run_here

from edgeprune.channels import ChannelMap
from edgeprune.errors import UsageError
from edgeprune.inspection import inspect
from edgeprune.model import Model, load_model
from edgeprune.plan import Budget, Cost
from edgeprune.program import capture
from edgeprune.prune.allocate import Scope, Scored, allocate
from edgeprune.prune.cost import cost
from edgeprune.prune.describe import Description, LayerFacts, Named, SpaceFacts, describe
from edgeprune.prune.dot import digraph, quoted
from edgeprune.prune.trace import trace
from edgeprune.request import Request
from edgeprune.terminal import print_description

MODELS = {"digits": None, "resnet20": None, "mobilenet_v2": (3, 96, 96)}
GREYS = {"#c8c8c8", "#ececec"}


@pytest.fixture(scope="module")
def traced() -> dict[str, tuple[Model, ChannelMap, Cost]]:
    """The three networks, each traced once."""
    found = {}
    for name, shape in MODELS.items():
        model = load_model(name, input_shape=shape)
        program = capture(model.module, model.input.shape)
        channel_map = trace(program)
        found[name] = model, channel_map, cost(program, channel_map, model.module)
    return found


@pytest.fixture(scope="module")
def described(traced) -> dict[str, Description]:
    """The three networks under the default scope."""
    return {name: under(traced[name], "inner") for name in MODELS}


def under(traced: tuple[Model, ChannelMap, Cost], scope: Scope) -> Description:
    model, channel_map, its_cost = traced
    return describe(Named(model.name, model.source, model.input.shape), channel_map, its_cost, scope)


def awkward() -> Description:
    """A model whose names hold what a drawing's language and a table's markup use themselves."""
    name = 'a "b\\c" [red]{d}\n->'
    return Description(
        model=name,
        source=name,
        input=(3, 8, 8),
        scope="inner",
        fingerprint="",
        cost=Cost(1, 1, 1),
        free_macs_share=0.0,
        spaces=(SpaceFacts(name, 4, (name,), (), True, 'because "so"', 1.0),),
        layers=(LayerFacts(name, 1, (), (name,)),),
    )


# The numbers


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scope", ["inner", "all"])
def test_exactly_the_spaces_said_to_be_free_are_cut_and_lose_filters(traced, name, scope):
    found, channel_map = under(traced[name], scope), traced[name][1]
    free = {space.name: space.filters for space in found.spaces if not space.left_whole}
    scored = Scored("none", {}, {space: torch.arange(float(size)) for space, size in free.items()})
    plan = allocate(channel_map, scored, Budget(ratio=0.5), multiple=1)
    assert found.fingerprint == plan.model
    assert {space.name: space.filters for space in found.spaces} == plan.sizes
    assert found.free == sum(plan.sizes[space] for space in plan.keep)
    assert all(2 * len(kept) == plan.sizes[space] for space, kept in plan.keep.items())


def test_resnet20_is_free_inside_its_nine_blocks(described):
    found = described["resnet20"]
    free = [space for space in found.spaces if not space.left_whole]
    assert [space.filters for space in free] == [16] * 3 + [32] * 3 + [64] * 3
    assert all(re.fullmatch(r"layer\d\.\d\.conv1", space.name) for space in free)
    assert found.free == 336 < found.filters


def test_tied_layers_are_one_space_with_its_readers_and_its_reason(described):
    stem = described["digits"].spaces[0]
    assert stem.producers == ("conv", "blocks.0.conv2", "blocks.1.conv2", "blocks.2.conv2")
    assert stem.consumers == ("blocks.0.conv1", "blocks.1.conv1", "blocks.2.conv1", "linear")
    assert "shared by 4 layers" in stem.left_whole
    assert not stem.protected  # --scope all cuts it


def test_what_no_scope_may_cut_is_protected_under_both(traced):
    for scope in ("inner", "all"):
        protected = [space for space in under(traced["digits"], scope).spaces if space.protected]
        assert [(space.name, space.left_whole) for space in protected] == [("linear", "network output")]


def test_scope_all_frees_more_of_mobilenet_than_inner(traced, described):
    wide = under(traced["mobilenet_v2"], "all")
    assert described["mobilenet_v2"].free == 8416
    assert wide.free == wide.filters - 1000
    assert {space.left_whole for space in wide.spaces} == {"", "network output"}


def test_a_depthwise_layer_passes_on_the_filters_of_the_space_it_reads(described):
    layers = {layer.name: layer for layer in described["mobilenet_v2"].layers}
    assert layers["features.0.0"] == LayerFacts("features.0.0", 3 * 9 * 32 * 48 * 48, (), ("features.0.0",))
    assert layers["features.1.conv.0.0"] == LayerFacts("features.1.conv.0.0", 9 * 32 * 48 * 48, (), ("features.0.0",))
    assert layers["features.1.conv.1"].reads == ("features.0.0",)


@pytest.mark.parametrize("name", MODELS)
def test_layers_share_out_the_cost_and_a_space_counts_what_makes_and_reads_it(described, name):
    found = described[name]
    assert sum(layer.macs for layer in found.layers) == found.cost.macs
    for space in found.spaces:
        touching = [layer for layer in found.layers if space.name in (*layer.reads, *layer.gives)]
        share = sum(layer.macs for layer in touching) / found.cost.macs
        if any(len(one) > 1 for layer in touching for one in (layer.reads, layer.gives)):
            assert 0 < space.macs_share < share * (1 + 1e-9)  # layers have other filters, too
        else:
            assert space.macs_share == pytest.approx(share)
    free = {space.name for space in found.spaces if not space.left_whole}
    touching = sum(layer.macs for layer in found.layers if free & {*layer.reads, *layer.gives})
    assert found.free_macs_share == pytest.approx(touching / found.cost.macs)


def test_weights_play_no_part(tiny: Tiny):
    with_weights = Request(model=tiny.net, input_shape=(1, 8, 8), weights=tiny.weights)
    assert inspect(with_weights) == inspect(Request(model=tiny.net, input_shape=(1, 8, 8)))


def test_an_unknown_scope_is_refused_from_python_too():
    with pytest.raises(UsageError, match="unknown --scope 'outer'"):
        inspect(Request(model="digits", scope="outer"))


# The command


def test_json_is_one_document_and_nothing_else(described):
    ran = run_here("inspect", "digits", "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["schema"]) == (0, 1)
    assert document == json.loads(json.dumps(described["digits"].to_json()))
    assert set(document) == {
        *("schema", "model", "source", "input", "scope", "fingerprint", "cost", "filters", "free", "free_macs_share"),
        *("spaces", "layers"),
    }
    assert set(document["cost"]) == {"macs", "parameters", "peak_activation_bytes"}
    assert set(document["layers"][0]) == {"name", "macs", "reads", "gives"}
    assert set(document["spaces"][0]) == {
        *("name", "filters", "groups", "channels_each", "producers", "consumers"),
        *("protected", "left_whole", "macs_share"),
    }


def test_the_table_fits_80_columns_and_ends_with_one_plain_sentence(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ran = run_here("inspect", "mobilenet_v2", "--input", "3x96x96")
    assert ran.code == 0, ran.err
    assert max(map(len, ran.out.splitlines())) <= 80
    said = " ".join(ran.out.split())
    assert said.startswith("mobilenet_v2, 3x96x96: 56,289,152 MACs, 3,504,872 parameters, ")
    assert "8,416 of 10,128 filters are free in 18 spaces" in said
    assert said.endswith("8 spaces are left whole.")


def test_names_and_reasons_are_printed_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    print_description(awkward().to_json(), as_json=False)
    out = capsys.readouterr().out
    assert out.count('a "b\\c" [red]{d}') == 2
    assert 'because "so"' in out
    assert out.endswith(
        "0 of 4 filters are free in 0 spaces (0.0% of the MACs make or read them); 1 space is left whole.\n"
    )


def test_a_model_of_the_users_own_needs_neither_weights_nor_images(tiny: Tiny):
    ran = run_here("inspect", tiny.net, "--input", "1x8x8")
    assert ran.code == 0, ran.err
    assert "warning" not in ran.err
    assert "64 of 68 filters are free in 2 spaces" in " ".join(ran.out.split())
    assert " ".join(ran.out.split()).endswith("1 space is left whole.")


def test_a_model_that_prints_does_not_spoil_the_document(tmp_path: Path, tiny: Tiny):
    heading = "def forward(self, x):"
    loud = (tiny.folder / "net.py").read_text().replace(heading, f"{heading}\n        print('loud')")
    (tmp_path / "loud.py").write_text(loud)
    ran = run_here("inspect", f"{tmp_path / 'loud.py'}:build", "--input", "1x8x8", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["model"] == "loud"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnet65",), ("unknown model 'resnet65'", "Did you mean 'resnet56'?")),
        (("digits", "--scope", "outer"), ("unknown --scope 'outer'", "inner")),
        (("digits", "--input", "224"), ("--input", "3x224x224")),
        (("digits", "--json", "--dot"), ("exclude each other",)),
        (("digits", "--weights", "gone.safetensors"), ("gone.safetensors",)),
        ((), ("Missing argument", "--help")),
    ],
)
def test_a_fault_of_the_user_is_named_with_what_to_do(arguments, said):
    fault(run_here("inspect", *arguments), 2, *said)


def test_a_model_of_the_users_own_needs_its_input_size(tiny: Tiny):
    fault(run_here("inspect", tiny.net), 2, "input size", "--input")


def test_a_model_that_cannot_be_traced_is_refused_with_the_line_named(tiny: Tiny):
    line = (tiny.folder / "net.py").read_text().splitlines().index("        if x.sum() > 0:") + 1
    ran = run_here("inspect", tiny.net.replace(":build", ":Undecided"), "--input", "1x8x8")
    fault(ran, 2, "cannot be traced", f'net.py", line {line}')


# The drawing


@pytest.mark.parametrize("name", MODELS)
def test_the_drawing_has_a_node_for_each_layer_and_a_frame_for_each_space(described, name):
    found, text = described[name], digraph(described[name])
    labels = re.findall(r'^ +layer\d+ \[label="(.+?)\\n[\d,]+ MACs"\];$', text, re.MULTILINE)
    assert sorted(labels) == sorted(layer.name for layer in found.layers)
    frames = re.findall(r'^    label="(.+?)"; style="filled"; color="(.+?)"', text, re.MULTILINE)
    assert {frame: colour in GREYS for frame, colour in frames} == {
        space.name: bool(space.left_whole) for space in found.spaces
    }


def test_edges_run_from_producers_through_their_space_to_consumers(described):
    found = described["digits"]
    text = digraph(found)
    node = {layer.name: f"layer{place}" for place, layer in enumerate(found.layers)}
    edges = set(re.findall(r"^  (\w+) -> (\w+);$", text, re.MULTILINE))
    wanted = {("image", node["conv"])}
    for place, space in enumerate(found.spaces):
        wanted |= {(node[name], f"space{place}") for name in space.producers}
        wanted |= {(f"space{place}", node[name]) for name in space.consumers}
    assert edges == wanted


def test_a_depthwise_layer_hangs_on_a_dashed_line_and_not_on_the_image(described):
    text = digraph(described["mobilenet_v2"])
    assert "  space0 -> layer1 [style=dashed dir=none];" in text
    assert re.findall(r"image -> (\w+);", text) == ["layer0"]


def test_names_are_escaped():
    assert quoted('a"b\\c\nd') == r'"a\"b\\c\nd"'
    text = digraph(awkward())
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)  # what stands outside of quotes
    assert '"' not in bare
    assert "[red]" not in bare
    assert r"because \"so\"" in text


def test_dot_prints_the_drawing_and_nothing_else(described):
    ran = run_here("inspect", "digits", "--dot")
    assert (ran.code, ran.out) == (0, digraph(described["digits"]) + "\n")


@pytest.mark.parametrize("name", ["awkward", *MODELS])
def test_graphviz_draws_it(described, name):
    dot = shutil.which("dot")
    if dot is None:
        pytest.skip("graphviz is not installed")
    text = digraph(awkward() if name == "awkward" else described[name])
    done = subprocess.run([dot, "-Tsvg"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "</svg>" in done.stdout
