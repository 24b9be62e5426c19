import os
import signal
import struct
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from maximir import MaximirError
from maximir.training.data import (
    ImageFile,
    Scene,
    check_pairs,
    find_pairs,
    find_scenes,
    list_images,
    split,
)
from maximir.training.samples import views


def save(folder, *names, size=(8, 6)):
    """Images of one colour each, by name in the folder. Size: width, height."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, 0, 0)).save(path)
    return folder


def pack(shard, folder, prefix=""):
    """A tar shard of what is in the folder, with its directories as members."""
    with tarfile.open(shard, "w") as tar:
        tar.add(folder, arcname=prefix or "/")
    return shard


def save_turned(path, size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)
    return path


def file_name(image):
    return str(image.member[0] if image.member else image.path.name)


def described(scenes):
    """Scene → files of its inputs and target."""
    return {
        scene.name: ([file_name(image) for image in scene.inputs], file_name(scene.target))
        for scene in scenes
    }


def cut(path, end):
    path.write_bytes(path.read_bytes()[:end])


# Names


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["input/a.jpg", "target/a.png"], {"a": (["a.jpg"], "a.png")}),
        (["day/input/a.png", "day/target/a.png"], {"day/a": (["a.png"], "a.png")}),
        (["a_input.png", "a_target.png"], {"a": (["a_input.png"], "a_target.png")}),
        (["a.b.input.png", "a.b.target.jpg"], {"a.b": (["a.b.input.png"], "a.b.target.jpg")}),
        (["a/input.png", "a/target.png"], {"a": (["input.png"], "target.png")}),
        (["A_INPUT.PNG", "A_Target.JPEG"], {"A": (["A_INPUT.PNG"], "A_Target.JPEG")}),
        (["Input/a.png", "TARGET/a.png"], {"a": (["a.png"], "a.png")}),
        (
            ["a_input_input.png", "a_input_target.png"],
            {"a_input": (["a_input_input.png"], "a_input_target.png")},
        ),
        (
            ["input/1.png", "target/1.png", "input/2.png", "target/2.png"],
            {"1": (["1.png"], "1.png"), "2": (["2.png"], "2.png")},
        ),
        (
            ["1_a_input.png", "1_b_c_input.png", "1_target.png"],
            {"1": (["1_a_input.png", "1_b_c_input.png"], "1_target.png")},
        ),
        (["input/1_a.png", "input/1_b.png", "target/1.png"], {"1": (["1_a.png", "1_b.png"], "1.png")}),
        (  # the longest name wins
            ["1_input.png", "1_target.png", "1_a_input.png", "1_a_target.png"],
            {"1": (["1_input.png"], "1_target.png"), "1_a": (["1_a_input.png"], "1_a_target.png")},
        ),
        (  # same names in other folders are other scenes
            ["x/1_input.png", "x/1_target.png", "y/1_input.jpg", "y/1_target.jpg"],
            {"x/1": (["1_input.png"], "1_target.png"), "y/1": (["1_input.jpg"], "1_target.jpg")},
        ),
    ],
)
def test_pairs_by_name(names, pairs, tmp_path):
    assert described(find_pairs([save(tmp_path, *names)])) == pairs


@pytest.mark.parametrize(
    "names",
    [
        ["input/a.png", "target/a.png", "depth/a.png", "input/b.png", "target/b.png"],
        ["a_input.png", "a_target.png", "a_depth.png", "b_input.png", "b_target.png"],
        ["a.input.png", "a.target.png", "a.depth.png", "b.input.png", "b.target.png"],
    ],
)
def test_depth_lies_beside(names, tmp_path):
    save(tmp_path, *names)
    for find in (find_pairs, find_scenes):
        depths = {scene.name: scene.depth for scene in find([tmp_path])}
        assert set(depths) == {"a", "b"}
        assert "depth" in str(depths["a"]) and depths["b"] is None


def test_clean_photographs_are_all_images_and_of_pairs_the_targets(tmp_path):
    save(tmp_path / "plain", "b.png", "deep/er/a.JPG", "b_depth.png", "input_1.png")
    (tmp_path / "plain" / "notes.txt").write_text("no image")
    save(tmp_path / "pairs", "input/c.png", "target/c.png", "d_x_input.png", "d_target.png", "e.png")
    scenes = find_scenes([tmp_path / "plain", tmp_path / "pairs"])
    files = [(scene.name, file_name(scene.target)) for scene in scenes]
    assert sorted(files[:3]) == [("b", "b.png"), ("deep/er/a", "a.JPG"), ("input_1", "input_1.png")]
    assert sorted(files[3:]) == [("c", "c.png"), ("d", "d_target.png"), ("e", "e.png")]
    assert not any(scene.inputs for scene in scenes)
    assert [scene.name for scene in scenes if scene.depth] == ["b"]


def test_the_order_does_not_depend_on_the_disk(tmp_path):
    names = [f"{number}.png" for number in np.random.default_rng(0).permutation(30)]
    assert [name for name, _ in list_images(save(tmp_path, *names))] == sorted(n[:-4] for n in names)


# Shards


@pytest.mark.parametrize("prefix", ["", ".", "data"])
def test_shards_hold_what_folders_hold(prefix, tmp_path):
    folder = save(
        tmp_path / "loose", "a.input.png", "a.target.png", "b/input/c.PNG", "b/target/c.jpg", size=(9, 7)
    )
    (folder / "a.txt").write_text("a caption")
    for name in ("b/input/._c.PNG", "._s.tar"):
        (folder / name).write_bytes(b"left by macOS")
    shard = pack(tmp_path / "s.tar", folder, prefix)
    loose, packed = find_pairs([folder]), find_pairs([shard])
    assert len(packed) == 2
    for one, other in zip(loose, packed, strict=True):
        assert other.name.removeprefix(f"{prefix}/") == one.name
        for file, member in ((one.target, other.target), (one.inputs[0], other.inputs[0])):
            assert member.path == shard and member.size() == (7, 9)
            np.testing.assert_array_equal(member.load(), file.load())
            assert str(member).startswith(f"{shard}:") and str(member).endswith(file.path.name)


def test_shards_within_folders(tmp_path):
    save(tmp_path / "work" / "1", "a.png")
    save(tmp_path / "work" / "2", "b_target.png", "b_input.png")
    save(tmp_path / "data" / "deep", "c.png")
    pack(tmp_path / "data" / "1.tar", tmp_path / "work" / "1")
    pack(tmp_path / "data" / "deep" / "2.tar", tmp_path / "work" / "2")
    scenes = find_scenes([tmp_path / "data"])
    assert sorted(file_name(scene.target) for scene in scenes) == ["a.png", "b_target.png", "c.png"]


def break_empty(path):
    path.write_bytes(b"")


def break_not_a_tar(path):
    path.write_bytes(b"no tar" * 1000)


def break_compressed(path):
    with tarfile.open(path, "w:gz") as tar:
        tar.add(__file__)


def break_first_header(path):
    data = bytearray(path.read_bytes())
    data[150] ^= 0xFF
    path.write_bytes(data)


def break_in_data(path):
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    cut(path, last.offset_data + 10)


@pytest.mark.parametrize("find", [find_scenes, find_pairs])
@pytest.mark.parametrize(
    "damage", [break_empty, break_not_a_tar, break_compressed, break_first_header, break_in_data]
)
def test_a_damaged_shard_is_one_clear_sentence(damage, find, tmp_path):
    shard = pack(tmp_path / "s.tar", save(tmp_path / "loose", "a_input.png", "a_target.png"))
    damage(shard)
    for place in (shard, tmp_path):
        with pytest.raises(MaximirError, match=r"s\.tar: cannot be read as an uncompressed tar") as caught:
            find([place])
        assert "\n" not in str(caught.value)


def break_later_header(path):
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    data = bytearray(path.read_bytes())
    data[last.offset + 150] ^= 0xFF
    path.write_bytes(data)


def break_off(path):
    with tarfile.open(path) as tar:
        cut(path, tar.getmembers()[-1].offset)


def break_off_in_header(path):
    with tarfile.open(path) as tar:
        cut(path, tar.getmembers()[-1].offset + 100)


@pytest.mark.parametrize("damage", [break_later_header, break_off, break_off_in_header])
def test_no_photograph_of_a_damaged_shard_is_lost_in_silence(damage, tmp_path):
    shard = pack(tmp_path / "s.tar", save(tmp_path / "loose", "a.png", "b.png"))
    damage(shard)
    with pytest.raises(MaximirError, match=r"s\.tar: cannot be read as an uncompressed tar"):
        find_scenes([shard])


# Lists


def test_lists_of_pairs(tmp_path):
    save(tmp_path / "data", "noisy/a.png", "clean/a.png", "noisy/b.png")
    other = save(tmp_path / "other", "b.jpg") / "b.jpg"
    path = tmp_path / "data" / "list.txt"
    path.write_text(f"noisy/a.png\tclean/a.png\n\n  \nnoisy/b.png\t{other}\n")
    scenes = find_pairs([path])
    assert described(scenes) == {"a": (["a.png"], "a.png"), "b": (["b.png"], "b.jpg")}
    assert scenes[0].inputs[0].path.parent.name == "noisy" and scenes[0].target.path.parent.name == "clean"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a.png\ta.png\na.png\tb.png\n", r"list\.txt, line 2: .*b\.png does not exist"),
        (b"b.png\ta.png\n", r"list\.txt, line 1: .*b\.png does not exist"),
        (b"\na.png a.png\n", r"list\.txt, line 2: must be two paths with a tab"),
        (b"a.png\ta.png\ta.png\n", r"list\.txt, line 1: must be two paths with a tab"),
        (b"\n \n", r"list\.txt: the list of pairs is empty"),
        (b"\xff\xfe\x00", r"list\.txt: the list of pairs cannot be read"),
        (None, r"list\.txt: the list of pairs cannot be read"),
    ],
)
def test_lists_that_are_no_lists_of_pairs(text, message, tmp_path):
    save(tmp_path, "a.png")
    if text is not None:
        (tmp_path / "list.txt").write_bytes(text)
    with pytest.raises(MaximirError, match=message):
        find_pairs([tmp_path / "list.txt"])


# What is wrong with the places


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_input.png", "a_target.png", "b_input.png"], r"b_input\.png: has no partner, a target"),
        (["a_input.png", "a_target.png", "b_target.png"], r"b_target\.png: has no partner, an input"),
        (["input/a.png", "target/a.png", "input/b.png"], r"input/b\.png: has no partner, a target"),
        (["input/a.png", "target/a.png", "target/b.png"], r"target/b\.png: has no partner, an input"),
        (["x/a_input.png", "y/a_target.png"], r"x/a_input\.png: has no partner"),
        (["ab_input.png", "a_target.png"], r"ab_input\.png: has no partner"),  # names end at a _
        (["a.png", "b.png"], "holds no pairs; they are input/NAME and target/NAME"),
        (["a_depth.png", "b.png"], "holds no pairs"),
    ],
)
def test_the_first_file_without_a_partner_is_named(names, message, tmp_path):
    with pytest.raises(MaximirError, match=message):
        find_pairs([save(tmp_path, *names)])


@pytest.mark.parametrize("names", [["a_input.png", "b.input.png"], ["input/a.png", "a_depth.png"]])
def test_inputs_alone_are_not_clean_photographs(names, tmp_path):
    with pytest.raises(MaximirError, match="holds inputs only, no clean photographs") as caught:
        find_scenes([save(tmp_path, *names)])
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize("find", [find_scenes, find_pairs])
def test_empty_and_missing_places_are_named(find, tmp_path):
    good = save(tmp_path / "good", "a_input.png", "a_target.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.doc").write_text("no image")
    with pytest.raises(MaximirError, match=r"empty: no images in it \(.*\.jpeg.*\.png"):
        find([good, tmp_path / "empty"])
    with pytest.raises(MaximirError, match="missing: no such folder"):
        find([good, tmp_path / "missing"])
    with pytest.raises(MaximirError, match=r"a_input\.png: is a file; give its folder"):
        find([good / "a_input.png"])
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(MaximirError, match=r"empty\.tar: no images in it"):
        find([tmp_path / "empty.tar"])
    assert find([]) == []


@pytest.mark.parametrize(
    "names",
    [
        ["a_input.png", "a_input.jpg", "a_target.png"],
        ["a_input.png", "a_target.png", "a_target.jpg"],
        ["input/a.png", "a_input.png", "target/a.png"],
    ],
)
def test_two_files_for_one_part_are_an_error(names, tmp_path):
    with pytest.raises(MaximirError, match="both"):
        find_pairs([save(tmp_path, *names)])


def test_folders_below_input_and_target(tmp_path):
    save(tmp_path, "input/1/a.png", "target/1/a.png")
    assert described(find_pairs([tmp_path])) == {"1/a": (["a.png"], "a.png")}
    assert [scene.target.path.parts[-3] for scene in find_scenes([tmp_path])] == ["target"]


def test_parts_in_the_names_of_both_folders_and_files(tmp_path):
    save(tmp_path, "input/a_input.png", "target/a_target.png")
    assert described(find_pairs([tmp_path])) == {"a": (["a_input.png"], "a_target.png")}


def test_all_inputs_of_a_listed_target_are_held_out_together(tmp_path):
    save(tmp_path, "x1.png", "x2.png", "clean.png")
    (tmp_path / "list.txt").write_text("x1.png\tclean.png\nx2.png\tclean.png\n")
    train, held_out = split(find_pairs([tmp_path / "list.txt"]), ["clean"])
    assert not train and held_out


# Held-out scenes


def test_split_looks_at_the_last_part_of_names():
    names = ["a/val_1", "val/b", "x/y/val_2", "val_3", "Val_4", "c"]
    scenes = [Scene(name, ImageFile("x.png")) for name in names]
    for patterns, expected in (
        (["val_*"], {"a/val_1", "x/y/val_2", "val_3"}),
        (["val_[12]", "b"], {"a/val_1", "x/y/val_2", "val/b"}),
        (["val"], set()),
        ([], set()),
        (["*"], set(names)),
    ):
        train, held_out = split(iter(scenes), patterns)
        assert {scene.name for scene in held_out} == expected
        assert [scene for scene in scenes if scene not in held_out] == train


# Checks before training


def test_pairs_of_unlike_sizes_are_an_error_naming_both(tmp_path):
    save(tmp_path, "a_input.png", "a_target.png", "b_1_input.png", "b_target.png")
    save(tmp_path, "b_2_input.png", size=(6, 8))
    message = r"b_2_input\.png: is 6 x 8 pixels, but its target .*b_target\.png is 8 x 6"
    with pytest.raises(MaximirError, match=message):
        check_pairs(find_pairs([tmp_path]), pytest.fail)


def test_pairs_are_compared_upright(tmp_path):
    save(tmp_path, "a_target.jpg", size=(20, 10))
    save_turned(tmp_path / "a_input.jpg", (10, 20), 6)
    scenes = find_pairs([tmp_path])
    assert check_pairs(scenes, pytest.fail) == scenes
    save_turned(tmp_path / "a_input.jpg", (20, 10), 8)
    with pytest.raises(MaximirError, match=r"a_input\.jpg: is 10 x 20"):
        check_pairs(scenes, pytest.fail)


def test_corrupt_images_of_pairs_are_reported_and_left_out(tmp_path):
    save(tmp_path, *(f"{name}_{part}.png" for name in "abc" for part in ("input", "target")))
    (tmp_path / "a_input.png").write_bytes(b"no image")
    cut(tmp_path / "c_target.png", 20)
    reports = []
    kept = check_pairs(find_pairs([tmp_path]), reports.append)
    assert [scene.name for scene in kept] == ["b"]
    assert len(reports) == 2
    assert all("cannot be read as an image" in report and report.startswith("skipped ") for report in reports)
    assert "a_input.png" in reports[0] and "c_target.png" in reports[1]


# Pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_sizes_are_those_of_the_upright_image(suffix, orientation, tmp_path):
    image = ImageFile(save_turned(tmp_path / f"x.{suffix}", (20, 10), orientation))
    assert image.size() == image.load().shape[:2] == ((20, 10) if orientation >= 5 else (10, 20))


@pytest.mark.parametrize(("suffix", "orientation"), [("tif", 6), ("jpg", 9)])
def test_sizes_are_those_of_the_upright_image_in_odd_cases(suffix, orientation, tmp_path):
    image = ImageFile(save_turned(tmp_path / f"x.{suffix}", (20, 10), orientation))
    assert image.size() == image.load().shape[:2]


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    turned = save_turned(tmp_path / "x.png", (20, 10), 6).read_bytes()
    at = turned.index(b"eXIf") - 4
    chunk = turned[at : at + 12 + int.from_bytes(turned[at : at + 4], "big")]
    (tmp_path / "x.png").write_bytes(turned.replace(chunk, b"")[:-12] + chunk + turned[-12:])
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "x.png", arcname="x.png")
    for _, image in list_images(tmp_path):  # loose, and in the shard
        assert image.size() == image.load().shape[:2] == (20, 10)
    damaged = (tmp_path / "x.png").read_bytes().replace(b"eXIf", b"eXIg")
    (tmp_path / "x.png").write_bytes(damaged)
    assert ImageFile(tmp_path / "x.png").size() == (10, 20)


def test_turned_pixels_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right edge
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(ImageFile(tmp_path / "x.png").load(), np.rot90(pixels, -1))


def test_16_bit_grey(tmp_path):
    ramp = np.arange(0, 65536, 16, dtype=np.uint16).reshape(32, 128)
    for suffix in ("png", "tif"):
        Image.fromarray(ramp).save(tmp_path / f"ramp.{suffix}")
        rgb = ImageFile(tmp_path / f"ramp.{suffix}").load()
        assert rgb.dtype == np.uint16 and rgb.shape == (32, 128, 3)
        np.testing.assert_array_equal(rgb, np.repeat(ramp[..., None], 3, axis=-1))
        depth = ImageFile(tmp_path / f"ramp.{suffix}").load_depth()
        np.testing.assert_allclose(depth, ramp / ramp.mean(), rtol=1e-5)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_colours(suffix, channels, tmp_path):
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 33, channels), dtype=np.uint16)
    order = [2, 1, 0, 3][:channels]  # OpenCV writes BGR
    assert cv2.imwrite(str(tmp_path / f"x.{suffix}"), np.ascontiguousarray(pixels[..., order]))
    np.testing.assert_array_equal(ImageFile(tmp_path / f"x.{suffix}").load(), pixels[..., :3])
    (view,) = views(find_scenes([tmp_path]), [0.5], 2, pytest.fail, "clean")
    (small,) = view.load()
    assert small.dtype == np.uint16 and small.shape == (10, 16, 3)
    assert abs(small.mean() - pixels[..., :3].mean()) < 800


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colours_uncompressed_and_turned(order, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, (6, 8, 3), dtype=np.uint16)
    data = pixels.astype(f"{order}u2").tobytes()
    fields = [
        (256, 8),
        (257, 6),
        (259, 1),
        (262, 2),
        (273, 8),
        (274, 6),
        (277, 3),
        (278, 6),
        (279, len(data)),
    ]
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in fields]
    bits = 8 + len(data)
    entries.insert(2, struct.pack(f"{order}HHII", 258, 3, 3, bits))
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, bits + 6)
    body = data + struct.pack(f"{order}3H", 16, 16, 16) + struct.pack(f"{order}H", len(entries))
    (tmp_path / "x.tif").write_bytes(head + body + b"".join(entries) + bytes(4))
    np.testing.assert_array_equal(ImageFile(tmp_path / "x.tif").load(), np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_kinds_of_pixels_become_rgb(mode, tmp_path):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (20, 10), (255, 255, 255)).convert(mode).save(path)
    rgb = ImageFile(path).load()
    assert rgb.shape == (10, 20, 3) and rgb.dtype == np.uint8 and rgb.min() >= 254


def test_samples_without_a_full_scale_are_named(tmp_path):
    """Pillow would make black pictures of floats in [0, 1], and white ones of long integers."""
    unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(unit).save(tmp_path / "f32.tif")
    Image.fromarray((unit * 2**30).astype(np.int32)).save(tmp_path / "i32.tif")
    for name, kind in (("f32.tif", "float"), ("i32.tif", "32-bit or signed")):
        for read in (ImageFile(tmp_path / name).load, ImageFile(tmp_path / name).size):
            with pytest.raises(
                MaximirError, match=rf"{name}: cannot .*{kind} samples are not supported; save"
            ):
                read()
    save(tmp_path, "good.png")
    skipped = []
    found = views(find_scenes([tmp_path]), [1.0], 2, skipped.append, "clean")
    assert [view.files[0].name for view in found] == ["good.png"] and len(skipped) == 2


def test_what_is_not_restored_is_not_trained_on(tmp_path):
    pages = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    Image.new("RGB", (8, 8)).save(tmp_path / "pages.tif", **pages)
    with pytest.raises(MaximirError, match="the TIFF has 2 pages"):
        ImageFile(tmp_path / "pages.tif").load()
    for name in ("a.jfif", "b.jpe", "c.avif", "d.gif"):
        Image.new("RGB", (8, 8), (200, 200, 200)).save(tmp_path / name, {"jfif": "JPEG"}.get(name[2:]))
    found = dict(list_images(tmp_path))
    assert found.keys() == {"a", "b", "c", "d", "pages"}
    assert all(abs(found[name].load().astype(int) - 200).max() < 3 for name in "abcd")


def test_training_reads_with_pillow_alone(tmp_path):
    """Where libvips is missing; and it is not used where it is, because it hangs in forked processes."""
    save(tmp_path, "a.png", "b.tif")
    code = (
        "import sys; sys.modules['pyvips'] = None\n"
        "from pathlib import Path\nfrom maximir.training.data import ImageFile\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "for name in 'a.png', 'b.tif': assert ImageFile(folder / name).load().shape == (6, 8, 3)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    if hasattr(os, "fork"):
        ImageFile(tmp_path / "b.tif").load()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            ImageFile(tmp_path / "b.tif").load()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_links_to_folders_are_followed_but_not_round_and_round(tmp_path):
    save(tmp_path / "store", "x/1.png", "y/1.png", "more/2.png")
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "input").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "pairs" / "target").symlink_to(tmp_path / "store" / "y")
    (tmp_path / "pairs" / "round").symlink_to(tmp_path / "pairs")
    assert described(find_pairs([tmp_path / "pairs"])) == {"1": (["1.png"], "1.png")}
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "store" / "more")
    assert [name for name, _ in list_images(tmp_path / "photos")] == ["link/2"]


def test_depth_maps_are_in_units_of_their_mean(tmp_path):
    path = tmp_path / "d.png"
    Image.fromarray(np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5)).save(path)
    depth = ImageFile(path).load_depth()
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, np.arange(0, 250, 10).reshape(5, 5) / 120, rtol=1e-6)
    metres = (np.arange(25, dtype=np.float32) * 4).reshape(5, 5)
    Image.fromarray(metres).save(tmp_path / "d.tif")
    np.testing.assert_allclose(ImageFile(tmp_path / "d.tif").load_depth(), metres / 48, rtol=1e-6)
    Image.new("L", (5, 5)).save(tmp_path / "zero.png")
    path.write_bytes(b"no image")
    for name in ("d", "zero"):
        with pytest.raises(MaximirError, match=rf"{name}\.png: cannot be read as a depth map"):
            ImageFile(tmp_path / f"{name}.png").load_depth()


def test_corrupt_images_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in ("jpg", "png"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(noise).save(path)
        cut(path, path.stat().st_size // 2)
        with pytest.raises(MaximirError, match=rf"cut\.{suffix}: cannot be read as an image"):
            ImageFile(path).load()
    pack(tmp_path / "s.tar", save(tmp_path / "loose", "a.png"))
    packed = list_images(tmp_path / "s.tar")[0][1]
    bytes_of_shard = bytearray((tmp_path / "s.tar").read_bytes())
    bytes_of_shard[packed.member[1] : packed.member[1] + 30] = bytes(30)
    (tmp_path / "s.tar").write_bytes(bytes_of_shard)
    for read in (packed.load, packed.size):
        with pytest.raises(MaximirError, match=r"s\.tar:.*a\.png: cannot be read as an image"):
            read()
    with pytest.raises(MaximirError, match=r"gone\.png: cannot be read as an image"):
        ImageFile(tmp_path / "gone.png").size()
