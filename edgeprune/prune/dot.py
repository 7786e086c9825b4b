"""dot: a Description as a drawing for Graphviz. Each space is a coloured frame; what is left whole is grey."""

from __future__ import annotations

from edgeprune.prune.describe import Description, LayerFacts, SpaceFacts

_PALETTE = ("#cfe2f3", "#d9ead3", "#fff2cc", "#fce5cd", "#ead1dc", "#d0e0e3")
_GREY, _LIGHT_GREY = "#c8c8c8", "#ececec"


def digraph(description: Description) -> str:
    """The layers and spaces of a model in Graphviz's language; draw it with `dot -Tsvg`.

    A frame is a space: inside it, the layers that make its filters, and those that only pass them on, on a dashed line.
    Dark grey spaces are protected, light grey ones left whole under this scope, the coloured ones are free.
    """
    places = {layer.name: f"layer{place}" for place, layer in enumerate(description.layers)}
    spaces = {space.name: f"space{place}" for place, space in enumerate(description.spaces)}
    lines = [
        f"digraph {quoted(description.model)} {{",
        '  node [shape=box style="filled" fillcolor="white" fontname="sans-serif"];',
        f"  image [label={quoted('image ' + 'x'.join(map(str, description.input)))} shape=ellipse];",
    ]
    for place, space in enumerate(description.spaces):
        inside = [layer for layer in description.layers if layer.gives == (space.name,)]
        lines += _frame(space, place, [(places[layer.name], layer) for layer in inside])
    lines += [
        f"  {places[layer.name]} [label={_label(layer)}];" for layer in description.layers if len(layer.gives) != 1
    ]
    for layer in description.layers:
        lines += _edges(layer, places[layer.name], spaces, description)
    return "\n".join([*lines, "}"])


def quoted(text: str) -> str:
    """A text as Graphviz reads it back unchanged, whatever characters it holds."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _frame(space: SpaceFacts, place: int, inside: list[tuple[str, LayerFacts]]) -> list[str]:
    colour = _GREY if space.protected else _LIGHT_GREY if space.left_whole else _PALETTE[place % len(_PALETTE)]
    about = f"{space.filters} filters\n{space.left_whole or 'free'}"
    return [
        f"  subgraph cluster{place} {{",
        f'    label={quoted(space.name)}; style="filled"; color="{colour}"; fontname="sans-serif";',
        f'    space{place} [label={quoted(about)} shape=ellipse fillcolor="{colour}"];',
        *(f"    {node} [label={_label(layer)}];" for node, layer in inside),
        "  }",
    ]


def _label(layer: LayerFacts) -> str:
    return quoted(f"{layer.name}\n{layer.macs:,} MACs")


def _edges(layer: LayerFacts, node: str, spaces: dict[str, str], description: Description) -> list[str]:
    makes = {space.name for space in description.spaces if layer.name in space.producers}
    passes_on = [name for name in layer.gives if name not in makes]
    lines = [f"  {spaces[name]} -> {node};" for name in layer.reads]
    lines += [f"  {node} -> {spaces[name]};" for name in layer.gives if name in makes]
    lines += [f"  {spaces[name]} -> {node} [style=dashed dir=none];" for name in passes_on]
    return lines if layer.reads or passes_on else [f"  image -> {node};", *lines]
