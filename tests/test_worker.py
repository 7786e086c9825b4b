"""The worker as the board sees it: a zip file, a job, and lines of JSON."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from bare_python import bare_python
from onnx import TensorProto, helper

import edgeprune.worker
from edgeprune.bench.transport import pack_worker
from edgeprune.worker import conduct, schedule, sensors, serve, taint

GOLDEN = sorted((Path(__file__).parent / "golden" / "sensors").glob("*.json"))


def write_onnx(path: Path, channels: int = 8, layers: int = 2) -> Path:
    """Convolutions of 3x3 on 3x16x16 images; weights are seeded."""
    rng = np.random.default_rng(0)
    weights, nodes, width, flow = [], [], 3, "x"
    for i in range(layers):
        values = 0.1 * rng.standard_normal((channels, width, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{i}"))
        nodes.append(helper.make_node("Conv", [flow, f"w{i}"], [f"t{i}"], pads=[1, 1, 1, 1]))
        width, flow = channels, f"t{i}"
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])
    sink = helper.make_tensor_value_info(flow, TensorProto.FLOAT, ["N", channels, 16, 16])
    graph = helper.make_graph(nodes, "net", [source], [sink], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def a_job(folder: Path, models: list[Path], **changes) -> dict:
    np.save(folder / "inputs.npy", np.random.default_rng(1).random((2, 3, 16, 16), dtype=np.float32))
    entries = [{"id": m.stem, "path": str(m), "runtime": "onnxruntime", "threads": 1, "layout": "NCHW"} for m in models]
    return {
        "schema": conduct.SCHEMA,
        "entries": entries,
        "inputs": str(folder / "inputs.npy"),
        "rounds": 3,
        "repeats": 0,
        "seconds": 0.0,
        "energy": False,
        "fresh": True,
        "block_seconds": 0.005,
        "warm_up": {"at_least": 3, "limit_seconds": 0.3, "tolerance": 0.02},
        "patience_seconds": 60,
        "seed": 0,
        **changes,
    }


def a_load(folder: Path) -> dict:
    """What a child is told to load."""
    job = a_job(folder, [write_onnx(folder / "a.onnx")])
    return conduct._loaded(job["entries"][0], job)


@pytest.fixture
def archive(tmp_path) -> Path:
    pack_worker(tmp_path / "worker.pyz")
    return tmp_path / "worker.pyz"


def run_worker(program: list[str], job: dict, folder: Path) -> tuple[int, list[dict]]:
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [*program, str(folder / "job.json")], capture_output=True, text=True, timeout=120, cwd=folder, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_each_entry_gets_ready_and_then_every_round(tmp_path, archive):
    models = [write_onnx(tmp_path / "a.onnx"), write_onnx(tmp_path / "b.onnx", channels=16)]
    code, events = run_worker([sys.executable, str(archive)], a_job(tmp_path, models), tmp_path)
    assert code == 0
    assert [event["event"] for event in events] == ["start", "ready", "ready", *["block"] * 6, "end"]
    for ready in events[1:3]:
        assert ready["load_ns"] > 0
        assert ready["first_ns"] > 0
        assert ready["warm_up"]["calls"] >= 3
    blocks = events[3:-1]
    assert sorted((block["round"], block["entry"]) for block in blocks) == [(r, e) for r in range(3) for e in "ab"]
    assert all(len(block["samples_ns"]) >= 3 and min(block["samples_ns"]) > 0 for block in blocks)
    assert all(block["peak_rss_bytes"] > 1 << 20 for block in blocks)
    started = [block["started_s"] for block in blocks]
    assert started == sorted(set(started))
    spent = [started[at] + sum(block["samples_ns"]) / 1e9 for at, block in enumerate(blocks)]
    assert all(end < begin for end, begin in zip(spent, started[1:], strict=False)), "blocks do not overlap"


def test_the_output_is_the_models_on_the_first_image(tmp_path, archive):
    import hashlib

    import onnxruntime

    model = write_onnx(tmp_path / "a.onnx")
    job = a_job(tmp_path, [model])
    _, events = run_worker([sys.executable, str(archive)], job, tmp_path)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": np.load(job["inputs"])[:1]})[0]
    assert events[1]["output_sha256"] == hashlib.sha256(expected.tobytes()).hexdigest()
    assert events[1]["runtime_version"] == onnxruntime.__version__


def test_it_runs_as_a_module_too(tmp_path):
    program = [sys.executable, "-m", "edgeprune.worker"]
    job = a_job(tmp_path, [write_onnx(tmp_path / "a.onnx")], rounds=1)
    (tmp_path / "job.json").write_text(json.dumps(job))
    root = Path(edgeprune.worker.__file__).parents[2]
    done = subprocess.run(
        [*program, tmp_path / "job.json"], capture_output=True, text=True, timeout=120, cwd=root, check=True
    )
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["start", "ready", "block", "end"]


@pytest.mark.slow
def test_the_archive_needs_nothing_but_numpy_and_the_runtime(tmp_path, archive):
    python = bare_python(tmp_path / "bare", "numpy", "onnxruntime")
    code, events = run_worker(
        [str(python), str(archive)], a_job(tmp_path, [write_onnx(tmp_path / "a.onnx")], rounds=1), tmp_path
    )
    assert code == 0, events
    assert events[-1]["event"] == "end"


def test_a_python_without_numpy_is_told_by_name(tmp_path, archive):
    code, events = run_worker([sys.executable, "-S", "-E", str(archive)], a_job(tmp_path, [tmp_path / "a"]), tmp_path)
    assert code == 1
    assert (events[-1]["event"], events[-1]["missing"]) == ("error", "numpy")
    code, events = run_worker([sys.executable, "-S", "-E", str(archive)], a_job(tmp_path, []), tmp_path)
    assert (code, [event["event"] for event in events]) == (0, ["start", "end"])


def test_the_workers_sources_are_python_3_9_and_import_nothing_else_of_edgeprune():
    allowed = sys.stdlib_module_names | {"numpy", "onnxruntime", "ai_edge_litert", "PIL"}
    for source in Path(edgeprune.worker.__path__[0]).glob("*.py"):
        tree = ast.parse(source.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("edgeprune.worker"), (
                    f"{source.name} imports {name}"
                )


def test_a_file_the_runtime_refuses_is_an_error_event_that_names_it(tmp_path, archive):
    good, bad = write_onnx(tmp_path / "good.onnx"), tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    code, events = run_worker([sys.executable, str(archive)], a_job(tmp_path, [good, bad]), tmp_path)
    assert code == 1
    assert (events[-1]["event"], events[-1]["entry"]) == ("error", "bad")
    assert "InvalidProtobuf" in events[-1]["reason"]


def test_a_runtime_that_is_unknown_is_told_before_anything_runs(tmp_path, archive):
    job = a_job(tmp_path, [write_onnx(tmp_path / "a.onnx")])
    job["entries"].append({**job["entries"][0], "id": "b", "runtime": "tensorrt"})
    code, events = run_worker([sys.executable, str(archive)], job, tmp_path)
    assert code == 1
    assert [event["event"] for event in events] == ["start", "error"]
    assert "tensorrt" in events[-1]["reason"]


def test_a_job_of_another_schema_is_an_error_event(tmp_path, archive):
    code, events = run_worker([sys.executable, str(archive)], {"schema": 99}, tmp_path)
    assert code == 1
    assert "schema" in events[-1]["reason"]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids: list[int], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(is_alive(pid) for pid in pids)


@pytest.fixture
def long_run(tmp_path, archive):
    """A worker in the middle of its blocks, with its children's ids."""
    models = [write_onnx(tmp_path / "a.onnx"), write_onnx(tmp_path / "b.onnx")]
    (tmp_path / "job.json").write_text(json.dumps(a_job(tmp_path, models, rounds=100_000)))
    argv = [sys.executable, archive, "--attached", tmp_path / "job.json"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if '"block"' in line:
                break
        yield process, children_of(process.pid)
        process.kill()


def test_one_process_an_entry(long_run):
    assert len(long_run[1]) == 2


@pytest.mark.parametrize("how", ["input closed", "terminated", "killed", "killed while its children hang"])
def test_no_process_outlives_the_worker(long_run, how):
    process, children = long_run
    if how == "input closed":
        process.stdin.close()
    elif how == "killed while its children hang":
        for child in children:
            os.kill(child, signal.SIGSTOP)
        process.kill()
    else:
        process.send_signal(signal.SIGTERM if how == "terminated" else signal.SIGKILL)
    assert wait_until_gone([process.pid, *children])


def test_a_child_that_is_killed_is_named_with_its_signal(long_run):
    process, children = long_run
    os.kill(children[1], signal.SIGSEGV)
    error = json.loads(process.stdout.read().splitlines()[-1])
    assert (error["event"], error["entry"]) == ("error", "b")
    assert "SIGSEGV" in error["reason"]


def test_a_child_that_hangs_is_given_up(tmp_path, archive):
    models = [write_onnx(tmp_path / "a.onnx")]
    job = a_job(tmp_path, models, rounds=100_000, patience_seconds=3)
    (tmp_path / "job.json").write_text(json.dumps(job))
    argv = [sys.executable, archive, tmp_path / "job.json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        next(line for line in process.stdout if '"block"' in line)
        (child,) = children_of(process.pid)
        os.kill(child, signal.SIGSTOP)
        error = json.loads(process.stdout.read().splitlines()[-1])
    assert "no answer to 'load' within 3 s" in error["reason"]  # what is timed is its fork, and ends by itself
    assert wait_until_gone([child])


def test_each_load_is_a_process_of_its_own_that_ends_when_it_is_released(tmp_path):
    loads = a_load(tmp_path)
    with conduct.Child("a", patience_seconds=60) as child:
        forks = []
        for _ in range(2):
            assert child.ask("load", **loads)["load_ns"] > 0
            forks += children_of(child._process.pid)
            assert len(child.ask("block", seconds=0.01)["samples_ns"]) >= 3
            child.ask("release")
        assert len(set(forks)) == 2
        assert wait_until_gone(forks)
        child.ask("load", **loads)
        (last,) = children_of(child._process.pid)
    assert wait_until_gone([last])


def test_what_kills_the_process_that_is_timed_is_told(tmp_path):
    loads = a_load(tmp_path)
    with conduct.Child("a", patience_seconds=60) as child:
        child.ask("load", **loads)
        (fork,) = children_of(child._process.pid)
        os.kill(fork, signal.SIGKILL)
        with pytest.raises(conduct.EntryError, match="was killed by SIGKILL") as caught:
            child.ask("block", seconds=0.01)
    assert "memory" in caught.value.fix


def test_a_file_that_cannot_be_loaded_is_told_and_the_next_can(tmp_path):
    loads = a_load(tmp_path)
    with conduct.Child("a", patience_seconds=60) as child:
        with pytest.raises(conduct.EntryError, match="missing"):
            child.ask("load", **{**loads, "path": str(tmp_path / "missing.onnx")})
        child.ask("release")
        assert child.ask("load", **loads)["load_ns"] > 0


def test_nothing_a_killed_child_wrote_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = "import tempfile; tempfile.mkdtemp(); input(); print('{}', flush=True); input()"
    monkeypatch.setattr(conduct, "_program", lambda: [sys.executable, "-c", program])
    with conduct.Child("a", patience_seconds=60) as child:
        child.ask("block")
        (own,) = (path for path in tmp_path.iterdir() if path.is_dir())
        assert len(list(own.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_orders_are_mirrored_in_pairs_and_random_between_them():
    orders = [order for _, order in islice(schedule.turns("abcd", seed=1), 40)]
    assert all(sorted(order) == list("abcd") for order in orders)
    assert all(orders[i + 1] == orders[i][::-1] for i in range(0, 40, 2))
    assert len({tuple(order) for order in orders}) > 8
    assert orders == [order for _, order in islice(schedule.turns("abcd", seed=1), 40)]


def test_entries_of_one_runtime_and_thread_count_are_a_group():
    rows = [("a", "x", 1), ("b", "y", 1), ("c", "x", 1), ("d", "x", 4)]
    found = schedule.groups([{"id": name, "runtime": runtime, "threads": threads} for name, runtime, threads in rows])
    assert [[entry["id"] for entry in group] for group in found] == [["a", "c"], ["b"], ["d"]]


BUSY, CLEAN = {"other_cores": 1.0}, {"other_cores": 0.0}


def rounds_run(*befell: set[int], rounds: int = 8, repeats: int = 4) -> int:
    """How many rounds are run if each entry is disturbed in its given rounds."""
    seen: dict[str, list[dict]] = {str(at): [] for at in range(len(befell))}
    done = 0
    while done < rounds + repeats and taint.wanted(done, seen, rounds, repeats, {}):
        for name, places in zip(seen, befell, strict=True):
            seen[name].append(BUSY if done in places else CLEAN)
        done += 1
    return done


@pytest.mark.parametrize(
    ("befell", "rounds"),
    [
        ([set(), set()], 8),
        ([{0, 1}, {1, 5}], 11),  # three rounds lost, three repeated
        ([{3}, {8}], 10),  # the repetition was disturbed, too
        ([{0, 1, 2, 3}, set()], 12),
        ([{0, 1, 2, 3, 4}, set()], 8),  # beyond saving: it is untrusted whatever comes
        ([{0, 1, 2, 3, 8}, set()], 9),
    ],
)
def test_rounds_in_which_something_befell_a_block_are_repeated(befell, rounds):
    assert rounds_run(*befell) == rounds


def test_a_worker_on_a_disturbed_board_repeats_rounds(tmp_path, monkeypatch):
    throttled = iter([0x0] * 3 + [0x4] + [0x0] * 50)
    monkeypatch.setattr(conduct.sensors, "readings", lambda board: {"throttled": next(throttled)})
    events: list[dict] = []
    job = a_job(tmp_path, [write_onnx(tmp_path / "a.onnx"), write_onnx(tmp_path / "b.onnx")], rounds=4, repeats=2)
    monkeypatch.setattr(conduct, "Child", Quiet)
    assert conduct.conduct(job, events.append) == 0
    assert [event["round"] for event in events if event["event"] == "block"] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


class Quiet:
    """Stands for a child process: blocks that nothing but the board disturbs."""

    def __init__(self, entry: str, patience_seconds: float) -> None:
        self.replies = {"load": {}, "warm_up": {}, "release": {}}
        self.replies["block"] = {"samples_ns": [1, 1, 1], "peak_rss_bytes": 1}

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, operation: str, **request) -> dict:
        return {**self.replies[operation], "sensors": {}}


def test_under_sustained_load_it_goes_on_for_as_long_as_was_asked(tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(conduct, "Child", Quiet)
    monkeypatch.setattr(conduct.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(conduct.sensors, "readings", lambda board: {"throttled": 0xE})
    events: list[dict] = []
    job = a_job(tmp_path, [write_onnx(tmp_path / "a.onnx"), write_onnx(tmp_path / "b.onnx")], seconds=90.0, fresh=False)
    assert conduct.conduct(job, events.append) == 0
    rounds = [event["round"] for event in events if event["event"] == "block"]
    assert rounds == sorted([*range(38), *range(38)])  # two looks at the clock a round and one a pair, a second each


def test_no_time_is_taken_from_the_wall_clock():
    """A board without a battery learns the date in the middle of a run; its wall clock jumps by years."""
    rooms = [Path(edgeprune.worker.__path__[0]), Path(edgeprune.worker.__path__[0]).parent / "bench"]
    for source in (source for room in rooms for source in room.glob("*.py")):
        calls = [node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Call)]
        wall = {"time.time", "datetime.now", "datetime.utcnow"}  # names and texts may hold a date
        assert not wall & {ast.unparse(call.func) for call in calls}, source


def test_groups_share_the_time_that_was_asked_for_and_end_with_a_mirrored_pair(tmp_path, monkeypatch):
    now = [0.0]

    class Slow(Quiet):
        def ask(self, operation: str, **request) -> dict:
            now[0] += 1.0
            return super().ask(operation, **request)

    monkeypatch.setattr(conduct, "Child", Slow)
    monkeypatch.setattr(conduct.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(conduct.time, "sleep", lambda _: None)
    events: list[dict] = []
    job = a_job(tmp_path, [write_onnx(tmp_path / "a.onnx"), write_onnx(tmp_path / "b.onnx")], rounds=4, seconds=101.0)
    job["entries"][1]["threads"] = 2
    assert conduct.conduct(job, events.append) == 0
    rounds = [sum(event["event"] == "block" and event["entry"] == name for event in events) for name in "ab"]
    # 50.5 seconds each: loading, warming up and releasing take three, and each block as much and itself; the twelfth
    # round, begun at 47 seconds, is the mirror of the eleventh.
    assert rounds == [12, 12]


def timings(*windows_ms: float):
    """A call whose time in each 50 ms window is the given one, and stays at the last."""
    spent, plan = 0.0, [ms for ms in windows_ms for _ in range(max(3, int(np.ceil(50 / ms))))]

    def call() -> int:
        nonlocal spent
        ms = plan.pop(0) if plan else windows_ms[-1]
        spent += ms
        return int(ms * 1e6)

    return call


def test_warm_up_ends_when_times_stop_improving():
    told = serve.warm_up(timings(10, 8, 6, 5, 5, 5, 5, 5), at_least=5, limit_seconds=60, tolerance=0.02)
    assert told["stable"]
    assert told["calls"] == 5 + 7 + 9 + 10 + 10 + 10  # two windows at 5 ms after the first one


def test_warm_up_makes_the_fewest_calls_asked_for():
    assert serve.warm_up(timings(10), at_least=100, limit_seconds=60, tolerance=0.02)["calls"] >= 100


def test_warm_up_gives_up_at_its_limit():
    told = serve.warm_up(timings(*(100 * 0.9**i for i in range(40))), at_least=5, limit_seconds=1, tolerance=0.02)
    assert not told["stable"]
    assert 1 <= told["seconds"] < 1.1


def test_warm_up_of_a_slow_file_stops_within_its_limit():
    told = serve.warm_up(lambda: 10**10, at_least=10, limit_seconds=5, tolerance=0.02)
    assert told == {"calls": 1, "seconds": 10.0, "stable": False}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_sensors_say_what_the_board_says_and_nothing_more(path):
    case = json.loads(path.read_text())
    board = sensors.Recording(case["files"], case["commands"])
    assert sensors.facts(board) == case["facts"]
    assert sensors.readings(board) == case["readings"]
    busy = sensors.busy_cpu_seconds(board)
    assert busy == (case["busy_ticks"] / os.sysconf("SC_CLK_TCK") if "busy_ticks" in case else None)


def test_a_board_without_any_sensor_says_nothing():
    board = sensors.Recording({}, {})
    assert sensors.facts(board) == {}
    assert sensors.readings(board) == {}


def test_this_machine_can_be_asked():
    assert sensors.facts(sensors.Board())["cores"] >= 1
    assert sensors.Board().run(("a-command-that-is-not-there",)) is None
    assert sensors.Board().run(("false",)) is None
