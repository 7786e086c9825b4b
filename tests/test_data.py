"""Images: every source gives the same set, every fault is named, and parts never overlap."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from edgeprune.data import ImageSet, InputSpec, check_labels, load_images, split
from edgeprune.errors import DataError, UsageError

RGB = InputSpec((3, 8, 8), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
GREY = InputSpec((1, 8, 8), (0.5,), (0.2,))
SHARED = Path(os.environ.get("EDGEPRUNE_DATA", Path(__file__).parent.parent / "../shared/data"))
needs_data = pytest.mark.skipif(
    not (SHARED / "imagenet_val1300_227.tar").is_file(), reason=f"no real images in {SHARED}"
)


def pixels(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> str:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(path)


def write_folder(folder: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def write_npz(path: Path, **stored: np.ndarray) -> str:
    np.savez(path, **stored)
    return str(path)


def pairs(images: ImageSet) -> set[tuple[bytes, int]]:
    assert images.labels is not None
    return {(image.tobytes(), int(label)) for image, label in zip(images.images, images.labels, strict=True)}


def refusal(source: str, spec: InputSpec = RGB) -> DataError:
    with pytest.raises(DataError) as caught:
        load_images(source, spec)
    assert caught.value.exit_code == 2
    return caught.value


@settings(deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.just(3))),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 1), min_size=3, max_size=3),
)
def test_normalise_is_the_formula(images, mean, std):
    spec = InputSpec((3, *images.shape[1:3]), tuple(mean), tuple(std))
    found = spec.normalise(images)
    wanted = ((images.astype(np.float64) / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_spec_survives_json():
    assert InputSpec.from_json(RGB.to_json()) == RGB


@pytest.mark.parametrize(
    "document", [{}, {"shape": [3, 8], "mean": [0], "std": [1]}, {"shape": [3, 8, 8], "mean": 0, "std": [1]}]
)
def test_a_broken_json_spec_is_refused(document):
    with pytest.raises(UsageError, match="not an input spec"):
        InputSpec.from_json(document)


@pytest.mark.parametrize(
    ("shape", "mean", "std", "message"),
    [
        ((2, 8, 8), (0, 0), (1, 1), "1 or 3 channels"),
        ((3, 0, 8), (0, 0, 0), (1, 1, 1), "1 or 3 channels"),
        ((3, 8, 8), (0,), (1, 1, 1), "1 values of mean for 3 channels"),
        ((1, 8, 8), (0,), (1, 1), "2 values of std for 1 channels"),
        ((1, 8, 8), (0,), (0,), "std above 0"),
        ((1, 8, 8), (float("nan"),), (1,), "finite"),
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(shape, mean, std, message):
    with pytest.raises(UsageError, match=message):
        InputSpec(shape, mean, std)


def test_batches_cover_all_images_in_order():
    images = ImageSet(pixels(7, 8, 8, 3), None, "here", 7)
    batches = list(images.batches(RGB, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), RGB.normalise(images.images))


@pytest.fixture
def six() -> tuple[np.ndarray, np.ndarray]:
    return pixels(6, 8, 8, 3), np.array([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "npz", "function"])
def test_every_source_gives_the_same_images_and_labels(tmp_path, six, kind):
    images, labels = six
    files = {f"{'abc'[label]}/{i}.png": png(image) for i, (image, label) in enumerate(zip(*six, strict=True))}
    listing = "".join(f"{name} {label}\n" for name, label in zip(files, labels, strict=True)).encode()
    npz = write_npz(tmp_path / "six.npz", images=images, labels=labels)
    (tmp_path / "load.py").write_text(
        f"import numpy\ndef six():\n    z = numpy.load({npz!r})\n    return z['images'], list(map(int, z['labels']))\n"
    )
    source = {
        "folder": lambda: write_folder(tmp_path / "six", files),
        "tar": lambda: write_tar(tmp_path / "six.tar", {**files, "labels.txt": listing}),
        "tar.gz": lambda: write_tar(tmp_path / "six.tar.gz", {"labels.txt": listing, **files}, "w:gz"),
        "npz": lambda: npz,
        "function": lambda: f"{tmp_path}/load.py:six",
    }[kind]()
    found = load_images(source, RGB)
    assert found.images.dtype == np.uint8
    assert found.labels is not None
    assert found.labels.dtype == np.int64
    assert (found.source, found.total, found.skipped) == (source, 6, ())
    assert found.classes == (("a", "b", "c") if kind in ("folder", "tar", "tar.gz") else ())
    assert pairs(found) == {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def test_a_flat_folder_has_no_labels_and_hidden_files_do_not_count(tmp_path, six):
    files = {f"{i}.png": png(image) for i, image in enumerate(six[0])}
    source = write_folder(tmp_path, {**files, "._0.png": b"x", "notes.txt": b"x", ".thumbnails/0.png": b"x"})
    found = load_images(source, RGB)
    assert found.labels is None
    assert found.total == 6


def test_one_sub_folder_alone_names_no_classes(tmp_path, six):
    found = load_images(write_folder(tmp_path, {"images/0.png": png(six[0][0])}), RGB)
    assert found.labels is None


def test_an_empty_class_folder_keeps_its_number(tmp_path, six):
    source = write_folder(tmp_path, {"a/0.png": png(six[0][0]), "c/deep/1.png": png(six[0][1])})
    (tmp_path / "b").mkdir()
    found = load_images(source, RGB)
    assert found.labels is not None
    assert sorted(found.labels) == [0, 2]


def test_a_tar_without_labels_has_none_and_may_be_written_from_the_current_folder(tmp_path, six):
    without = load_images(write_tar(tmp_path / "a.tar", {"./x 1.png": png(six[0][0])}), RGB)
    assert without.labels is None
    listed = {"./x 1.png": png(six[0][0]), "./labels.txt": b"x 1.png 7\n\n"}
    found = load_images(write_tar(tmp_path / "b.tar", listed), RGB)
    assert found.labels is not None
    assert found.labels.tolist() == [7]


@pytest.mark.parametrize(
    "listing",
    ["a/0.png 0\nb/1.png 2\n", "a/0.png 0\na/1.png 1\n", "a/0.png 0\nb/1.png 0\n", "0.png 0\n1.png 1\n"],
    ids=["a class without images", "a folder of two classes", "a class of two folders", "no folders"],
)
def test_no_class_is_named_where_folders_do_not_name_each(tmp_path, six, listing):
    files = {name: png(six[0][0]) for name in ("a/0.png", "a/1.png", "b/1.png", "0.png", "1.png")}
    found = load_images(write_tar(tmp_path / "a.tar", {**files, "labels.txt": listing.encode()}), RGB)
    assert (found.classes, found.total) == ((), 2)


def test_nothing_is_extracted_from_a_tar_that_points_outside(tmp_path, six):
    inside = tmp_path / "inside"
    inside.mkdir()
    source = write_tar(inside / "a.tar", {"../outside.png": png(six[0][0]), "/tmp/edgeprune_never.png": png(six[0][1])})
    assert len(load_images(source, RGB)) == 2
    assert not (tmp_path / "outside.png").exists()
    assert not Path("/tmp/edgeprune_never.png").exists()


def test_the_same_seed_gives_the_same_images_and_another_seed_others(tmp_path):
    source = write_npz(tmp_path / "a.npz", images=pixels(50, 8, 8, 3), labels=np.arange(50))
    first, again, other = (load_images(source, RGB, limit=10, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert pairs(first) != pairs(other)
    assert (len(first), first.total) == (10, 50)


def test_a_smaller_limit_gives_the_first_images_of_a_larger_one(tmp_path):
    source = write_npz(tmp_path / "a.npz", images=pixels(20, 8, 8, 3))
    np.testing.assert_array_equal(load_images(source, RGB, limit=5).images, load_images(source, RGB).images[:5])


def test_images_sorted_by_class_come_mixed(tmp_path):
    source = write_npz(tmp_path / "a.npz", images=pixels(100, 8, 8, 3), labels=np.repeat([0, 1], 50))
    labels = load_images(source, RGB).labels
    assert labels is not None
    assert 10 < labels[:50].sum() < 40


def test_only_the_chosen_images_are_decoded(tmp_path, six):
    files = {f"{i}.png": b"broken" for i in range(50)}
    files["whole.png"] = png(six[0][0])
    source = write_folder(tmp_path, files)
    places = np.random.default_rng(0).permutation(51)
    limit = int(np.flatnonzero(places == 50)[0]) + 1  # sorted by name, "whole.png" is the last
    found = load_images(source, RGB, limit=limit)
    assert len(found) == 1
    assert len(found.skipped) == limit - 1


def test_a_limit_above_the_total_is_all_and_below_one_is_refused(tmp_path):
    source = write_npz(tmp_path / "a.npz", images=pixels(3, 8, 8, 3))
    assert len(load_images(source, RGB, limit=99)) == 3
    with pytest.raises(UsageError, match="cannot load 0 images"):
        load_images(source, RGB, limit=0)


def test_progress_ends_at_the_total(tmp_path):
    source = write_npz(tmp_path / "a.npz", images=pixels(70, 9, 9, 3))
    told: list[tuple[int, int]] = []
    load_images(source, RGB, tick=lambda done, total: told.append((done, total)))
    assert told == [(64, 70), (70, 70)]


def reference(image: np.ndarray, size: int) -> np.ndarray:
    """The evaluation of the shared loaders: square images are scaled, others scaled to 256/224 and cut."""
    picture = Image.fromarray(image)
    width, height = picture.size
    if width == height:
        return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    short = round(size / 0.875)
    scale = short / min(width, height)
    picture = picture.resize(
        (max(short, round(width * scale)), max(short, round(height * scale))), Image.Resampling.BILINEAR
    )
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([8, 28, 32]))
def test_any_size_is_brought_to_the_input_as_in_the_usual_evaluation(height, width, size):
    from edgeprune.worker.infer import decode

    image = pixels(1, height, width, 3)[0]
    wanted = image if (height, width) == (size, size) else reference(image, size)
    np.testing.assert_array_equal(decode(png(image), (3, size, size)), wanted)


def test_an_input_that_is_not_square_is_filled(tmp_path):
    spec = InputSpec((3, 8, 16), RGB.mean, RGB.std)
    for shape in ((16, 32, 3), (30, 30, 3)):
        found = load_images(write_npz(tmp_path / "a.npz", images=pixels(2, *shape)), spec)
        assert found.images.shape == (2, 8, 16, 3)


def test_arrays_already_at_the_size_are_not_touched(tmp_path):
    images = pixels(5, 8, 8, 3)
    found = load_images(write_npz(tmp_path / "a.npz", images=images), RGB)
    assert {each.tobytes() for each in found.images} == {each.tobytes() for each in images}


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (9, 9), (9, 9, 1)])
def test_grey_arrays_serve_both_kinds_of_network(tmp_path, shape):
    source = write_npz(tmp_path / "a.npz", images=pixels(3, *shape))
    assert load_images(source, GREY).images.shape == (3, 8, 8, 1)
    coloured = load_images(source, RGB).images
    assert coloured.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(coloured[..., 0], coloured[..., 2])


def test_coloured_and_transparent_images_become_grey(tmp_path, six):
    stream = io.BytesIO()
    Image.fromarray(pixels(1, 8, 8, 4)[0]).save(stream, "PNG")
    found = load_images(write_folder(tmp_path, {"a.png": png(six[0][0]), "b.png": stream.getvalue()}), GREY)
    assert found.images.shape == (2, 8, 8, 1)


def bomb(side: int) -> bytes:
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG")
    return stream.getvalue()


def test_broken_images_are_skipped_and_named(tmp_path, six):
    whole = png(six[0][0])
    sixteen_bits = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(sixteen_bits, "PNG")
    files = {
        "a/empty.png": b"",
        "a/whole.png": whole,
        "b/cut.png": png(pixels(1, 60, 60, 3)[0])[:2000],
        "b/text.jpg": b"hello",
        "b/bomb.png": bomb(20_000),
        "b/large.png": bomb(10_000),
        "b/deep.png": sixteen_bits.getvalue(),
    }
    for source in (write_folder(tmp_path / "f", files), write_tar(tmp_path / "f.tar", files)):
        found = load_images(source, RGB)
        assert len(found) == 1
        assert found.total == 7
        names = ["a/empty.png", "b/bomb.png", "b/cut.png", "b/deep.png", "b/large.png", "b/text.jpg"]
        assert sorted(found.skipped) == names
        np.testing.assert_array_equal(found.images[0], six[0][0])


def test_labels_stay_with_their_images_when_some_are_broken(tmp_path, six):
    files = {f"{label}/{i}.png": png(image) for i, (image, label) in enumerate(zip(*six, strict=True))}
    broken = {**files, "0/1.png": b"x", "2/4.png": b"x"}
    found = load_images(write_folder(tmp_path, broken), RGB)
    wanted = {(six[0][i].tobytes(), int(six[1][i])) for i in (0, 2, 3, 5)}
    assert pairs(found) == wanted


def test_all_images_broken_is_an_error_that_quotes_one(tmp_path):
    error = refusal(write_folder(tmp_path, {"0.png": b"x", "1.png": b"y"}))
    assert "none of the 2 images can be decoded; 0.png: cannot identify image" in error.what.replace("1.png", "0.png")


def test_a_dangling_link_is_no_image(tmp_path, six):
    source = write_folder(tmp_path, {"0.png": png(six[0][0])})
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    assert load_images(source, RGB).total == 1


def test_a_missing_path_says_what_can_be_given(tmp_path):
    error = refusal(str(tmp_path / "none"))
    assert error.what == "no such file or folder"
    assert "labels.txt" in error.fix


def test_a_path_that_is_too_long_is_refused():
    assert "cannot read" in refusal("x" * 5000).what


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    path = tmp_path / "images.parquet"
    path.write_bytes(b"PAR1")
    assert "not known" in refusal(str(path)).what


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert refusal(str(tmp_path)).what == "no images in this folder"


def test_a_folder_with_loose_images_beside_class_folders_is_refused(tmp_path, six):
    error = refusal(write_folder(tmp_path, {"a/0.png": png(six[0][0]), "loose.png": png(six[0][1])}))
    assert "loose.png" in error.what


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("0.png 0\n1.png 1\ngone.png 2\n", "names 1 images that are not in the tar, first 'gone.png'"),
        ("0.png cat\n", "whole number"),
        ("0.png 1.5\n", "whole number"),
        ("0.png\n", "whole number"),
        ("0.png 0\n0.png 1\n", "0.png is listed twice"),
        ("0.png -1\n", "negative label -1"),
        ("0.png 99999999999999999999999\n", "labels are"),
        ("\n", "labels.txt lists no images"),
    ],
)
def test_a_wrong_labels_file_is_named_with_its_line(tmp_path, six, listing, message):
    files = {"0.png": png(six[0][0]), "1.png": png(six[0][1]), "labels.txt": listing.encode()}
    assert message in refusal(write_tar(tmp_path / "a.tar", files)).what


def test_labels_that_are_not_text_are_refused(tmp_path, six):
    assert (
        "cannot read this tar"
        in refusal(write_tar(tmp_path / "a.tar", {"0.png": png(six[0][0]), "labels.txt": b"\xff\xfe"})).what
    )


def test_a_tar_that_is_none_is_truncated_or_empty_is_refused(tmp_path, six):
    junk = tmp_path / "junk.tar"
    junk.write_bytes(b"x" * 2000)
    assert "cannot read this tar" in refusal(str(junk)).what
    whole = Path(write_tar(tmp_path / "whole.tar.gz", {f"{i}.png": png(six[0][i]) for i in range(6)}, "w:gz"))
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "cannot read this tar" in refusal(str(cut)).what
    assert "no images in this tar" in refusal(write_tar(tmp_path / "empty.tar", {"a.txt": b"x"})).what


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"images": pixels(2, 8, 8, 3) / 255}, "images are float64, wanted uint8"),
        ({"images": pixels(2, 8, 8, 3).astype(np.int32)}, "images are int32, wanted uint8"),
        ({"images": pixels(2, 3, 8, 8)}, "shape (2, 3, 8, 8), wanted [N, H, W, C]"),
        ({"images": pixels(2, 8, 8, 4)}, "wanted [N, H, W, C]"),
        ({"images": pixels(8, 8)}, "wanted [N, H, W, C]"),
        ({"images": pixels(0, 8, 8, 3)}, "no images"),
        ({"pictures": pixels(2, 8, 8, 3)}, "no array named 'images' in this .npz; it has: pictures"),
        ({"images": pixels(2, 8, 8, 3), "labels": np.arange(3)}, "2 images but labels of shape (3,)"),
        ({"images": pixels(2, 8, 8, 3), "labels": np.eye(2, dtype=int)}, "2 images but labels of shape (2, 2)"),
        ({"images": pixels(2, 8, 8, 3), "labels": np.array([0.0, 1.0])}, "labels are float64, wanted integers"),
        ({"images": pixels(2, 8, 8, 3), "labels": np.array(["a", "b"])}, "wanted integers"),
        ({"images": pixels(2, 8, 8, 3), "labels": np.array([0, -3])}, "negative label -3 at image 1"),
    ],
)
def test_a_wrong_npz_says_what_is_wanted(tmp_path, stored, message):
    error = refusal(write_npz(tmp_path / "a.npz", **stored))
    assert message in error.what
    assert "a.npz" in error.where


def test_channels_first_images_are_told_how_to_turn(tmp_path):
    assert "transpose(0, 2, 3, 1)" in refusal(write_npz(tmp_path / "a.npz", images=pixels(2, 3, 8, 8))).fix


def test_a_pickle_in_an_npz_is_not_opened(tmp_path):
    marker = tmp_path / "opened"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    np.savez(tmp_path / "a.npz", images=np.array([Evil()], dtype=object))
    assert "cannot read this .npz" in refusal(str(tmp_path / "a.npz")).what
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"PK\x03\x04" + b"x" * 100, b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    assert "cannot read this .npz" in refusal(str(tmp_path / "a.npz")).what


def test_an_npz_that_claims_more_than_the_memory_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 46, 1, 1)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    assert "do not fit into memory" in refusal(str(tmp_path / "a.npz")).what


def test_an_image_file_of_absurd_size_is_skipped_unread(tmp_path, six):
    source = write_folder(tmp_path, {"0.png": png(six[0][0]), "1.png": b""})
    with (tmp_path / "1.png").open("wb") as stream:
        stream.truncate(1 << 40)
    assert load_images(source, RGB).skipped == ("1.png",)


def test_a_single_array_under_the_name_npz_is_refused(tmp_path):
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, pixels(2, 8, 8, 3))
    assert "cannot read this .npz" in refusal(str(tmp_path / "a.npz")).what


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def other(): pass", "no data function 'load'"),
        ("load = 3", "not a function"),
        ("def load(): return 3", "returned int, not a pair"),
        ("def load(): return [1, 2, 3]", "returned list, not a pair"),
        ("def load(): return [[1]], None", "returned images as builtins.list"),
        ("import torch\ndef load(): return torch.zeros(2, 8, 8, 3).byte(), None", "returned images as torch.Tensor"),
        ("import numpy\ndef load(): return numpy.zeros((2, 8, 8, 3)), None", "wanted uint8"),
        ("def load(width): pass", "loading the images failed: TypeError"),
        ("def load():\n    return open('/no/such/file')", "FileNotFoundError"),
        ("1 / 0", "importing load.py failed: ZeroDivisionError"),
    ],
)
def test_a_wrong_function_is_quoted(tmp_path, code, message):
    (tmp_path / "load.py").write_text(code)
    error = refusal(f"{tmp_path}/load.py:load")
    assert message in error.what
    assert "load.py:load" in error.where


def test_a_missing_python_file_is_named(tmp_path):
    assert "none.py" in refusal(f"{tmp_path}/none.py:load").what


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(1, 80), st.integers(0, 5))
def test_parts_are_disjoint_and_complete(count, calibration, seed):
    images = ImageSet(np.zeros((count, 1, 1, 3), np.uint8), np.arange(count), "here", count)
    first, second = split(images, calibration, seed)
    assert first.labels is not None
    assert second.labels is not None
    assert len(first) == min(calibration, count // 2)
    assert sorted([*first.labels, *second.labels]) == list(range(count))
    again, _ = split(images, calibration, seed)
    np.testing.assert_array_equal(first.labels, again.labels)


def test_one_image_cannot_be_split():
    images = ImageSet(pixels(1, 8, 8, 3), None, "one.tar", 1)
    with pytest.raises(DataError, match="1 image is not enough") as caught:
        split(images, 8)
    assert caught.value.where == "one.tar"
    assert "--calibration-data" in caught.value.fix


def test_splitting_off_nothing_is_refused():
    with pytest.raises(UsageError, match="cannot calibrate with 0 images"):
        split(ImageSet(pixels(4, 8, 8, 3), None, "here", 4), 0)


def labelled(*labels: int) -> ImageSet:
    return ImageSet(pixels(len(labels), 1, 1, 3), np.array(labels), "here.npz", len(labels))


def test_labels_within_the_classes_and_no_labels_pass():
    check_labels(labelled(0, 9, 3), 10)
    check_labels(ImageSet(pixels(1, 1, 1, 3), None, "here", 1), 10)


def test_labels_out_of_range_are_named_and_counted():
    with pytest.raises(DataError, match=r"10, 700 \(3 of 4 images\); the model has classes 0 to 9") as caught:
        check_labels(labelled(10, 700, 3, 10), 10)
    assert caught.value.where == "here.npz"


def test_labels_that_count_from_one_are_recognised():
    with pytest.raises(DataError, match="subtract 1"):
        check_labels(labelled(1, 2, 3), 3)


@pytest.mark.data
@needs_data
def test_a_real_tar_is_read_with_its_labels():
    spec = InputSpec((3, 224, 224), (0.5,) * 3, (0.5,) * 3)
    found = load_images(str(SHARED / "imagenet_val1300_227.tar"), spec, limit=20)
    assert found.images.shape == (20, 224, 224, 3)
    assert found.total == 1300
    assert found.skipped == ()
    assert 40 < found.images.mean() < 200
    check_labels(found, 1000)


@pytest.mark.data
@needs_data
def test_the_benchmark_function_gives_all_ten_classes():
    source = str(Path(__file__).parent.parent / "benchmarks" / "shared_data.py") + ":cifar10_test"
    found = load_images(source, InputSpec((3, 32, 32), (0.5,) * 3, (0.5,) * 3), limit=500)
    assert found.labels is not None
    assert found.images.shape == (500, 32, 32, 3)
    assert found.total == 10_000
    assert set(found.labels) == set(range(10))


def test_the_benchmark_function_says_what_to_set_where_the_folder_is_absent(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    source = str(Path(__file__).parent.parent / "benchmarks" / "shared_data.py") + ":cifar10_test"
    error = refusal(source)
    assert "set EDGEPRUNE_DATA" in error.what
