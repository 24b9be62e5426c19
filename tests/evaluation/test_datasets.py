import os
import re
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from maximir import MaximirError, UsageError
from maximir.evaluation.datasets import Source, find_cases, match_restored, read_blocks
from maximir.evaluation.layouts import BY_NAME, LAYOUTS, compiled
from maximir.evaluation.protocols import PROTOCOLS


def make(folder, *names):
    """Empty files: nothing is decoded to find them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def images_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def below(root, source):
    return source.path.relative_to(root).as_posix()


def pairs_of(found, root):
    """Input → target, below the folder."""
    return {below(root, case.input): below(root, case.target) for case in found.cases}


# Layout, DIR below the folder of the files, and a line for each pair (input, target, set) or other file.
VARIANTS = {
    "rain13k": ("rain13k", ".", """
        Rain100H/input/1.png      Rain100H/target/1.png      Rain100H
        Rain100H/input/10.png     Rain100H/target/10.png     Rain100H
        Test2800/input/901_1.jpg  Test2800/target/901_1.png  Test2800
        Practical/input/1.png
    """),
    "rain13k, above test": ("rain13k", ".", """
        test/Test100/input/1.png   test/Test100/target/1.png   Test100
        test/Rain100L/input/1.png  test/Rain100L/target/1.png  Rain100L
        train/Rain13K/input/1.jpg
        train/Rain13K/target/1.jpg
    """),
    "rain13k, one set": ("rain13k", "Test1200", """
        Test1200/input/1.png  Test1200/target/1.png
    """),
    "rain100, rainy": ("rain100", ".", """
        Rain100L/rainy/rain-001.png  Rain100L/norain-001.png  Rain100L
        Rain100H/rainy/rain-001.png  Rain100H/norain-001.png  Rain100H
    """),
    "rain100, one folder": ("rain100", ".", """
        rain-001.png  norain-001.png
    """),
    "rain100, two folders": ("rain100", ".", """
        x/rain/rain-001.png  x/norain/norain-001.png
        x/rain/rain-002.png  x/norain/norain-002.png
    """),
    "rain100, later release": ("rain100", ".", """
        rain/X2/norain-1x2.png   norain/norain-1.png
        rain/X2/norain-11x2.png  norain/norain-11.png
        rain/X3/norain-1x3.png
    """),
    "rain100, later release, heavy": ("rain100", ".", """
        rain/norain-1.png  norain/norain-1.png
    """),
    "gopro": ("gopro", ".", """
        test/GOPR0384_11_00/blur/000001.png  test/GOPR0384_11_00/sharp/000001.png
        test/GOPR0410_11_00/blur/000001.png  test/GOPR0410_11_00/sharp/000001.png
        test/GOPR0384_11_00/blur_gamma/000001.png
        train/GOPR0372_07_00/blur/000047.png
        train/GOPR0372_07_00/sharp/000047.png
    """),
    "gopro, repackaged": ("gopro", ".", """
        input/GOPR0384_11_00-000001.png  target/GOPR0384_11_00-000001.png
    """),
    "hide": ("hide", ".", """
        test/test-close-ups/1fromGOPR0950.png      GT/1fromGOPR0950.png      test-close-ups
        test/test-long-shot/9fromGOPR1096.MP4.png  GT/9fromGOPR1096.MP4.png  test-long-shot
        train/2fromGOPR0950.png
        GT/2fromGOPR0950.png
    """),
    "hide, repackaged": ("hide", "HIDE/test", """
        HIDE/test/input/1fromGOPR0950.png  HIDE/test/target/1fromGOPR0950.png
    """),
    "realblur": ("realblur", ".", """
        RealBlur-J_x/scene001/blur/blur_2.png          RealBlur-J_x/scene001/gt/gt_2.png          RealBlur-J
        RealBlur-J_x/scene001/blur/blur_20.png         RealBlur-J_x/scene001/gt/gt_20.png         RealBlur-J
        RealBlur-J_x/scene244_reflect/blur/blur_2.png  RealBlur-J_x/scene244_reflect/gt/gt_2.png  RealBlur-J
        RealBlur-R_x/scene001/blur/blur_2.png          RealBlur-R_x/scene001/gt/gt_2.png          RealBlur-R
        RealBlur-R_x/scene001/blur/blur_20.png         RealBlur-R_x/scene001/gt/gt_20.png         RealBlur-R
        RealBlur-R_x/scene244_reflect/blur/blur_2.png  RealBlur-R_x/scene244_reflect/gt/gt_2.png  RealBlur-R
    """),
    "realblur, repackaged": ("realblur", ".", """
        RealBlur_J/input/scene050_1.png  RealBlur_J/target/scene050_1.png  RealBlur_J
        RealBlur_R/input/scene050_1.png  RealBlur_R/target/scene050_1.png  RealBlur_R
    """),
    "sidd, medium": ("sidd", "Data", """
        Data/0001_001_S6/0001_NOISY_SRGB_010.PNG  Data/0001_001_S6/0001_GT_SRGB_010.PNG
        Data/0001_001_S6/0001_NOISY_SRGB_011.PNG  Data/0001_001_S6/0001_GT_SRGB_011.PNG
    """),
    "sidd, small": ("sidd", ".", """
        0001_S6/NOISY_SRGB_010.PNG  0001_S6/GT_SRGB_010.PNG
    """),
    "raindrop": ("raindrop", ".", """
        test_a/data/0_rain.png  test_a/gt/0_clean.png  test_a
        test_b/data/0_rain.jpg  test_b/gt/0_clean.jpg  test_b
        train/data/0_rain.png
        train/gt/0_clean.png
    """),
    "raindrop, one set": ("raindrop", "test_a", """
        test_a/data/3_rain.png  test_a/gt/3_clean.png
    """),
    "sots": ("sots", ".", """
        SOTS/indoor/nyuhaze500/hazy/1400_1.png   SOTS/indoor/nyuhaze500/gt/1400.png  indoor
        SOTS/indoor/nyuhaze500/hazy/1400_10.png  SOTS/indoor/nyuhaze500/gt/1400.png  indoor
        SOTS/outdoor/hazy/0001_0.8_0.2.jpg       SOTS/outdoor/gt/0001.png            outdoor
    """),
    "sots, one set, clear": ("sots", "indoor", """
        indoor/hazy/1400_2.png   indoor/clear/1400.png
        indoor/hazy/1401_10.png  indoor/clear/1401.png
    """),
    "ohaze": ("ohaze", ".", """
        hazy/01_outdoor_hazy.jpg  GT/01_outdoor_GT.jpg
    """),
    "nh-haze": ("ohaze", ".", """
        01_hazy.png  01_GT.png
        02_hazy.png  02_GT.png
    """),
    "polyu": ("polyu", ".", """
        Canon_bag_1_Real.JPG  Canon_bag_1_mean.JPG
    """),
    "lol": ("lol", ".", """
        eval15/low/1.png   eval15/high/1.png
        eval15/low/22.png  eval15/high/22.png
        our485/low/2.png
        our485/high/2.png
    """),
    "lol, second": ("lol", ".", """
        Real_captured/Test/Low/low00690.png  Real_captured/Test/Normal/normal00690.png  Real_captured
        Synthetic/Test/Low/r000da54ft.png    Synthetic/Test/Normal/r000da54ft.png       Synthetic
        Synthetic/Test/Low/lowland.png       Synthetic/Test/Normal/lowland.png          Synthetic
        Real_captured/Train/Low/low00001.png
        Real_captured/Train/Normal/normal00001.png
    """),
    "fivek": ("fivek", ".", """
        input/1.png  expertC_gt/1.png
        expertA_gt/1.png
    """),
    "fivek, repackaged": ("fivek", ".", """
        test/input/a4541-DSC_0040-2.png  test/target/a4541-DSC_0040-2.png
    """),
    "reds": ("reds", ".", """
        val/val_blur/000/00000009.png       val/val_sharp/000/00000009.png  val_blur
        val/val_blur/000/00000019.png       val/val_sharp/000/00000019.png  val_blur
        val/val_blur_jpeg/000/00000009.jpg  val/val_sharp/000/00000009.png  val_blur_jpeg
        val/val_blur_jpeg/000/00000019.jpg  val/val_sharp/000/00000019.png  val_blur_jpeg
        val/val_blur/000/00000010.png
        val/val_sharp/000/00000010.png
        val/val_blur_bicubic/000/09.png
    """),
    "reds, prepared": ("reds", ".", """
        blur_300/000_00000009.jpg  sharp_300/000_00000009.png
    """),
    "maximir": ("maximir", ".", """
        haze/1_light_input.webp   haze/1_target.png
        haze/1_strong_input.webp  haze/1_target.png
        haze/10_input.png         haze/10_target.png
        rain/1.input.png          rain/1.target.png
        x/input.png               x/target.png
        haze/1_depth.png
    """),
    "maximir, folders": ("maximir", ".", """
        input/1.jpg             target/1.png
        input/1_b.jpg           target/1_b.png
        input/2_light.png       target/2.png
        input/deep/3_input.png  target/deep/3_target.png
    """),
    "pairs": ("pairs", ".", """
        lq/1.png        GT/1.png
        lq/deep/10.png  GT/deep/10.png
        lq/1_b.png      GT/1_b.png
        masks/1.png
    """),
    "pairs, several places": ("pairs", ".", """
        a/noisy/1.png  a/clean/1.png
        b/noisy/1.png  b/clean/1.png
    """),
}  # fmt: skip


def variant_of(name):
    """The layout's name, DIR below the data's folder, [(input, target, set)], other files."""
    layout, place, text = VARIANTS[name]
    lines = [line.split() for line in text.splitlines() if line.strip()]
    pairs = [(*line, "")[:3] for line in lines if len(line) > 1]
    return layout, place, pairs, [line[0] for line in lines if len(line) == 1]


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_layouts_are_recognised_and_paired(variant, explicit, tmp_path):
    layout, place, expected, others = variant_of(variant)
    data = make(tmp_path / "data", *{name for pair in expected for name in pair[:2]}, *others)
    found = find_cases(data / place, layout if explicit else None)
    assert found.layout is BY_NAME[layout]
    pairs = [(below(data, case.input), below(data, case.target), case.set) for case in found.cases]
    assert sorted(pairs) == sorted(expected)
    assert found.left_out == ()
    assert found.ignored == len(others)
    for case in found.cases:
        assert case.name == below(data / place, case.input).rpartition(".")[0]
        assert case.crop == (layout == "sots")
    assert [case.name for case in found.cases] == sorted(case.name for case in found.cases)


def test_every_layout_has_a_variant_and_a_known_protocol():
    assert {variant[0] for variant in VARIANTS.values()} | {"clean"} == {layout.name for layout in LAYOUTS}
    assert len(BY_NAME) == len(LAYOUTS)
    for layout in LAYOUTS:
        assert layout.protocol in PROTOCOLS
        for rule in compiled(layout):  # names are shortened from the end: what is shortened must be the last
            assert "n" not in rule.common[:-1]


def test_pairs_are_not_those_of_sorted_folders(tmp_path):
    """The control: zipping sorted folders, as is often done, pairs wrongly here, and nobody would notice."""
    make(tmp_path, *(f"hazy/{n}.png" for n in ("1400_1", "1400_2", "1401_1")))
    make(tmp_path, *(f"gt/{n}.png" for n in ("1400", "1401", "1402")))
    sides = [
        sorted(below(tmp_path, Source(path)) for path in (tmp_path / side).iterdir())
        for side in ("hazy", "gt")
    ]
    zipped = dict(zip(*sides, strict=True))
    found = find_cases(tmp_path)
    right = {
        "hazy/1400_1.png": "gt/1400.png",
        "hazy/1400_2.png": "gt/1400.png",
        "hazy/1401_1.png": "gt/1401.png",
    }
    assert pairs_of(found, tmp_path) == right != zipped
    assert found.left_out == (("gt/1402.png", "no input"),)


@pytest.mark.parametrize("place", [".", "test", "test/Rain100H"])
def test_the_folder_may_be_that_of_one_set_or_above(place, tmp_path):
    make(tmp_path / "test" / "Rain100H", "input/1.png", "target/1.png")
    found = find_cases(tmp_path / place)
    assert found.layout.name == "rain13k" and found.layout.protocol == "rain" and len(found.cases) == 1


def test_relative_folders(tmp_path, monkeypatch):
    make(tmp_path / "Rain100H", "input/1.png", "target/1.png")
    monkeypatch.chdir(tmp_path / "Rain100H")
    for root in (".", "../Rain100H", "input/.."):
        found = find_cases(type(tmp_path)(root))
        assert found.layout.name == "rain13k" and [case.name for case in found.cases] == ["input/1"]


# Clean images


def test_clean_images_are_sets_by_their_folders(tmp_path):
    data = make(
        tmp_path, "CBSD68/101085.png", "CBSD68/119082.png", "Set14/deep/baboon.bmp", "Kodak24/kodim01.tif"
    )
    found = find_cases(data)
    assert found.layout.name == "clean"
    assert [(case.name, case.set, case.input) for case in found.cases] == [
        ("CBSD68/101085", "CBSD68", None),
        ("CBSD68/119082", "CBSD68", None),
        ("Kodak24/kodim01", "Kodak24", None),
        ("Set14/deep/baboon", "deep", None),
    ]
    assert found.cases[3].target.path == data / "Set14/deep/baboon.bmp"
    (one, two) = find_cases(data / "CBSD68").cases
    assert one.set == two.set == ""


def test_clean_images_may_lie_in_folders_called_so(tmp_path):
    found = find_cases(make(tmp_path / "clean", "high/1.png", "clean/2.png").parent)
    assert found.layout.name == "clean" and len(found.cases) == 2


def test_the_same_names_twice_are_not_taken_for_clean_images(tmp_path):
    """They may be pairs in folders of unknown names."""
    make(tmp_path, "A/1.png", "A/2.png", "B/1.jpg", "B/2.jpg")
    with pytest.raises(
        MaximirError, match=r"A and B hold the same names.*input/NAME and target/NAME.*--layout"
    ):
        find_cases(tmp_path)
    assert len(find_cases(tmp_path, "clean").cases) == 4
    make(tmp_path, "B/3.jpg")
    assert find_cases(tmp_path).layout.name == "clean"


# What does not match


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["lq/2.png"], {"lq/2.png": "no target"}),
        (["gt/2.png"], {"gt/2.png": "no input"}),
        (["lq/1_b.png"], {"lq/1_b.png": "no target"}),  # gt/1 is not its target
        (["lq/a/1.png", "gt/b/1.png"], {"lq/a/1.png": "no target", "gt/b/1.png": "no input"}),
        (
            ["lq/2.png", "gt/2.png", "gt/2.jpg"],
            {
                "lq/2.png": "2 targets: gt/2.jpg, gt/2.png",
                "gt/2.jpg": "its input is left out",
                "gt/2.png": "its input is left out",
            },
        ),
        (
            ["lq/2.png", "lq/2.jpg", "gt/2.png"],
            {
                "lq/2.jpg": "another image has this name",
                "lq/2.png": "another image has this name",
                "gt/2.png": "its input is left out",
            },
        ),
        (["gt/2.png", "gt/2.jpg"], {"gt/2.png": "no input", "gt/2.jpg": "no input"}),
        (
            ["lq/2.png", "gt/2.png", "clean/2.png"],
            {
                "lq/2.png": "2 targets: clean/2.png, gt/2.png",
                "clean/2.png": "its input is left out",
                "gt/2.png": "its input is left out",
            },
        ),
        (["LQ/2.png", "Gt/2.PNG"], {}),
        (["lq/A.png", "gt/a.png"], {"lq/A.png": "no target", "gt/a.png": "no input"}),  # names are names
    ],
)  # fmt: skip
def test_mismatches_are_listed(names, left_out, tmp_path):
    make(tmp_path, "lq/1.png", "gt/1.png", "else/1.png", *names)
    found = find_cases(tmp_path)
    assert found.layout.name == "pairs"
    listed = {**dict(found.left_out), **dict(found.beside)}
    assert listed == left_out and len(found.left_out) + len(found.beside) == len(left_out)
    assert {file for file, _ in found.beside} == {
        file for file, why in left_out.items() if why == "its input is left out"
    }
    assert pairs_of(found, tmp_path).items() >= {("lq/1.png", "gt/1.png")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_image_is_in_a_case_or_listed_or_counted(variant, tmp_path):
    """Also when images are missing: each one in turn of the special layouts."""
    layout, place, expected, others = variant_of(variant)
    data = make(tmp_path / "data", *{name for pair in expected for name in pair[:2]}, *others)
    root = data / place
    for gone in images_of(root):
        (root / gone).unlink()
        try:
            found = find_cases(root, layout)
        except MaximirError:
            assert len(expected) == 1
        else:
            used = {source.path for case in found.cases for source in (case.input, case.target)}
            listed = [*found.left_out, *found.beside]
            assert len(used) + len(listed) + found.ignored == len(images_of(root))
            assert len(found.cases) >= len(expected) - 3
            named = {root / file for file, _ in listed}
            assert not named & used and all(path.is_file() for path in named)
        make(root, gone)


def test_a_clean_image_twice_is_listed(tmp_path):
    found = find_cases(make(tmp_path, "1.png", "2.png", "2.jpg"))
    assert [case.name for case in found.cases] == ["1"]
    assert found.left_out == tuple((name, "another image has this name") for name in ("2.jpg", "2.png"))


def test_targets_of_training_images_of_hide_are_not_listed(tmp_path):
    make(
        tmp_path,
        "test/test-close-ups/1.png",
        "test/test-close-ups/2.png",
        "GT/1.png",
        "GT/3.png",
        "train/3.png",
    )
    found = find_cases(tmp_path)
    assert found.left_out == (("test/test-close-ups/2.png", "no target"),) and found.ignored == 2


def test_names_are_not_shortened_in_a_special_layout(tmp_path):
    """Nor does the layout that would do so come in its place."""
    found = find_cases(make(tmp_path / "Rain100H", "input/1.png", "target/1.png", "input/1_b.png"))
    assert found.layout.name == "rain13k" and found.left_out == (("input/1_b.png", "no target"),)


# Which layout


def test_several_datasets_in_one_folder_must_be_told_apart(tmp_path):
    make(tmp_path, "GoPro/test/input/GOPR1-1.png", "GoPro/test/target/GOPR1-1.png")
    make(
        tmp_path,
        "HIDE/test/input/1.png",
        "HIDE/test/target/1.png",
        "HIDE/test/input/2.png",
        "HIDE/test/target/2.png",
    )
    with pytest.raises(MaximirError, match=r"several layouts \(gopro: 1, hide: 2\); .*--layout NAME"):
        find_cases(tmp_path)
    assert len(find_cases(tmp_path, "hide").cases) == 2
    assert find_cases(tmp_path, "hide").ignored == 2
    assert find_cases(tmp_path / "GoPro").layout.name == "gopro"


def test_a_general_layout_is_not_taken_where_a_special_one_fits_less(tmp_path):
    """It would be one or the other; rather ask."""
    make(tmp_path, "input/GOPR1-1.png", "target/GOPR1-1.png", "input/1.png", "target/1.png")
    with pytest.raises(MaximirError, match=r"several layouts \(gopro: 1, maximir: 2\)"):
        find_cases(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["input/a.png"],
        ["input/a.png", "other/b.png"],
        ["a_input.png", "b_target.png"],
        ["low/a.png", "high/b.png"],
    ],
)
def test_inputs_without_any_target_are_not_clean_images(names, tmp_path):
    message = r"looks like an input, but none has a target\. Name pairs input/NAME and target/NAME.*--layout"
    with pytest.raises(MaximirError, match=message) as caught:
        find_cases(make(tmp_path, *names))
    assert all(layout in str(caught.value) for layout in BY_NAME) and "\n" not in str(caught.value)
    assert len(find_cases(tmp_path, "clean").cases) == len(names)


def test_a_layout_that_does_not_fit_is_one_sentence(tmp_path):
    make(tmp_path, "hazy/1400_1.png", "target/1400.png")
    with pytest.raises(
        MaximirError, match=r"nothing to score by --layout sots: .*hazy/1400_1\.png: no target"
    ):
        find_cases(tmp_path, "sots")
    with pytest.raises(MaximirError, match=r"nothing to score by --layout reds: .*val_sharp"):
        find_cases(tmp_path, "reds")
    with pytest.raises(UsageError, match="--layout snow: unknown layout; choose one of rain13k, "):
        find_cases(tmp_path, "snow")


def test_folders_without_images_and_none_at_all(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    make(tmp_path / "GoPro", "train/a.png")
    for name, message in (
        ("notes.txt", "notes.txt: is not a folder$"),
        ("gone", "gone: no such folder$"),
        ("GoPro", "GoPro: contains no images except training images; to score these, name their folder$"),
    ):
        with pytest.raises(MaximirError, match=message):
            find_cases(tmp_path / name)
    assert len(find_cases(tmp_path / "GoPro" / "train").cases) == 1
    (tmp_path / "GoPro" / "train" / "a.png").unlink()
    with pytest.raises(MaximirError, match=r"contains no images$"):
        find_cases(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MaximirError, match=re.escape(f"{tmp_path}: permission denied")):
        find_cases(tmp_path)


# Files and names


def test_hidden_files_and_folders_are_not_seen(tmp_path):
    make(tmp_path, "input/1.png", "target/1.png")
    make(
        tmp_path,
        "input/._1.png",
        "target/.2.png",
        ".cache/input/3.png",
        "input/Thumbs.db",
        "list.txt",
        "x.mat",
    )
    found = find_cases(tmp_path)
    assert len(found.cases) == 1 and not found.left_out and not found.ignored


@pytest.mark.parametrize(
    "name",
    ["a b", "a\nb", "ü 漢字", "[1-2]*", "a.b.c", "a(b", "a%20\\b", "input", "-", "_", "a_input_b", "\udcff"],
)
def test_odd_names(name, tmp_path):
    make(tmp_path, f"x{name}/input/{name}.PNG", f"x{name}/target/{name}.jpeg", f"x{name}/input/none.png")
    found = find_cases(tmp_path)
    assert pairs_of(found, tmp_path) == {f"x{name}/input/{name}.PNG": f"x{name}/target/{name}.jpeg"}
    assert found.left_out == ((f"x{name}/input/none.png", "no target"),)


def test_links_to_folders_are_followed_but_not_round_and_round(tmp_path):
    make(tmp_path / "store", "a/1.png", "b/1.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "input").symlink_to(tmp_path / "store" / "a")
    (data / "target").symlink_to(tmp_path / "store" / "b")
    (data / "self").symlink_to(data)
    (tmp_path / "store" / "a" / "up").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "a" / "back").symlink_to(data / "more")
    make(data, "more/input/2.png", "more/target/2.png")
    (data / "more" / "aside").symlink_to(tmp_path / "store" / "a")
    assert pairs_of(find_cases(data), data) == {
        "input/1.png": "target/1.png",
        "more/input/2.png": "more/target/2.png",
    }


def test_only(tmp_path):
    make(
        tmp_path,
        *(f"haze/14{n}_{kind}.png" for n in ("00", "01", "11") for kind in ("a_input", "b_input", "target")),
    )
    make(tmp_path, "haze/1402_a_input.png")
    for patterns, expected in (
        (["1400"], ["haze/1400_a_input", "haze/1400_b_input"]),
        (["14?1"], [f"haze/14{n}_{k}_input" for n in ("01", "11") for k in "ab"]),
        (["1400_a_input", "haze/1411"], ["haze/1400_a_input", "haze/1411_a_input", "haze/1411_b_input"]),
        (["haze/*_a_*"], [f"haze/14{n}_a_input" for n in ("00", "01", "11")]),
    ):
        found = find_cases(tmp_path, only=patterns)
        assert [case.name for case in found.cases] == expected
        assert found.left_out == (("haze/1402_a_input.png", "no target"),) and not found.ignored
    with pytest.raises(MaximirError, match="no image matches 15\\* or 1402"):
        find_cases(tmp_path, only=["15*", "1402"])


def test_only_by_the_names_of_training(tmp_path):
    """Scenes have the names that `hold_out` of a recipe knows."""
    make(tmp_path, "2_input.png", "2_target.png", "12_input.png", "12_target.png")
    assert [case.name for case in find_cases(tmp_path, only=["2"]).cases] == ["2_input"]


@pytest.mark.parametrize("place", [".", "test", "test/Rain100H"])
def test_only_does_not_depend_on_what_is_above(place, tmp_path):
    make(tmp_path / "test" / "Rain100H", "input/1.png", "target/1.png", "input/2.png", "target/2.png")
    (case,) = find_cases(tmp_path / place, only=["1"]).cases
    assert case.name.endswith("input/1")
    scene = {".": "test/Rain100H/2", "test": "Rain100H/2", "test/Rain100H": "2"}[place]
    assert len(find_cases(tmp_path / place, only=[scene]).cases) == 1
    with pytest.raises(MaximirError, match="no image matches"):
        find_cases(tmp_path / place, only=[f"*{tmp_path.name}*"])


# RealBlur's lists of test images


def realblur(folder, letter, scenes, listed):
    """The folder of one kind and the list beside it: targets, then inputs, as released."""
    kind = f"RealBlur-{letter}_x"
    for scene in scenes:
        make(folder / kind, *(f"{scene}/{part}/{part}_{n}.png" for part in ("blur", "gt") for n in (1, 10)))
    lines = [f"{kind}/{scene}/gt/gt_{n}.png {kind}/{scene}/blur/blur_{n}.png \n" for scene, n in listed]
    (folder / f"RealBlur_{letter}_test_list.txt").write_text("".join(lines))
    return folder / kind


def test_realblur_has_lists_of_what_is_for_testing(tmp_path):
    j = realblur(tmp_path / "RealBlur", "J", ["scene1", "scene2"], [("scene1", 1), ("scene1", 10)])
    realblur(tmp_path / "RealBlur", "R", ["scene1", "scene2"], [("scene2", 10)])
    found = find_cases(tmp_path)
    names = [case.name.split("RealBlur-")[1] for case in found.cases]
    assert names == ["J_x/scene1/blur/blur_1", "J_x/scene1/blur/blur_10", "R_x/scene2/blur/blur_10"]
    assert [case.set for case in found.cases] == ["RealBlur-J", "RealBlur-J", "RealBlur-R"]
    assert found.left_out == () and found.ignored == 16 - 6
    for case in found.cases:
        assert case.target.path.parts[-3] == case.input.path.parts[-3]
    assert [case.name for case in find_cases(j).cases] == ["scene1/blur/blur_1", "scene1/blur/blur_10"]
    assert found.notes == ()
    (tmp_path / "RealBlur" / "RealBlur_R_test_list.txt").unlink()
    found = find_cases(tmp_path)
    assert len(found.cases) == 2 + 4
    note = "without RealBlur_R_test_list.txt all pairs of RealBlur-R_x count, including those for training"
    assert found.notes == (note,)


def test_what_realblurs_list_names_must_be_there(tmp_path):
    realblur(tmp_path, "J", ["scene1"], [("scene1", 1), ("scene1", 2), ("scene3", 1)])
    found = find_cases(tmp_path)
    assert [case.name for case in found.cases] == ["RealBlur-J_x/scene1/blur/blur_1"]
    assert found.left_out == tuple(
        (f"RealBlur-J_x/scene{s}/blur/blur_{n}.png", "in the list of test images, but missing")
        for s, n in ((1, 2), (3, 1))
    )


# SIDD's blocks


def save_blocks(folder, scenes=2):
    rng = np.random.default_rng(0)
    arrays = []
    for part in ("Noisy", "Gt"):
        name = f"Validation{part}BlocksSrgb"
        arrays.append(rng.integers(0, 256, (scenes, 3, 8, 6, 3), dtype=np.uint8))
        savemat(folder / f"{name}.mat", {name: arrays[-1]}, do_compression=True)
    return arrays


def test_blocks_of_sidd(tmp_path, monkeypatch):
    noisy, clean = save_blocks(tmp_path)
    reads = []
    monkeypatch.setattr("scipy.io.loadmat", lambda path, **kw: reads.append(path) or loadmat(path, **kw))
    read_blocks.cache_clear()
    found = find_cases(tmp_path)
    assert found.layout.name == "sidd" and not found.left_out and not found.ignored
    assert not reads  # headers are enough
    names = [f"ValidationNoisyBlocksSrgb/{scene:04d}_{block:02d}" for scene in (1, 2) for block in (1, 2, 3)]
    assert [case.name for case in found.cases] == names
    for number, case in enumerate(found.cases):
        at = divmod(number, 3)
        np.testing.assert_array_equal(case.input.load(), noisy[at])
        np.testing.assert_array_equal(case.target.load(), clean[at])
        assert case.target.load().flags.c_contiguous and case.target.load().dtype == np.uint8
    assert len(reads) == 2
    assert str(found.cases[4].target).endswith("ValidationGtBlocksSrgb.mat:4")
    assert [case.name for case in find_cases(tmp_path, only=["0002_01"]).cases] == [names[3]]
    read_blocks.cache_clear()


def test_restored_blocks_of_sidd(tmp_path):
    """As images; a .mat file of them, as the field's scripts write, is named rather than passed over."""
    data = tmp_path / "data"
    data.mkdir()
    save_blocks(data)
    found = find_cases(data)
    folder = make(tmp_path / "out", *(f"{scene:04d}_{block:02d}.png" for scene in (1, 2) for block in (1, 2)))
    savemat(folder / "Idenoised.mat", {"Idenoised": np.zeros((2, 3, 8, 6, 3), np.float32)})
    restored, missing, beside = match_restored(found, folder)
    assert restored["ValidationNoisyBlocksSrgb/0002_01"] == folder / "0002_01.png" and len(restored) == 4
    assert len(missing) == 2 and beside == [
        ("Idenoised.mat", "is not an image: save its blocks as images, NNNN_NN.png")
    ]


def test_blocks_of_sidd_that_do_not_fit(tmp_path):
    save_blocks(tmp_path)
    for folder in "abc":
        (tmp_path / folder).mkdir()
    save_blocks(tmp_path / "a", scenes=3)
    gt = "ValidationGtBlocksSrgb.mat"
    (tmp_path / "b" / gt).write_bytes(b"no MATLAB")
    savemat(tmp_path / "c" / gt, {"x": np.zeros((2, 3))})
    for folder in "abc":
        (tmp_path / folder / "ValidationNoisyBlocksSrgb.mat").write_bytes(
            (tmp_path / "ValidationNoisyBlocksSrgb.mat").read_bytes()
        )
    for folder, message in (
        ("a", r"nothing to score .*its blocks are \(2, 3, 8, 6, 3\), those of .* are \(3, 3, 8, 6, 3\)"),
        ("b", rf"{gt}: cannot be read as a \.mat file"),
        ("c", rf"{gt}: has no blocks of images"),
    ):
        with pytest.raises(MaximirError, match=message):
            find_cases(tmp_path / folder)


def test_damaged_blocks_of_sidd_are_one_sentence(tmp_path):
    save_blocks(tmp_path)
    path = tmp_path / "ValidationGtBlocksSrgb.mat"
    found = find_cases(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    read_blocks.cache_clear()
    with pytest.raises(MaximirError, match=r"GtBlocksSrgb\.mat: cannot be read as a \.mat file"):
        found.cases[0].target.load()


def test_without_scipy_blocks_cannot_be_read(tmp_path, monkeypatch):
    save_blocks(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MaximirError, match=r"needs SciPy: pip install 'maximir\[evaluate\]'"):
        find_cases(tmp_path)


# Pixels


def test_images_are_loaded_as_rgb_of_8_or_16_bits(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (4, 5, 4), dtype=np.uint8)
    deep = rng.integers(0, 65536, (4, 5), dtype=np.uint16)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "b.png")
    a, b = (case.target.load() for case in find_cases(tmp_path).cases)
    np.testing.assert_array_equal(a, rgba[..., :3])
    np.testing.assert_array_equal(b, np.repeat(deep[..., None], 3, axis=-1))
    assert a.dtype == np.uint8 and b.dtype == np.uint16


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (case,) = find_cases(make(tmp_path, "a.png")).cases
    with pytest.raises(MaximirError, match=r"a\.png: the file is empty"):
        case.target.load()
    assert str(case.target) == str(tmp_path / "a.png")


# Restored images


@pytest.fixture
def rain(tmp_path):
    make(
        tmp_path / "data",
        *(f"test/Rain100{s}/{part}/{n}.png" for s in "HL" for part in ("input", "target") for n in (1, 2)),
    )
    return find_cases(tmp_path / "data")


@pytest.mark.parametrize(
    "name",
    ["test/Rain100{}/input/{}.png", "Rain100{}/input/{}.jpg", "Rain100{}/{}.png", "test/Rain100{}/{}.PNG"],
)
def test_restored_images_are_matched_by_the_end_of_their_paths(name, rain, tmp_path):
    folder = make(tmp_path / "out", *(name.format(s, n) for s in "HL" for n in (1, 2)))
    restored, missing, beside = match_restored(rain, folder)
    assert restored == {
        f"test/Rain100{s}/input/{n}": folder / name.format(s, n) for s in "HL" for n in (1, 2)
    }
    assert missing == beside == []


def test_restored_images_that_do_not_match_are_listed(rain, tmp_path):
    folder = make(
        tmp_path / "out",
        "Rain100H/1.png",
        "Rain100H/2.png",
        "Rain100H/2.jpg",
        "Rain100L/3.png",
        "1.png",
        "ain100L/2.png",
    )
    restored, missing, beside = match_restored(rain, folder)
    assert restored == {"test/Rain100H/input/1": folder / "Rain100H/1.png"}
    assert dict(beside) == {
        "1.png": "could be any of 2 cases",
        "Rain100L/3.png": "belongs to no case",
        "ain100L/2.png": "belongs to no case",
    }
    assert dict(missing) == {
        "test/Rain100H/input/2": "2 files: Rain100H/2.jpg, Rain100H/2.png",
        "test/Rain100L/input/1": "not restored",
        "test/Rain100L/input/2": "not restored",
    }  # fmt: skip
    with pytest.raises(MaximirError, match="nowhere: no such folder"):
        match_restored(rain, tmp_path / "nowhere")


def test_the_whole_name_of_a_case_comes_before_the_end_of_another(tmp_path):
    found = find_cases(make(tmp_path / "data", "1.png", "x/1.png", "x/2.png"))
    folder = make(tmp_path / "out", "1.png", "x/1.png", "2.png")
    restored, missing, beside = match_restored(found, folder)
    assert restored == {"1": folder / "1.png", "x/1": folder / "x/1.png", "x/2": folder / "2.png"}
    assert missing == beside == []


def test_restored_images_of_formats_that_are_not_written_have_two_suffixes(tmp_path):
    found = find_cases(make(tmp_path / "data", "a.bmp", "b.png"))
    folder = make(tmp_path / "out", "a.bmp.png", "b.png.png")
    restored, missing, beside = match_restored(found, folder)
    assert restored == {"a": folder / "a.bmp.png"}
    assert (missing, beside) == ([("b", "not restored")], [("b.png.png", "belongs to no case")])
