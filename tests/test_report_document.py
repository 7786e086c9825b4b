import copy
import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import FULL, SUSTAINED

from edgeprune.artifact import Artifact
from edgeprune.course import BlockTime, Histogram
from edgeprune.errors import EdgepruneError, OutputError
from edgeprune.report.document import SCHEMA_FILE, Report
from edgeprune.report.energy import Energy
from edgeprune.report.parts import Layer, Method, SpeedUp, Timing
from edgeprune.report.scores import Accuracy, Change, Step
from edgeprune.sustained import Steady, SustainedFile

SCHEMA = json.loads(SCHEMA_FILE.read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

SHARE = st.floats(0, 1)
POSITIVE = st.floats(1e-6, 1e6)
WHOLE = st.integers(1, 10**12)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-9, 9) | TEXT | st.lists(TEXT, max_size=2))
METHODS = st.builds(Method, TEXT, PLAIN)
CHANGES = st.builds(Change, st.floats(-1, 1), st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted).map(tuple))
STEPS = st.builds(
    Step, st.sampled_from(["cut", "norms", "reconstruction"]), SHARE, st.none() | SHARE, st.none() | CHANGES
)


@st.composite
def scored(draw):
    names = draw(st.sampled_from([(), ("cut",), ("cut", "norms"), ("cut", "norms", "reconstruction", "distillation")]))
    kept = draw(st.sampled_from(names)) if names else ""
    steps = [replace(draw(STEPS), name=name, kept=name == kept) for name in names]
    uncut = Step("uncut", draw(SHARE), draw(st.none() | SHARE))
    return Accuracy(draw(st.sampled_from(["top1", "agreement"])), draw(st.integers(1, 10**6)), (uncut, *steps))


BLOCKS = st.builds(
    BlockTime,
    *[WHOLE, POSITIVE, POSITIVE, st.none() | POSITIVE, st.none() | POSITIVE],
    st.lists(TEXT, max_size=2).map(tuple),
)
TIMINGS = st.builds(
    Timing,
    threads=st.integers(1, 64),
    samples=WHOLE,
    quantiles_ms=st.just(()) | st.tuples(*[POSITIVE] * 21),
    warnings=st.lists(TEXT, max_size=2).map(tuple),
    **dict.fromkeys(("artifact", "runtime", "runtime_version", "device", "trust"), TEXT),
    **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "load_ms", "first_ms"), POSITIVE),
    peak_rss_bytes=WHOLE,
    histogram=st.none() | st.builds(Histogram, POSITIVE, POSITIVE, st.lists(WHOLE, max_size=3).map(tuple)),
    blocks=st.lists(BLOCKS, max_size=3).map(tuple),
    energy=st.none() | st.builds(Energy, TEXT, TEXT, *[st.none() | POSITIVE] * 4, TEXT),
)
STEADY = st.builds(Steady, POSITIVE, st.tuples(POSITIVE, POSITIVE), WHOLE, POSITIVE)
HEATED = st.builds(
    lambda one, files, **fields: replace(one, files=tuple(files), **fields),
    st.just(SUSTAINED),
    st.lists(
        st.builds(
            SustainedFile,
            *[TEXT, POSITIVE, POSITIVE, st.tuples(*[st.none() | POSITIVE] * 10), st.none() | STEADY],
            st.lists(BLOCKS, min_size=1, max_size=3).map(tuple),
        ),
        min_size=1,
        max_size=3,
    ),
    **dict.fromkeys(("device", "runtime", "evidence", "trust"), TEXT),
    throttled_s=st.none() | POSITIVE,
    sign=st.sampled_from(["bits", "clock", "times", ""]),
    still=st.booleans(),
    temperature_c=st.tuples(*[st.none() | POSITIVE] * 10),
)
SPEED_UPS = st.builds(
    SpeedUp,
    **dict.fromkeys(("baseline", "candidate", "runtime", "device"), TEXT),
    detectable=st.floats(0, 10),
    threads=st.integers(1, 64),
    ratio=POSITIVE,
    ci95=st.tuples(POSITIVE, POSITIVE).map(lambda ends: (min(ends), max(ends))),
    verdict=st.sampled_from(["faster", "slower", "no significant difference"]),
    rounds=st.integers(0, 1000),
)
ARTIFACTS = st.builds(
    lambda path, one, parity: replace(one, path=path, parity=one.parity if parity else None),
    TEXT,
    st.sampled_from(FULL.artifacts),
    st.booleans(),
)


@st.composite
def reports(draw):
    return replace(
        FULL,
        criterion=draw(METHODS),
        recovery=draw(METHODS),
        accuracy=draw(st.none() | scored()),
        layers=tuple(draw(st.lists(st.builds(Layer, TEXT, WHOLE, WHOLE), max_size=3))),
        artifacts=tuple(draw(st.lists(ARTIFACTS, max_size=2))),
        measurements=tuple(draw(st.lists(TIMINGS, max_size=2))),
        comparisons=tuple(draw(st.lists(SPEED_UPS, max_size=2))),
        sustained=tuple(draw(st.lists(HEATED, max_size=2))),
        run=replace(FULL.run, command=tuple(draw(st.lists(TEXT, max_size=3))), seed=draw(st.integers())),
    )


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@settings(deadline=None, max_examples=50)
@given(reports())
def test_any_report_survives_json_and_fits_the_schema(report):
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    VALIDATOR.validate(document)
    assert Report.from_json(document) == report


@settings(deadline=None, max_examples=25)
@given(reports())
def test_any_report_can_be_drawn(report):
    from edgeprune.report.render import RENDERERS

    for name in RENDERERS.rows:
        assert RENDERERS.load(name)(report).endswith("\n")


def _objects(schema, where="#"):
    if isinstance(schema, dict):
        if schema.get("type") == "object" or "properties" in schema:
            yield where, schema
        for key, part in schema.items():
            yield from _objects(part, f"{where}/{key}")
    elif isinstance(schema, list):
        for at, part in enumerate(schema):
            yield from _objects(part, f"{where}/{at}")


def test_every_object_of_the_schema_is_closed_and_every_field_described():
    found = list(_objects(SCHEMA))
    assert len(found) > 20
    for where, schema in found:
        if "properties" in schema and not where.endswith("properties"):
            assert schema["additionalProperties"] is False, where
            for name, part in schema["properties"].items():
                assert part["description"], f"{where}/{name}"


@pytest.mark.parametrize("path", ["surplus", "model.surplus", "cost.pruned.surplus"])
def test_the_schema_and_the_reader_refuse_unknown_fields(path):
    document = copy.deepcopy(FULL.to_json())
    *way, last = path.split(".")
    place = document
    for name in way:
        place = place[name]
    place[last] = 1
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(EdgepruneError, match=rf"not known\nreport\.{path}"):
        Report.from_json(document)


@pytest.mark.parametrize("field", ["layers", "seed", "accuracy", "target"])
def test_a_missing_field_is_named(field):
    document = FULL.to_json()
    del document[field]
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(EdgepruneError, match=field):
        Report.from_json(document)


def test_a_field_of_another_type_is_named():
    document = FULL.to_json()
    document["measurements"][1]["threads"] = "two"
    with pytest.raises(EdgepruneError, match=r"measurements\[1\]\.threads"):
        Report.from_json(document)


def test_an_unknown_verdict_is_refused():
    document = FULL.to_json()
    document["comparisons"][0]["verdict"] = "great"
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(EdgepruneError, match="faster"):
        Report.from_json(document)


def test_the_fields_that_the_schema_promises_are_there():
    document = FULL.to_json()
    assert document["schema"] == 1
    assert {"name", "parameters", "input"} <= document["model"].keys()
    assert {"metric", "images", "baseline", "after_cut", "after_recovery"} <= document["accuracy"].keys()
    assert {"path", "role", "format", "precision", "bytes", "sha256", "parity"} <= document["artifacts"][0].keys()
    assert {"max_abs", "top1_agreement", "passed"} <= document["artifacts"][0]["parity"].keys()
    assert document["layers"][1] == {"name": "features.1.conv.0", "before": 96, "after": 56}
    assert document["comparisons"][0]["ci95"] == [1.274, 1.351]
    assert document["stages"][0] == {"name": "trace", "seconds": 0.412}


def test_the_artifacts_of_a_report_are_those_of_the_manifests():
    document = FULL.to_json()["artifacts"][0]
    assert Artifact.from_json(document) == FULL.artifacts[0]


@pytest.mark.parametrize(
    ("share", "images", "interval"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81 / 263, 263, (0.2553, 0.3662)),
        (15 / 148, 148, (0.0624, 0.1605)),
        (0.0, 20, (0.0, 0.1611)),
        (1 / 29, 29, (0.0061, 0.1718)),
    ],
)
def test_the_interval_of_a_share_is_wilsons(share, images, interval):
    assert Accuracy("top1", images, (Step("uncut", share),)).ci95(share) == pytest.approx(interval, abs=5e-5)


def test_agreement_of_the_uncut_model_has_no_interval():
    agreement = replace(FULL.accuracy, metric="agreement")
    assert set(replace(FULL, accuracy=agreement).to_json()["accuracy"]["ci95"]) == {"after_cut", "after_recovery"}


def test_what_is_derived_of_the_steps_stands_beside_them():
    told = FULL.to_json()["accuracy"]
    assert (told["baseline"], told["after_cut"], told["after_recovery"]) == (0.779, 0.004, 0.701)
    assert told["top5"] == {"baseline": 0.932, "after_cut": 0.011, "after_recovery": 0.889}
    assert told["changes"]["after_recovery"] == {"difference": -0.078, "ci95": [-0.099, -0.057]}


def test_where_the_model_as_cut_is_kept_nothing_counts_as_recovered():
    steps = [replace(step, kept=step.name == "cut") for step in FULL.accuracy.steps]
    told = replace(FULL, accuracy=replace(FULL.accuracy, steps=tuple(steps))).to_json()["accuracy"]
    assert (told["after_cut"], told["after_recovery"]) == (0.004, None)


@pytest.mark.parametrize("recovered", [True, False])
def test_a_report_from_before_the_steps_were_told_can_still_be_read(recovered):
    document = FULL.to_json()
    told = document["accuracy"]
    del told["steps"]
    if not recovered:
        told["after_recovery"] = None
    VALIDATOR.validate(document)
    uncut, cut, *more = Report.from_json(document).accuracy.steps
    assert (uncut, replace(cut, kept=False)) == FULL.accuracy.steps[:2]
    assert more == ([replace(FULL.accuracy.steps[-1], name="recovery")] if recovered else [])
    assert cut.kept is not recovered


def test_a_saved_report_can_be_loaded(tmp_path):
    assert {path.name for path in FULL.save(tmp_path)} == {"report.json", "report.md", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md", "report.html"}
    assert Report.load(tmp_path / "report.json") == FULL


def test_where_one_file_cannot_be_written_none_is(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OutputError):
        FULL.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_report_of_another_schema_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({**FULL.to_json(), "schema": 2}))
    with pytest.raises(EdgepruneError, match="schema 1"):
        Report.load(path)
