r"""How datasets name what belongs together, as they are downloaded: a table, and what its rules mean.

A layout is a few rules, and a rule is two regular expressions: of the paths of inputs, and of the paths of
their targets.

- They are for the whole path below DIR, without suffix. Any folders may come before, and upper or lower case
  makes no difference: `haz[ey]/...` finds `SOTS/outdoor/Hazy/0001_0.8_0.2.jpg`.
- `{n}` stands for a name, or, as `{n:\d+}`, for what is behind the colon (of the target, too). Input and
  target are a pair if what is named in both reads the same in both, and so do the folders before: by
  `hazy/{n:\d+}_[^/]+` and `gt/{n}`, `hazy/1400_1.png` and `hazy/1400_2.png` belong to `gt/1400.png`.
- `{set:...}` is a part of the data with a result of its own. A rule that has it also sees the name of DIR and
  of the folder that DIR is in, so that DIR may be `test`, or `test/Rain100H`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

PLACE = re.compile(r"\{([a-z]+)(?::([^}]*))?\}")  # {n} or {n:...} in a rule


@dataclass(frozen=True)
class Layout:
    """How a dataset names what belongs together.

    Attributes:
        name: for `--layout`.
        protocol: how its scores are usually computed, for `--protocol`.
        looks: for people.
        rules: of inputs and targets, as the module says. None: all images are clean ones, without inputs.
        crop: a target larger than its input is cropped to its centre.
        shared: where no target is called `1400_light`, `1400` is taken: several inputs may share a target.
        spare: there are targets without inputs (those of the training images), not worth listing.
    """

    name: str
    protocol: str
    looks: str
    rules: tuple[tuple[str, str], ...]
    crop: bool = False
    shared: bool = False
    spare: bool = False


# Special ones first: where two find the same pairs, the first counts. "Seen": in the repositories named, or
# in several public loaders, which read the files by these names; "memory": not looked up.
LAYOUTS = (
    # Seen: swz30/Restormer, Deraining/Datasets; google-research/maxim, run_eval.py (same names).
    Layout("rain13k", "rain", "{Test100,Rain100H,Rain100L,Test2800,Test1200}/{input,target}/NAME", (
        (r"{set:Test100|Rain100H|Rain100L|Test2800|Test1200}/input/{n}", r"{set}/target/{n}"),
    )),
    # Seen: loaders of Rain100 (rainy/ or rain/, and norain/, gt/ or none), and of its later release, in which
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
    # Seen: loaders; swz30/Restormer, Motion_Deblurring/Datasets. GT holds those of the training images, too.
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
    # Seen: loaders (test_a). Memory: test_b is named in the same way.
    Layout("raindrop", "raindrop", "{test_a,test_b}/{data/N_rain,gt/N_clean}", (
        (r"{set:test_[ab]}/data/{n}_rain", r"{set}/gt/{n}_clean"),
        (r"data/{n}_rain", r"gt/{n}_clean"),
    )),
    # Seen: loaders, which crop; indoors to 620 x 460 of 640 x 480 pixels: cddlyf/GCANet, issue 2.
    Layout("sots", "sots", "{indoor,outdoor}/{hazy/N_...,gt/N} (or clear for gt)", (
        (r"{set:indoor|outdoor|nyuhaze500}/(?:nyuhaze500/)?haz[ey]/{n:\d+}_[^/]+",
         r"{set}/(?:nyuhaze500/)?(?:gt|clear)/{n}"),
        (r"haz[ey]/{n:\d+}_[^/]+", r"(?:gt|clear)/{n}"),
    ), crop=True),
    # Seen: loaders of O-HAZE, I-HAZE and Dense-Haze. Memory: NH-HAZE has all in one folder.
    Layout("ohaze", "rounded", "{hazy/NAME_hazy,GT/NAME_GT}, or both in one folder", (
        (r"(?:haz[ey]/)?{n}_haz[ey]", r"(?:gt/)?{n}_gt"),
    )),
    # Seen: csjunxu/PolyU-Real-World-Noisy-Images-Dataset, CroppedImages. Memory: CC15 is named so, too.
    Layout("polyu", "rounded", "NAME_real, NAME_mean", (
        (r"{n}_real", r"{n}_mean"),
    )),
    # Seen: loaders, of LOL-v2 as well (Real_captured has low00690.png and normal00690.png).
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
    # As for training: maximir.training.data.
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
    """A rule of a layout, compiled.

    Attributes:
        common: the groups that both expressions have, `n` last.
        looks_up: it sees the names of DIR and of the folder that DIR is in.
    """

    input: re.Pattern[str]
    target: re.Pattern[str]
    common: tuple[str, ...]
    looks_up: bool


@cache
def compiled(layout: Layout) -> tuple[Rule, ...]:
    def pattern(text: str, kinds: dict[str, str]) -> re.Pattern[str]:
        text = PLACE.sub(lambda place: f"(?P<{place[1]}>{kinds[place[1]]})", text)
        # As few folders before as can be: those that a rule may name, such as (?:gt/)?, are its own.
        return re.compile(f"(?P<at>(?:.*?/)??){text}", re.IGNORECASE | re.DOTALL)

    rules = []
    for of_input, of_target in layout.rules:
        kinds = {"n": "[^/]+"} | {place[1]: place[2] for place in PLACE.finditer(of_input) if place[2]}
        input, target = pattern(of_input, kinds), pattern(of_target, kinds)
        common = tuple(name for name in input.groupindex if name in target.groupindex)
        rules.append(Rule(input, target, common, looks_up="{set:" in of_input))
    return tuple(rules)
