r"""Names of files in the field's datasets as they are downloaded: a table of layouts, and its compiler.

A layout is a few rules. A rule is two regular expressions: for the paths of inputs, and for the paths of
their targets.

- They match the whole path below DIR, without suffix. Any folders may precede, and case is ignored:
  `haz[ey]/...` finds `SOTS/outdoor/Hazy/0001_0.8_0.2.jpg`.
- `{n}` stands for a name; `{n:\d+}` for the expression after the colon, also in the target. Input and target
  are a pair if all groups in both have the same text, and the preceding folders too: by `hazy/{n:\d+}_[^/]+`
  and `gt/{n}`, `hazy/1400_1.png` and `hazy/1400_2.png` belong to `gt/1400.png`.
- `{set:...}` is a part of the data that gets its own result. A rule with it also sees the names of DIR and of
  its parent folder, so that DIR may be `test` or `test/Rain100H`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

PLACE = re.compile(r"\{([a-z]+)(?::([^}]*))?\}")  # {n} or {n:...} in a rule


@dataclass(frozen=True)
class Layout:
    """The naming of a dataset's files.

    Attributes:
        name: for `--layout`.
        protocol: the usual protocol for its scores, for `--protocol`.
        looks: description for users.
        rules: for inputs and targets, see above; (): all images are clean, without inputs.
        crop: crop a target larger than its input to its centre.
        shared: several inputs may share a target: `1400` matches if no target is called `1400_light`.
        spare: targets without inputs (those of the training images) exist and are not listed.
    """

    name: str
    protocol: str
    looks: str
    rules: tuple[tuple[str, str], ...]
    crop: bool = False
    shared: bool = False
    spare: bool = False


# Special ones first: where two find the same pairs, the first wins. "Seen": in the repositories named, or in
# several public loaders that read files by these names. "Memory": not looked up.
LAYOUTS = (
    # Seen: swz30/Restormer, Deraining/Datasets; google-research/maxim, run_eval.py (same names).
    Layout("rain13k", "rain", "{Test100,Rain100H,Rain100L,Test2800,Test1200}/{input,target}/NAME", (
        (r"{set:Test100|Rain100H|Rain100L|Test2800|Test1200}/input/{n}", r"{set}/target/{n}"),
    )),
    # Seen: loaders of Rain100 (rainy/ or rain/, and norain/, gt/ or none), and of its later release, where
    # rain/X2/norain-1x2.png is the rainy one.
    Layout("rain100", "rain", "rainy/rain-NUMBER, norain-NUMBER (or norain/norain-NUMBER)", (
        (r"{set:Rain[12]00[HL]}/(?:rainy?/)?rain-{n:\d+}", r"{set}/(?:(?:norain|gt)/)?norain-{n}"),
        (r"(?:rainy?/)?rain-{n:\d+}", r"(?:(?:norain|gt)/)?norain-{n}"),
        (r"rain/(?:X2/)?norain-{n:\d+}(?:x2)?", r"norain/norain-{n}"),
    )),
    # Seen: loaders (test/GOPR0384_11_00/{blur,sharp}; repackaged input/GOPR0384_11_00-000001.png).
    Layout("gopro", "gopro", "GOPR.../{blur,sharp}/NUMBER, or {input,target}/GOPR...", (
        (r"{seq:GOPR[^/]+}/blur/{n:\d+}", r"{seq}/sharp/{n}"),
        (r"(?:input|blur)/{n:GOPR[^/]+}", r"(?:target|sharp|gt)/{n}"),
    )),
    # Seen: loaders; swz30/Restormer, Motion_Deblurring/Datasets. GT also holds targets of the training
    # images.
    Layout("hide", "hide", "test/{test-close-ups,test-long-shot}/NAME, GT/NAME; or HIDE/{input,target}", (
        (r"(?:test/)?{set:test-close-ups|test-long-shot}/{n}", r"GT/{n}"),
        (r"{set:HIDE[^/]*}/(?:test/)?input/{n}", r"{set}/(?:test/)?target/{n}"),
    ), spare=True),
    # Seen: rimchang/RSBlur, datalist/RealBlur_J_test_list.txt; rimchang/RealBlur, evaluation_RealBlur_ecc.py;
    # swz30/Restormer, Motion_Deblurring/Datasets.
    Layout("realblur", "realblur", "sceneNNN/{blur/blur_N,gt/gt_N}, or RealBlur_{J,R}/{input,target}", (
        (r"{set:RealBlur-[JR]}[^/]*/{scene:scene[^/]+}/blur/blur_{n:\d+}", r"{set}[^/]*/{scene}/gt/gt_{n}"),
        (r"{scene:scene[^/]+}/blur/blur_{n:\d+}", r"{scene}/gt/gt_{n}"),
        (r"{set:RealBlur[_-][JR]}/(?:test/)?input/{n}", r"{set}/(?:test/)?target/{n}"),
    )),
    # Seen: swz30/MPRNet, Denoising/test_SIDD.py; loaders of SIDD-Medium and SIDD-Small (no number in front).
    Layout("sidd", "sidd", "Validation{Noisy,Gt}BlocksSrgb.mat, or SCENE/NNNN_{NOISY,GT}_SRGB_NNN", (
        (r"ValidationNoisyBlocksSrgb", r"ValidationGtBlocksSrgb"),
        (r"{p:[^/]*?}NOISY_SRGB_{n:\d+}", r"{p}GT_SRGB_{n}"),
    )),
    # Seen: loaders (test_a). Memory: test_b has the same names.
    Layout("raindrop", "raindrop", "{test_a,test_b}/{data/N_rain,gt/N_clean}", (
        (r"{set:test_[ab]}/data/{n}_rain", r"{set}/gt/{n}_clean"),
        (r"data/{n}_rain", r"gt/{n}_clean"),
    )),
    # Seen: loaders, which crop; indoors from 640 x 480 to 620 x 460 pixels: cddlyf/GCANet, issue 2.
    Layout("sots", "sots", "{indoor,outdoor}/{hazy/N_...,gt/N} (or clear for gt)", (
        (r"{set:indoor|outdoor|nyuhaze500}/(?:nyuhaze500/)?haz[ey]/{n:\d+}_[^/]+",
         r"{set}/(?:nyuhaze500/)?(?:gt|clear)/{n}"),
        (r"haz[ey]/{n:\d+}_[^/]+", r"(?:gt|clear)/{n}"),
    ), crop=True),
    # Seen: loaders of O-HAZE, I-HAZE and Dense-Haze. Memory: NH-HAZE has all files in one folder.
    Layout("ohaze", "rounded", "{hazy/NAME_hazy,GT/NAME_GT}, or both in one folder", (
        (r"(?:haz[ey]/)?{n}_haz[ey]", r"(?:gt/)?{n}_gt"),
    )),
    # Seen: csjunxu/PolyU-Real-World-Noisy-Images-Dataset, CroppedImages. Memory: CC15 has the same names.
    Layout("polyu", "rounded", "NAME_real, NAME_mean", (
        (r"{n}_real", r"{n}_mean"),
    )),
    # Seen: loaders, also of LOL-v2 (Real_captured has low00690.png and normal00690.png).
    Layout("lol", "lol", "eval15/{low,high}/NAME, or {Real_captured,Synthetic}/Test/{Low,Normal}/NAME", (
        (r"{set:eval15|Real_captured|Synthetic}/(?:Test/)?low/(?:low(?=\d))?{n}",
         r"{set}/(?:Test/)?(?:high|normal)/(?:normal(?=\d))?{n}"),
        (r"low/(?:low(?=\d))?{n}", r"(?:high|normal)/(?:normal(?=\d))?{n}"),
    )),
    # Seen: loaders (expertC_gt, C); google-research/maxim, images/Enhancement (a4541-DSC_0040-2).
    Layout("fivek", "fivek", "{input,expertC}/NAME (or expertC_gt, C), or {input,target}/aNNNN-NAME", (
        (r"input/{n}", r"(?:expert_?c(?:_gt)?|c)/{n}"),
        (r"input/{n:a\d\d\d\d-[^/]+}", r"(?:target|gt)/{n}"),
    )),
    # Seen: megvii-research/NAFNet, scripts/data_preparation/reds.py, which takes every tenth frame.
    Layout("reds", "reds", "{val_blur,val_blur_jpeg,val_sharp}/NNN/NNNNNNN9, or {blur_300,sharp_300}/NAME", (
        (r"{set:val_blur|val_blur_jpeg|val_blur_comp}/{seq:\d+}/{n:\d*9}", r"val_sharp/{seq}/{n}"),
        (r"blur_300/{n}", r"sharp_300/{n}"),
    )),
    # The layout of training pairs: maximir.training.data.
    Layout("maximir", "rounded", "{input,target}/NAME, or NAME_input (NAME_light_input) and NAME_target", (
        (r"input/{n:.+?}(?:[._]input)?", r"target/{n:.+?}(?:[._]target)?"),
        (r"{n:.+}[._]input", r"{n:.+}[._]target"),
        (r"input", r"target"),
    ), shared=True),
    Layout("pairs", "rounded", "the same names in {input,gt}, {lq,gt}, {noisy,clean}, {blur,sharp} ...", (
        (r"(?:inputs?|input_crops|lq|noisy|blur|blurry|haz[ey]|rainy?|low|degraded)/{n:.+}",
         r"(?:targets?|target_crops|gt|gt_crops|groundtruth|hq|clean|sharp|clear|norain|high|label)/{n:.+}"),
    )),
    Layout("clean", "rounded", "SET/NAME, originals alone: CBSD68, Kodak24, McMaster, Urban100, Set14", ()),
)  # fmt: skip
BY_NAME = {layout.name: layout for layout in LAYOUTS}
CLEAN = BY_NAME["clean"]


@dataclass(frozen=True)
class Rule:
    """A compiled rule of a layout.

    Attributes:
        common: the groups in both expressions, `n` last.
        looks_up: it sees the names of DIR and its parent folder.
    """

    input: re.Pattern[str]
    target: re.Pattern[str]
    common: tuple[str, ...]
    looks_up: bool


@cache
def compiled(layout: Layout) -> tuple[Rule, ...]:
    def pattern(text: str, kinds: dict[str, str]) -> re.Pattern[str]:
        text = PLACE.sub(lambda place: f"(?P<{place[1]}>{kinds[place[1]]})", text)
        # Match as few preceding folders as possible: those that a rule may name, such as (?:gt/)?, are its
        # own.
        return re.compile(f"(?P<at>(?:.*?/)??){text}", re.IGNORECASE | re.DOTALL)

    rules = []
    for of_input, of_target in layout.rules:
        kinds = {"n": "[^/]+"} | {place[1]: place[2] for place in PLACE.finditer(of_input) if place[2]}
        input, target = pattern(of_input, kinds), pattern(of_target, kinds)
        common = tuple(name for name in input.groupindex if name in target.groupindex)
        rules.append(Rule(input, target, common, looks_up="{set:" in of_input))
    return tuple(rules)
