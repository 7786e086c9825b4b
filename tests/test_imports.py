"""The user's own Python: found by file or module, quoted when it fails."""

from __future__ import annotations

import sys

import pytest

from edgeprune.errors import DataError, ModelError, UsageError
from edgeprune.imports import load_object, looks_like_object, user_code


@pytest.mark.parametrize("spec", ["net.py:build", "/a b/net.py:build", "../x/net.py:_f", "pkg.mod:build", "pkg:build"])
def test_object_specs_are_recognised(spec):
    assert looks_like_object(spec)


@pytest.mark.parametrize(
    "spec", ["", "resnet20", "net.py", "net.py:", ":build", "a/b:build", "x:1", "http://a/b.py", "data.tar"]
)
def test_other_words_are_not_object_specs(spec):
    assert not looks_like_object(spec)


def test_a_file_is_imported_with_its_neighbours_and_sys_path_is_restored(tmp_path):
    (tmp_path / "neighbour_of_net.py").write_text("ANSWER = 42\n")
    (tmp_path / "net.py").write_text("import neighbour_of_net\ndef build(): return neighbour_of_net.ANSWER\n")
    before = list(sys.path)
    assert load_object(f"{tmp_path}/net.py:build", "model")() == 42
    assert sys.path == before


def test_two_files_of_one_name_do_not_meet_and_an_edited_one_is_imported_anew(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"def build(): return {folder!r}\n")
    assert [load_object(f"{tmp_path}/{folder}/net.py:build", "model")() for folder in "ab"] == ["a", "b"]
    (tmp_path / "a" / "net.py").write_text("def build(): return 'edited'\n")
    assert load_object(f"{tmp_path}/a/net.py:build", "model")() == "edited"


def test_a_file_is_imported_once_so_that_its_classes_stay_the_same(tmp_path):
    (tmp_path / "net.py").write_text("class Net: pass\n")
    spec = f"{tmp_path}/net.py:Net"
    assert load_object(spec, "model") is load_object(spec, "model")


def test_a_dataclass_with_postponed_annotations_can_be_defined(tmp_path):
    lines = (
        "from __future__ import annotations",
        "import dataclasses",
        "@dataclasses.dataclass",
        "class Net:",
        "    x: int = 1",
    )
    (tmp_path / "net.py").write_text("\n".join(lines))
    assert load_object(f"{tmp_path}/net.py:Net", "model")().x == 1


def test_a_module_is_found_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "package_of_mine").mkdir()
    (tmp_path / "package_of_mine" / "net.py").write_text("def build(): return 7\n")
    monkeypatch.chdir(tmp_path)
    assert load_object("package_of_mine.net:build", "model")() == 7


def test_a_missing_file_is_an_error_of_the_asked_class(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read .*none.py: No such file"):
        load_object(f"{tmp_path}/none.py:build", "model", ModelError)


def test_a_missing_module_says_where_it_was_looked_for():
    with pytest.raises(UsageError, match="no module named 'no_such_package_anywhere'") as caught:
        load_object("no_such_package_anywhere.net:build", "model")
    assert "path/file.py:name" in caught.value.fix


def test_a_missing_name_suggests_the_nearest(tmp_path):
    (tmp_path / "net.py").write_text("def build_net(): pass\ndef other(): pass\n")
    with pytest.raises(UsageError, match="no model 'buildnet'") as caught:
        load_object(f"{tmp_path}/net.py:buildnet", "model")
    assert caught.value.fix == "Did you mean 'build_net'? It has: build_net, other"


def test_a_word_that_is_no_spec_says_how_to_write_one():
    with pytest.raises(UsageError, match="'resnet' does not name a model"):
        load_object("resnet", "model")


@pytest.mark.parametrize(
    ("code", "quoted"),
    [
        ("x = 1\nx / 0\n", "ZeroDivisionError: division by zero (PATH, line 2)"),
        ("def f(:\n", "SyntaxError: "),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye (PATH, line 2)"),
        ("import no_such_package_anywhere\n", "No module named 'no_such_package_anywhere' (PATH, line 1)"),
        ("import json\n\njson.loads('[')\n", "(PATH, line 3)"),
    ],
)
def test_a_file_that_fails_on_import_is_quoted_with_its_line(tmp_path, code, quoted):
    path = tmp_path / "net.py"
    path.write_text(code)
    with pytest.raises(DataError) as caught:
        load_object(f"{path}:build", "data function", DataError)
    assert quoted.replace("PATH", str(path)) in caught.value.what
    assert f"{path}" in caught.value.what


def test_a_failed_import_leaves_nothing_behind(tmp_path):
    (tmp_path / "net.py").write_text("1 / 0\n")
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises(UsageError, match="ZeroDivisionError"):
            load_object(f"{tmp_path}/net.py:build", "model")
    assert set(sys.modules) == before


def test_prints_of_the_users_code_go_to_stderr(tmp_path, capsys):
    (tmp_path / "net.py").write_text("print('hello')\ndef build(): print('building')\n")
    spec = f"{tmp_path}/net.py:build"
    build = load_object(spec, "model")
    with user_code(spec, "building the model"):
        build()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "hello\nbuilding\n"


def test_an_exception_while_calling_is_quoted_and_an_interrupt_is_not_caught(tmp_path):
    (tmp_path / "net.py").write_text(
        "def build():\n    raise KeyError('width')\ndef stop():\n    raise KeyboardInterrupt\n"
    )
    spec = f"{tmp_path}/net.py:build"
    with (
        pytest.raises(ModelError, match=r"building the model failed: KeyError: 'width' \(.*net.py, line 2\)"),
        user_code(spec, "building the model", ModelError),
    ):
        load_object(spec, "model")()
    stop = load_object(f"{tmp_path}/net.py:stop", "model")
    with pytest.raises(KeyboardInterrupt), user_code(spec, "building the model", ModelError):
        stop()
