"""Evaluations: scores as by hand, what is left out and why, and the same end after any stop."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import stand_in
from helpers.command import maximir
from maximir import images
from maximir.errors import MaximirError, UsageError
from maximir.evaluation.evaluate import Request, digest_of, prepare, run
from maximir.evaluation.protocols import PROTOCOLS
from maximir.evaluation.scores import PICTURES, RESTORED, RUN, SCORES, Book, Score, kept, read_scores
from maximir.images import Photo
from maximir.pixels import to_unit
from maximir.restoring.options import Options
from maximir.restoring.restorer import Restorer

SIZES = {"a": (16, 18), "b": (18, 16), "c": (16, 20), "d": (20, 16)}  # neighbours differ: each alone


def picture(seed, size=(16, 18), dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max + 1, (*size, 3), dtype)


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(Photo(pixels), path)


def spoilt(pixels, seed=9):
    noise = np.random.default_rng(seed).normal(0, 20, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@pytest.fixture(autouse=True)
def _quick_pictures(monkeypatch):
    """Encoding them takes longer than all else here; tests/test_pictures.py looks at them."""
    monkeypatch.setattr("maximir.evaluation.evaluate.strip", lambda *arrays: digest_of(*arrays).encode())


@pytest.fixture
def data(tmp_path):
    """Four pairs."""
    for seed, (name, size) in enumerate(SIZES.items()):
        put(tmp_path / "data" / "target" / f"{name}.png", picture(seed, size))
        put(tmp_path / "data" / "input" / f"{name}.png", spoilt(picture(seed, size)))
    return tmp_path / "data"


@pytest.fixture
def restored_shapes(monkeypatch):
    """A model without a network. The sizes of the images that went through it, in their order."""
    monkeypatch.setitem(sys.modules, "maximir.restoring.restorer", stand_in)
    monkeypatch.setattr(stand_in.Restorer, "shapes", [])
    return stand_in.Restorer.shapes


@pytest.fixture
def request_of(data, restored_shapes, tmp_path):
    """Requests by this model."""
    (tmp_path / "model.npz").write_text("one")

    def make(**changes):
        return Request(**{"data": data, "weights": str(tmp_path / "model.npz")} | changes)

    return make


def evaluate(request, out=None, *, save=False, overwrite=False):
    evaluation = prepare(request)
    book = None if out is None else Book(out, evaluation.settings, overwrite=overwrite)
    for _ in run(evaluation, book, save=save):
        pass
    return evaluation


def figures(evaluation):
    """All but the time that it took."""
    return [replace(score, seconds=0) for score in evaluation.scores]


def below(folder):
    """Every file, hidden ones too, and its content."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What is computed


@pytest.mark.parametrize(
    ("protocol", "ensemble"),
    [
        ("official", False),
        ("truncated", False),
        ("rounded", True),
        ("rain", False),
        ("gopro", False),
        ("sidd", False),
    ],
)
def test_scores_are_those_by_hand(protocol, ensemble, data, gentle_weights):
    request = Request(
        data,
        str(gentle_weights),
        protocol=protocol,
        options=Options(view="exact", ensemble=ensemble),
        images=2,
    )
    evaluation = evaluate(request)
    restorer = Restorer(gentle_weights, "cpu", ensemble=ensemble)
    assert [score.name for score in evaluation.scores] == ["input/a", "input/b"]
    for score in evaluation.scores:
        degraded = images.read(data / f"{score.name}.png").rgb
        target = images.read(Path(score.target)).rgb
        by_hand = PROTOCOLS[protocol].measure(restorer(to_unit(degraded)), target)
        assert (score.psnr, score.ssim) == by_hand
        assert (score.input_psnr, score.input_ssim) == PROTOCOLS[protocol].measure(degraded, target)
        assert (score.height, score.width) == target.shape[:2] and score.seconds > 0
        assert score.psnr != score.input_psnr


def test_the_layout_suggests_a_protocol_and_pixels_replace_the_protocols(request_of, data, tmp_path):
    assert prepare(request_of()).protocol is PROTOCOLS["rounded"]
    shutil.copytree(data, tmp_path / "Rain100H")
    assert prepare(request_of(data=tmp_path / "Rain100H")).protocol is PROTOCOLS["rain"]
    rounded = prepare(request_of(data=tmp_path / "Rain100H", pixels="rounded"))
    assert rounded.protocol == replace(PROTOCOLS["rain"], pixels="rounded")
    assert "rounded" in rounded.settings["convention"]


@pytest.mark.parametrize("protocol", ["truncated", "rounded", "rain", "official"])
def test_saved_images_have_the_same_scores_again(protocol, request_of, tmp_path):
    first = evaluate(request_of(protocol=protocol), tmp_path / "out", save=True)
    again = evaluate(
        request_of(protocol=protocol, weights=None, restored=tmp_path / "out" / RESTORED), tmp_path / "again"
    )
    assert not first.left_out and not again.left_out
    scores = [
        [(score.name, score.psnr, score.ssim, score.input_psnr) for score in each.scores]
        for each in (first, again)
    ]
    assert (scores[0] == scores[1]) == (protocol != "official")  # of floats, which no PNG holds


def test_images_that_others_restored_alone_or_beside_inputs(data, tmp_path):
    """No model, no torch; a perfect image is inf."""
    theirs = tmp_path / "theirs"
    put(theirs / "a.png", picture(0, SIZES["a"]))
    put(theirs / "b.png", spoilt(picture(1, SIZES["b"]), seed=3))
    pairs = evaluate(Request(data, restored=theirs, protocol="rounded", images=2))
    targets = evaluate(Request(data / "target", restored=theirs, protocol="rounded", images=2))
    by_hand = PROTOCOLS["rounded"].measure(images.read(theirs / "b.png").rgb, picture(1, SIZES["b"]))
    for evaluation in (pairs, targets):
        assert [(score.psnr, score.ssim) for score in evaluation.scores] == [(float("inf"), 1.0), by_hand]
        assert evaluation.settings["sha256"] is None and not evaluation.left_out
    assert pairs.scores[1].input_psnr is not None
    assert targets.scores[1].input_psnr is None and targets.scores[1].input_ssim is None


def test_others_images_of_what_was_not_asked_for_are_no_fault(data, tmp_path):
    shutil.copytree(data / "input", tmp_path / "theirs")
    for choice in ({"images": 2}, {"only": ("[ab]",)}):
        evaluation = evaluate(Request(data, restored=tmp_path / "theirs", **choice))
        assert [score.name for score in evaluation.scores] == ["input/a", "input/b"]
        assert evaluation.left_out == []
    put(tmp_path / "theirs" / "x.png", picture(0))
    evaluation = evaluate(Request(data, restored=tmp_path / "theirs", images=2))
    assert evaluation.beside == [("x.png", "belongs to no case")]
    assert evaluation.left_out == [] and evaluation.count == 2  # a stray file is no image


def test_clean_images_are_degraded_the_same_whatever_the_others(request_of, data, tmp_path):
    clean = request_of(data=data / "target", degrade="rain")
    every = {score.name: score for score in figures(evaluate(clean))}
    assert figures(evaluate(replace(clean, only=("c",)))) == [every["c"]]
    (data / "target" / "a.png").unlink()
    assert figures(evaluate(clean)) == [every[name] for name in "bcd"]


def test_noise_that_is_not_clipped_reaches_the_model(data, gentle_weights):
    request = Request(
        data / "target",
        str(gentle_weights),
        degrade="gaussian:50",
        protocol="official",
        images=1,
    )
    evaluation = evaluate(request)
    clean = picture(0, SIZES["a"])
    noisy = (clean / np.float32(255) + np.random.RandomState(0).normal(0, 50 / 255, clean.shape)).astype(
        np.float32
    )
    assert noisy.min() < 0 and noisy.max() > 1
    (score,) = evaluation.scores
    restored = Restorer(gentle_weights, "cpu")(noisy)
    assert (score.psnr, score.ssim) == PROTOCOLS["official"].measure(restored, clean)
    assert score.input_psnr == PROTOCOLS["official"].measure(noisy, clean)[0]


def test_of_pairs_the_originals_are_degraded_each_once(request_of, data):
    put(data / "input" / "a_2.png", picture(7, SIZES["a"]))  # a second input of the same original
    evaluation = evaluate(request_of(degrade="gaussian:25:file"))
    assert len(evaluation.scores) == 4
    assert len({score.target for score in evaluation.scores}) == 4


def test_targets_are_cropped_where_the_data_is_known_for_it(request_of, tmp_path):
    put(tmp_path / "SOTS" / "indoor" / "gt" / "1400.png", picture(0, (24, 28)))
    put(tmp_path / "SOTS" / "indoor" / "hazy" / "1400_1.png", picture(0, (24, 28))[3:-3, 4:-4])
    (score,) = evaluate(request_of(data=tmp_path / "SOTS")).scores
    assert (score.input_psnr, score.input_ssim) == (float("inf"), 1.0)


# What is left out


def test_what_is_left_out_is_listed_and_the_rest_is_scored(request_of, data):
    (data / "target" / "a.png").unlink()
    put(data / "input" / "b.png", picture(0, (16, 18)))
    put(data / "input" / "c.png", picture(0, SIZES["c"], np.uint16))
    for name, dtype in (("e", np.uint16), ("f", np.uint8), ("g", np.uint8), ("h", np.uint8)):
        put(data / "input" / f"{name}.png", picture(1, dtype=dtype))
        put(data / "target" / f"{name}.png", picture(2, dtype=dtype))
    (data / "input" / "f.png").write_bytes(b"")
    (data / "target" / "g.png").write_text("no image")
    for folder in ("input", "target"):
        put(data / folder / "h.png", picture(0, (8, 30)))
    evaluation = evaluate(request_of())
    assert [score.name for score in evaluation.scores] == ["input/d", "input/h"]
    small = evaluation.scores[-1]  # than SSIM's window
    assert 20 < small.psnr < 40 and (small.ssim, small.input_ssim) == (None, None)
    reasons = dict(evaluation.left_out)
    assert reasons == {
        "input/a.png": "no target",
        "input/b": f"{data}/input/b.png: is 18 x 16 pixels, but its target {data}/target/b.png is 16 x 18",
        "input/c": f"{data}/input/c.png: has 16 bits, but its target {data}/target/c.png has 8",
        "input/e": "rounded measures 8-bit values, but the target is uint16: choose a protocol of floats",
        "input/f": f"{data}/input/f.png: the file is empty",
        "input/g": f"{data}/target/g.png: not an image that maximir can read",
    }
    assert len(evaluation.left_out) == 6 and evaluation.count == 8
    of_16_bits = evaluate(request_of(protocol="sidd", only=("e",)))
    assert [score.name for score in of_16_bits.scores] == ["input/e"]


def test_restored_images_that_do_not_fit(data, tmp_path):
    theirs = tmp_path / "theirs"
    put(theirs / "a.png", picture(0, (18, 18)))
    put(theirs / "b.png", picture(0, SIZES["b"], np.uint16))
    put(theirs / "c.png", picture(0, SIZES["c"]))
    (theirs / "d.png").write_bytes(b"")
    put(theirs / "z.png", picture(0))
    evaluation = evaluate(Request(data, restored=theirs))
    assert [score.name for score in evaluation.scores] == ["input/c"]
    assert evaluation.beside == [("z.png", "belongs to no case")] and evaluation.count == 4
    assert {what: why.removeprefix(f"{theirs}/") for what, why in evaluation.left_out} == {
        "input/a": f"a.png: is 18 x 18 pixels, but its target {data}/target/a.png is 18 x 16",
        "input/b": f"b.png: has 16 bits, but its target {data}/target/b.png has 8",
        "input/d": "d.png: the file is empty",
    }
    shutil.rmtree(theirs)
    put(theirs / "z.png", picture(0))
    nothing = evaluate(Request(data, restored=theirs), tmp_path / "out")
    assert nothing.scores == [] and ("input/a", "not restored") in nothing.left_out


def test_an_image_that_the_model_cannot_do_is_left_out(request_of, monkeypatch, tmp_path):
    real = stand_in.Restorer.restore_arrays

    def fails(self, arrays, **call):
        if arrays[0].shape[:2] == SIZES["b"]:
            raise MaximirError("not enough memory")
        return real(self, arrays)

    monkeypatch.setattr(stand_in.Restorer, "restore_arrays", fails)
    evaluation = evaluate(request_of(), tmp_path / "out")
    assert evaluation.left_out == [("input/b", "not enough memory")]
    assert [score.name for score in read_scores(tmp_path / "out")] == ["input/a", "input/c", "input/d"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "papers"}, "unknown protocol 'papers': choose from official, truncated"),
        ({"pixels": "floored"}, "unknown pixels 'floored': choose from float, clipped"),
        ({"protocol": "rain", "pixels": "float"}, "luma needs 8-bit values"),
        ({"layout": "tidy"}, "unknown layout"),
        ({"degrade": "sepia"}, "unknown; choose from gaussian:SIGMA"),
        ({"weights": "nothing"}, "unknown model 'nothing'"),
        ({"layout": "clean"}, "holds clean images without degraded ones; choose how to --degrade them"),
    ],
)
def test_requests_that_make_no_sense(changes, reason, request_of):
    with pytest.raises(UsageError, match=reason):
        prepare(request_of(**changes))


# What is kept


@pytest.mark.parametrize("how", ["closed", "interrupted", "torn", "killed", "crashed"])
def test_a_run_that_was_stopped_goes_on(how, request_of, data, tmp_path, restored_shapes):
    out, whole = tmp_path / "out", evaluate(request_of(), tmp_path / "whole")
    evaluation = prepare(request_of())
    if how == "closed":
        outcomes = run(evaluation, Book(out, evaluation.settings))
        next(outcomes), next(outcomes)
        outcomes.close()
    elif how in ("interrupted", "crashed"):
        error = {"interrupted": KeyboardInterrupt, "crashed": ZeroDivisionError}[how]
        outcomes = run(evaluation, Book(out, evaluation.settings))
        next(outcomes), next(outcomes)
        with pytest.raises(error):
            outcomes.throw(error)
    elif how == "torn":
        evaluate(request_of(), out)
        lines = (out / SCORES).read_bytes().splitlines(keepends=True)
        (out / SCORES).write_bytes(b"".join(lines[:2]) + lines[2][:50])
    else:
        code = (
            "import os, signal, sys; from pathlib import Path; from helpers import stand_in\n"
            "sys.modules['maximir.restoring.restorer'] = stand_in\n"
            "from maximir.evaluation.evaluate import Request, prepare, run\n"
            "from maximir.evaluation.scores import Book\n"
            "data, weights, out = sys.argv[1:]\n"
            "evaluation = prepare(Request(Path(data), weights))\n"
            "outcomes = run(evaluation, Book(Path(out), evaluation.settings))\n"
            "next(outcomes), next(outcomes)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        command = [sys.executable, "-c", code, data, tmp_path / "model.npz", out]
        done = subprocess.run(
            command, timeout=120, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        )
        assert done.returncode == -signal.SIGKILL
    assert [score.name for score in read_scores(out)] == ["input/a", "input/b"]
    del restored_shapes[:]
    evaluation = prepare(request_of())
    outcomes = list(run(evaluation, Book(out, evaluation.settings)))
    assert [outcome.known for outcome in outcomes] == [True, True, False, False]
    assert restored_shapes == [SIZES["c"], SIZES["d"]]
    assert figures(evaluation) == figures(whole)
    assert [replace(score, seconds=0) for score in read_scores(out)] == figures(whole)
    assert len((out / SCORES).read_text().splitlines()) == 4
    assert (out / RUN).read_bytes() == (tmp_path / "whole" / RUN).read_bytes()
    left = below(out).keys() - below(tmp_path / "whole").keys()
    assert not left or (how == "killed" and all(Path(name).name.startswith(".") for name in left))


def test_nothing_is_restored_twice_and_nothing_is_written_anew(request_of, tmp_path, restored_shapes):
    first = evaluate(request_of(), tmp_path / "out", save=True)
    before = below(tmp_path / "out")
    del restored_shapes[:]
    assert evaluate(request_of(), tmp_path / "out", save=True).scores == first.scores
    assert below(tmp_path / "out") == before and restored_shapes == []


@pytest.mark.parametrize("changed", ["input/b.png", "target/b.png"])
def test_changed_pixels_are_scored_anew(changed, request_of, data, tmp_path, restored_shapes):
    first = evaluate(request_of(), tmp_path / "out")
    del restored_shapes[:]
    put(data / changed, spoilt(picture(1, SIZES["b"]), seed=4))
    second = evaluate(request_of(), tmp_path / "out")
    assert restored_shapes == [SIZES["b"]]
    old, new = figures(first), figures(second)
    assert new[1] != old[1] and new[:1] + new[2:] == old[:1] + old[2:]
    assert new == figures(evaluate(request_of()))
    assert sorted(read_scores(tmp_path / "out"), key=lambda score: score.name) == second.scores


def test_other_images_of_others_are_scored_anew(data, tmp_path):
    shutil.copytree(data / "input", tmp_path / "theirs")
    request = Request(data, restored=tmp_path / "theirs")
    first = evaluate(request, tmp_path / "out").scores
    put(tmp_path / "theirs" / "b.png", picture(1, SIZES["b"]))
    second = evaluate(request, tmp_path / "out").scores
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True, True]
    assert second[1].psnr == float("inf")


def test_images_that_were_not_saved_before_are_restored_again(request_of, tmp_path, restored_shapes):
    out = tmp_path / "out"
    evaluate(request_of(), out)
    assert not (out / RESTORED).exists()
    evaluate(request_of(), out, save=True)
    assert sorted(path.name for path in (out / RESTORED).rglob("*.png")) == [f"{name}.png" for name in SIZES]
    del restored_shapes[:]
    (out / RESTORED / "input" / "c.png").unlink()
    evaluate(request_of(), out, save=True)
    assert restored_shapes == [SIZES["c"]] and (out / RESTORED / "input" / "c.png").is_file()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocol": "official"}, "protocol and convention"),
        ({"pixels": "truncated"}, "convention"),
        ({"weights": "other"}, "weights"),
        ({"degrade": "gaussian:25"}, "degrade"),
        ({"options": Options(view="exact", ensemble=True)}, "ensemble"),
        ({"options": Options(view="exact", precision="bf16")}, "precision"),
        ({"weights": None, "restored": "data/input"}, "weights and precision"),
    ],
)
def test_other_settings_are_refused_and_change_nothing(changes, named, request_of, data, tmp_path):
    out = tmp_path / "out"
    evaluate(request_of(images=1), out, save=True)
    before = below(out)
    if changes.get("weights") == "other":
        (tmp_path / "model.npz").write_text("another")
        changes = {}
    if "restored" in changes:
        changes = changes | {"restored": data / "input"}
    evaluation = prepare(request_of(images=1, **changes))
    with pytest.raises(UsageError) as refused:
        Book(out, evaluation.settings)
    assert str(refused.value) == (
        f"{out}: holds an evaluation with another {named}; choose another folder, or --overwrite"
    )
    assert below(out) == before


def test_overwrite_forgets_all_of_the_other_evaluation(request_of, tmp_path, restored_shapes):
    from maximir.evaluation import report

    out = tmp_path / "out"
    report.write(evaluate(request_of(), out, save=True), out)
    del restored_shapes[:]
    evaluate(request_of(options=Options(view="exact", ensemble=True), images=1), out, overwrite=True)
    assert sorted(below(out)) == [f"{PICTURES}/input/a.webp", RUN, SCORES]
    assert restored_shapes == [SIZES["a"]]
    evaluate(request_of(options=Options(view="exact", ensemble=True), images=1), out, overwrite=True)
    assert len(restored_shapes) == 2  # also of the same settings
    settings, scores = kept(out)
    assert settings["ensemble"] and [score.name for score in scores] == ["input/a"]


@pytest.mark.parametrize("option", ["--data", "--restored"])
def test_images_in_the_results_folder_are_not_scored(option, request_of, data, tmp_path, capsys):
    """To write new results there would remove them first."""
    out = tmp_path / "out"
    evaluate(request_of(images=1), out, save=True)
    before = sorted(out.rglob("*"))
    words = {"--data": data, "--restored": data, option: out / "restored"}
    maximir("evaluate", *itertools.chain(*words.items()), "--out", out, "--overwrite", expect=2)
    assert f"{out}: holds {out / 'restored'}, whose images are read" in capsys.readouterr().err
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_refused_and_untouched(overwrite, data, tmp_path):
    before = below(data)
    with pytest.raises(UsageError, match="is not empty and holds no evaluation; choose another folder"):
        Book(data, {"protocol": "rounded"}, overwrite=overwrite)
    assert below(data) == before
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".maximir-0123.json").write_text("")  # of a process that was killed
    Book(tmp_path / "new", {"protocol": "rounded"}, overwrite=overwrite)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"settings": []}', "{}", "\udcff", '{"settings": {"proto', "[" * 100_000],
    ids=range(7),
)
def test_a_damaged_record_is_refused(text, tmp_path):
    (tmp_path / RUN).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=r"run.json: is damaged; choose another folder, or --overwrite"):
        Book(tmp_path, {"protocol": "rounded"})
    with pytest.raises(MaximirError, match="holds no complete evaluation"):
        kept(tmp_path)
    Book(tmp_path, {"protocol": "rounded", "convention": "x"}, overwrite=True)
    assert kept(tmp_path) == ({"protocol": "rounded", "convention": "x"}, [])


def test_lines_that_are_no_scores_are_dropped(tmp_path):
    score = Score("a", "", float("inf"), 1.0, 0.1 + 0.2, 0.5, 3, 4, 1.5, "ab", "t")
    exact = Score("b\u2028\udcff", "s", 20 / 3, 2 / 3, None, None, 3, 4, 0.0, "ab", "t")
    lines = [
        json.dumps(score.values()),
        '{"name": 1}',
        "[1]",
        "7",
        '"x"',
        "",
        "{",
        "\0\0\0",
        json.dumps(exact.values()),
    ]
    (tmp_path / SCORES).write_text("\n".join(lines))
    assert read_scores(tmp_path) == [score, exact]
    assert json.loads(lines[0], parse_constant=pytest.fail)["psnr"] == "inf"
    book = Book(tmp_path / "new", {})
    book.add(score)
    book.add(replace(score, ssim=0.25))
    assert read_scores(tmp_path / "new") == [replace(score, ssim=0.25)]  # the newest


def test_a_folder_that_cannot_be_made_or_written(data, request_of, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(MaximirError, match="file: cannot be written to"):
        Book(tmp_path / "file", {})
    evaluation = prepare(request_of())
    book = Book(tmp_path / "out", evaluation.settings)
    (tmp_path / "out" / SCORES).unlink()
    (tmp_path / "out" / SCORES).mkdir()
    with pytest.raises(MaximirError, match=r"scores.jsonl: cannot be written \(is a directory\)"):
        list(run(evaluation, book))


def test_a_picture_that_cannot_be_kept_stops_the_run(request_of, tmp_path):
    """A full disk would spoil every image after it, too."""
    evaluation = prepare(request_of(images=2))
    book = Book(tmp_path / "out", evaluation.settings)
    (tmp_path / "out" / RESTORED / "input" / "a.png").mkdir(parents=True)
    with pytest.raises(MaximirError, match=r"out: cannot be written to \(is a directory\)"):
        list(run(evaluation, book, save=True))


def test_sets_and_places_are_those_of_the_last_run(request_of, data, tmp_path, monkeypatch, restored_shapes):
    """Known scores of a set that was alone, by a relative path: named as in the whole, by the new path."""
    shutil.copytree(data, tmp_path / "all" / "Rain100H")
    shutil.copytree(data, tmp_path / "all" / "Rain100L")
    monkeypatch.chdir(tmp_path)
    part = request_of(data=Path("all"), only=("Rain100H/*",), images=2)
    assert {score.set for score in evaluate(part, tmp_path / "out").scores} == {""}
    del restored_shapes[:]
    whole = evaluate(request_of(data=tmp_path / "all"), tmp_path / "out")
    assert len(restored_shapes) == 6
    assert [score.set for score in whole.scores] == ["Rain100H"] * 4 + ["Rain100L"] * 4
    assert all(Path(score.target).is_absolute() for score in whole.scores)
    assert {score.name: score for score in read_scores(tmp_path / "out")} == {
        score.name: score for score in whole.scores
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names(request_of, tmp_path):
    names = ["..x", "a..b", "<script>alert('\"|')", "line\nbreak", "[red]", "\udcff"]
    for seed, name in enumerate(names):
        put(tmp_path / "odd" / "input" / f"{name}.png", spoilt(picture(seed, (12 + seed, 12))))
        put(tmp_path / "odd" / "target" / f"{name}.png", picture(seed, (12 + seed, 12)))
    (tmp_path / "work").mkdir()
    out = tmp_path / "work" / "out"
    first = evaluate(request_of(data=tmp_path / "odd"), out, save=True)
    assert {score.name for score in first.scores} == {f"input/{name}" for name in names if name[0] != "."}
    assert {path.stem for path in (out / RESTORED / "input").iterdir()} == set(names[1:])
    assert os.listdir(tmp_path / "work") == ["out"]
    assert evaluate(request_of(data=tmp_path / "odd"), out, save=True).scores == first.scores


def test_what_decides_and_what_is_said(request_of, data):
    evaluation = prepare(request_of(), "maximir evaluate")
    assert evaluation.settings == {
        "protocol": "rounded",
        "convention": PROTOCOLS["rounded"].convention,
        "sha256": hashlib.sha256(b"one").hexdigest(),
        "degrade": None,
        "stages": None,
        "view": "exact",
        "ensemble": False,
        "precision": "fp32",
    }
    assert evaluation.facts["command"] == "maximir evaluate" and evaluation.facts["layout"] == "maximir"
    theirs = prepare(Request(data, restored=data / "input", options=Options(view="exact", ensemble=True)))
    assert theirs.settings["ensemble"] is False and theirs.facts["device"] is None
