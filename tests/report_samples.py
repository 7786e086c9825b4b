"""Hand-made reports for the tests of the report."""

import math

from edgeprune.artifact import Artifact, Parity
from edgeprune.course import BlockTime, Histogram
from edgeprune.data import InputSpec
from edgeprune.draw import Draw
from edgeprune.plan import Cost
from edgeprune.report.document import Report
from edgeprune.report.energy import Energy
from edgeprune.report.front import Candidate, Front
from edgeprune.report.parts import (
    Board,
    BudgetFacts,
    Costs,
    DataUse,
    Images,
    Layer,
    Machine,
    Method,
    Protected,
    RunFacts,
    SpeedUp,
    Stage,
    Subject,
    Timing,
)
from edgeprune.report.scores import Accuracy, Change, Step
from edgeprune.sustained import Steady, Sustained, SustainedFile

PLAN = "5f0c" * 16
MACHINE = Machine("AMD EPYC, 2 cores, x86_64", False, {"cpu": "AMD EPYC", "cores": 2, "machine": "x86_64"})
TITLE = "Raspberry Pi 4 Model B"


def artifact(role: str, kind: str) -> Artifact:
    pruned = role == "pruned"
    return Artifact(
        path=f"{role}.fp32.{kind}",
        sha256=("a1" if pruned else "b2") * 31 + ("01" if kind == "onnx" else "02"),
        bytes=8_612_345 if pruned else 13_912_345,
        role=role,
        format=kind,
        precision="fp32",
        input_shape=(3, 224, 224),
        layout="NCHW" if kind == "onnx" else "NHWC",
        macs=195_123_456 if pruned else 300_774_272,
        parameters=2_150_000 if pruned else 3_504_872,
        plan_fingerprint=PLAN if pruned else None,
        parity=Parity(32, 3.1e-6, 1.2e-6, 1.0, 1e-4, True),
        details={"opset": 20} if kind == "onnx" else {},
    )


METERED = Energy("ina3221:VDD_IN", "the whole board", 4.61, 9.87, 0.1431, 0.0763, "")


def histogram(p50: float) -> Histogram:
    counts = tuple(round(40 * math.exp(-(((at - 14) / 8) ** 2))) for at in range(60))
    return Histogram(round(0.96 * p50, 6), round(1.14 * p50, 6), counts)


def blocks(p50: float, start: float, throttled: bool) -> tuple[BlockTime, ...]:
    """Sixteen blocks of a board that warms up; throttled, the last eight of them are slow."""
    found = []
    for at in range(16):
        slow = throttled and at > 7
        hot = start >= 10 and at > 7
        milliseconds = round(p50 * (1 + 0.01 * math.sin(2.4 * at) + 0.4 * slow), 6)
        celsius, clock = round(47 + 2.2 * at, 1), 1000.0 if hot else 1800.0
        seconds = round(start + 0.28 * at, 3)
        found.append(BlockTime(at, seconds, milliseconds, celsius, clock, ("THROTTLED",) if slow else ()))
    return tuple(found)


def timing(role: str, runtime: str, threads: int, p50: float, trust: str = "ok", start: float = 0.0) -> Timing:
    spread = [p50 * (0.96 + 0.004 * at + (0.02 if at > 17 else 0)) for at in range(21)]
    return Timing(
        artifact=f"{role}.fp32.{'onnx' if runtime == 'onnxruntime' else 'tflite'}",
        runtime=runtime,
        runtime_version="1.22.1" if runtime == "onnxruntime" else "2.3.0",
        threads=threads,
        samples=400,
        p50_ms=p50,
        p90_ms=round(p50 * 1.055, 6),
        p99_ms=round(p50 * 1.14, 6),
        quantiles_ms=tuple(round(value, 6) for value in spread),
        load_ms=41.5,
        first_ms=round(p50 * 2, 6),
        peak_rss_bytes=112_000_000,
        device=MACHINE.name,
        trust=trust,
        histogram=histogram(p50),
        blocks=blocks(p50, start, trust != "ok"),
        energy=METERED if runtime == "onnxruntime" else None,
    )


def speed_up(runtime: str, threads: int, ratio: float, ci95: tuple[float, float], verdict: str) -> SpeedUp:
    kind = "onnx" if runtime == "onnxruntime" else "tflite"
    return SpeedUp(
        f"baseline.fp32.{kind}", f"pruned.fp32.{kind}", runtime, threads, ratio, ci95, verdict, 12, MACHINE.name, 0.021
    )


def heated(artifact: str, cold: float, speed_up: Steady | None) -> SustainedFile:
    """Ten minutes of a board that throttles after three."""
    course = tuple(
        BlockTime(
            at,
            5.0 * at,
            round(cold * (1.4 if at > 36 else 1.0), 6),
            min(45.0 + at, 82.0),
            1500.0 if at <= 36 else 1000.0,
        )
        for at in range(1, 120)
    )
    by_minute = tuple(round(cold * (1.4 if at > 2 else 1.0), 6) for at in range(10))
    return SustainedFile(artifact, cold, round(1.4 * cold, 6), by_minute, speed_up, course)


SUSTAINED = Sustained(
    device=MACHINE.name,
    runtime="onnxruntime",
    threads=2,
    seconds=600.0,
    throttled_s=185.0,
    sign="clock",
    evidence="the clock: 1500 to 1000 MHz",
    steady_from_s=400.0,
    still=True,
    temperature_c=tuple(min(57.0 + 12 * at, 82.0) for at in range(10)),
    clock_mhz=(1500.0,) * 3 + (1000.0,) * 7,
    files=(
        heated("baseline.fp32.onnx", 12.6, None),
        heated("pruned.fp32.onnx", 9.61, Steady(1.3111, (1.305, 1.3173), 97, 0.0067)),
    ),
)
FULL = Report(
    edgeprune_version="0.1.0",
    model=Subject(
        "mobilenet_v2_tf",
        "mobilenet_v2_tf",
        3_504_872,
        InputSpec((3, 224, 224), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "weights/mobilenet_v2.safetensors",
    ),
    target=Board("rpi4", TITLE, "aarch64", 8, ("The board has no power sensor: energy needs a meter outside it.",)),
    devices=(MACHINE,),
    data=DataUse(
        Images("photos.tar", 256),
        Images("photos.tar", 1044, ("class_3/broken|file.jpg",)),
        Draw(0, 1303, 256, 1046, 0, (7, 512)),
    ),
    criterion=Method("qsfm", {"measure": "ssim", "side": "after"}),
    recovery=Method("reconstruct", {"ridge": 0.001}),
    budget=BudgetFacts({"macs": 0.65}, {"macs": 0.6487}, PLAN),
    cost=Costs(Cost(300_774_272, 3_504_872, 9_633_792), Cost(195_123_456, 2_150_000, 7_200_000)),
    accuracy=Accuracy(
        "top1",
        1044,
        (
            Step("uncut", 0.779, 0.932),
            Step("cut", 0.004, 0.011, Change(-0.775, (-0.799, -0.749))),
            Step("norms", 0.513, 0.764, Change(-0.266, (-0.294, -0.238))),
            Step("reconstruction", 0.701, 0.889, Change(-0.078, (-0.099, -0.057)), kept=True),
        ),
    ),
    layers=(
        Layer("features.0.0", 32, 32),
        Layer("features.1.conv.0", 96, 56),
        Layer("features.2.conv.0", 144, 88),
        Layer("features.3.conv.0", 192, 120),
        Layer("features.18.0", 1280, 800),
    ),
    protected=(
        Protected("features.0.0", "tied to the network's input"),
        Protected("classifier", "is the network's output"),
    ),
    artifacts=tuple(artifact(role, kind) for kind in ("onnx", "tflite") for role in ("baseline", "pruned")),
    measurements=(
        timing("baseline", "onnxruntime", 1, 21.4),
        timing("pruned", "onnxruntime", 1, 16.3),
        timing("baseline", "onnxruntime", 2, 12.5, start=5.0),
        timing("pruned", "onnxruntime", 2, 9.54, start=5.1),
        timing("baseline", "litert", 1, 24.9, start=10.0),
        timing("pruned", "litert", 1, 24.7, "THROTTLED: 8 of 16 blocks", start=10.1),
    ),
    comparisons=(
        speed_up("onnxruntime", 1, 1.3124, (1.274, 1.351), "faster"),
        speed_up("onnxruntime", 2, 1.3102, (1.3031, 1.3172), "faster"),
        speed_up("litert", 1, 1.0081, (0.972, 1.044), "no significant difference"),
    ),
    sustained=(SUSTAINED,),
    run=RunFacts(
        command=(
            "edgeprune",
            "compress",
            "mobilenet_v2_tf",
            "--data",
            "my photos.tar",
            "--target",
            "rpi4",
            "--macs",
            "0.65",
        ),
        seed=0,
        created="2026-11-20T12:00:00+00:00",
        versions={"torch": "2.13.0", "onnxruntime": "1.22.1"},
        stages=(Stage("trace", 0.412), Stage("score", 41.3), Stage("recover", 95.2), Stage("bench", 61.0)),
        warnings=("Top-1 fell by 7.8 points: fine-tune the model, or remove less.",),
        notes=("No fine-tuning was done.",),
    ),
)


def tried(number: int, asked: float, precision: str, points: tuple[float, float, float], **more: object) -> Candidate:
    """A file that was tried: its change of accuracy in points with its interval; up to one point may be lost."""
    difference, low, high = (one / 100 for one in points)
    plan = PLAN if asked > 1 else ""
    change = Change(difference, (low, high))
    return Candidate(number, asked, plan, precision, 1 / asked**1.2, change, difference >= -0.01, **more)  # type: ignore


FRONT = Front(
    1.0,
    "top1",
    1000,
    "onnx",
    MACHINE.name,
    1,
    (
        tried(0, 1.0, "fp32", (0.0, 0.0, 0.0), measured=1.0, ci95=(1.0, 1.0)),
        tried(0, 1.0, "int8", (-0.4, -0.9, 0.1), measured=1.84, ci95=(1.81, 1.87), in_float=2),
        tried(1, 2.449, "fp32", (-0.9, -1.6, -0.2), foretold=2.45, measured=2.12, ci95=(2.06, 2.18)),
        tried(1, 2.449, "int8", (-4.1, -5.4, -2.8), measured=3.9, ci95=(3.8, 4.0)),
        tried(2, 1.565, "fp32", (-0.2, -0.8, 0.4), foretold=1.57, measured=1.46, ci95=(1.44, 1.48)),
        tried(2, 1.565, "int8", (-0.8, -1.5, -0.1), measured=2.61, ci95=(2.56, 2.66), in_float=3, chosen=True),
    ),
)
"""What --max-drop 1 tried; beside the sample report, not in it."""
