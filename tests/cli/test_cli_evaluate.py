"""`maximir evaluate` and `maximir compare` as their users meet them."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest

from helpers import stand_in
from helpers.command import files, maximir
from maximir import images
from maximir.evaluation.compare import compare
from maximir.evaluation.evaluate import Request, prepare, run
from maximir.evaluation.scores import kept, read_scores
from maximir.images import Photo


def put(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(Photo(pixels), path)


def picture(seed, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max + 1, (14, 12 + seed, 3), dtype)


def spoilt(pixels, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def data(tmp_path):
    """Four pairs; and beside, what two others restored: the second better in each image."""
    for seed, name in enumerate("abcd"):
        target = picture(seed)
        put(tmp_path / "data" / "target" / f"{name}.png", target)
        put(tmp_path / "data" / "input" / f"{name}.png", spoilt(target, 40))
        put(tmp_path / "bad" / f"{name}.png", spoilt(target, 20))
        put(tmp_path / "good" / f"{name}.png", spoilt(target, 10 + seed))
    return tmp_path / "data"


@pytest.fixture
def quick_pictures(monkeypatch):
    """Encoding them takes longer than all else here."""
    monkeypatch.setattr("maximir.evaluation.evaluate.strip", lambda *arrays: b"picture")


@pytest.fixture
def no_network(monkeypatch, tmp_path, quick_pictures):
    """A stand-in for all models; the name of one."""
    monkeypatch.setitem(sys.modules, "maximir.restoring.restorer", stand_in)
    (tmp_path / "model.npz").write_text("one")
    return tmp_path / "model.npz"


def test_a_model_from_the_command_to_the_report(data, gentle_weights, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("evaluate", "--weights", gentle_weights, "--data", data, "--device", "cpu", "--out", out)
    maximir(*command, "--protocol", "truncated", "--save")
    streams = capsys.readouterr()
    evaluation = prepare(Request(data, str(gentle_weights), protocol="truncated"))
    scores = [outcome.score for outcome in run(evaluation)]
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], float(row["psnr"]), float(row["ssim"])) for row in rows] == [
        (score.name, score.psnr, score.ssim) for score in scores
    ]
    means = [np.mean([getattr(s, name) for s in scores]) for name in ("input_psnr", "psnr", "ssim")]
    for mean in means:
        assert f"{mean:.2f}" in streams.out
    assert (
        "RGB PSNR / SSIM (Wang, mean over channels) of 8-bit values, truncated; 4 of 4 images" in streams.out
    )
    assert streams.out.splitlines()[-1] == str(out / "report.html")
    assert "[4/4] input/d  " in streams.err and f"{scores[3].psnr:.2f} dB" in streams.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["all"]["psnr"] == pytest.approx(means[1], rel=1e-12)
    assert summary["command"].startswith(f"maximir evaluate --weights {gentle_weights} --data {data}")
    assert files(out / "pictures") == [f"input/{name}.webp" for name in "abcd"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 4 and summary["command"] in page

    maximir("evaluate", "--restored", out / "restored", "--data", data, "--protocol", "truncated")
    assert f"{means[0]:.2f}" in capsys.readouterr().out
    maximir(*command, "--protocol", "truncated", "--save")
    assert capsys.readouterr().err.count("(known)") == 4
    assert json.loads((out / "summary.json").read_text()) == summary


def test_a_task_on_degraded_originals(data, tmp_path, capsys, no_network):
    maximir(
        "evaluate", "--task", "denoise", "--data", data / "target", "--degrade", "gaussian:25", "--images", 2
    )
    streams = capsys.readouterr()
    assert "2 of 2 images" in streams.out and "values, rounded" in streams.out
    assert not files(tmp_path / "out") and "report.html" not in streams.out


def test_only_scoring_opens_no_model(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("maximir.restoring.restorer.Restorer.__init__", None)
    maximir(
        "evaluate", "--restored", tmp_path / "good", "--data", data, "--only", "[ab]", "-o", tmp_path / "out"
    )
    assert "2 of 2 images" in capsys.readouterr().out
    assert [score.name for score in read_scores(tmp_path / "out")] == ["input/a", "input/b"]


def test_what_is_left_out_is_told_and_the_exit_code_says_so(data, no_network, tmp_path, capsys):
    (data / "target" / "a.png").unlink()
    (data / "input" / "b.png").write_bytes(b"")
    put(data / "input" / "c.png", picture(9))
    put(data / "input" / "e.png", picture(4, np.uint16))
    put(data / "target" / "e.png", picture(4, np.uint16))
    maximir("evaluate", "--weights", no_network, "--data", data, "-o", tmp_path / "out", expect=1)
    streams = capsys.readouterr()
    assert "1 of 5 images, 4 left out" in streams.out
    lines = streams.err.splitlines()
    for line in (
        "input/a.png: left out, no target",
        f"input/b: left out, {data}/input/b.png: the file is empty",
        f"input/c: left out, {data}/input/c.png: is 21 x 14 pixels, "
        f"but its target {data}/target/c.png is 14 x 14",
        "input/e: left out, rounded measures 8-bit values, but the target is uint16: "
        "choose a protocol of floats",
    ):
        assert lines.count(line) == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "1 of 5 images, 4 left out" in page and "no target" in page and "the file is empty" in page
    assert len(json.loads((tmp_path / "out" / "summary.json").read_text())["left_out"]) == 4


def test_nothing_scored_is_still_a_report(data, no_network, tmp_path, capsys):
    for name in "abcd":
        (data / "input" / f"{name}.png").write_bytes(b"")
    maximir("evaluate", "--weights", no_network, "--data", data, "-o", tmp_path / "out", expect=1)
    assert "0 of 4 images, 4 left out" in capsys.readouterr().out
    assert "0 of 4 images" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--data {data}", "give one of --task, --model, --weights and --restored"),
        ("--data {data} --task denoise --restored {good}", "give one of"),
        ("--data {data} --task denoise --weights x.npz", "give one of"),
        ("--data {data} --task sharpen", "unknown task 'sharpen'"),
        ("--data {data} --weights nothing", "unknown model 'nothing'"),
        (
            "--data {data} --restored {good} --protocol papers",
            "unknown protocol 'papers': choose from official,",
        ),
        ("--data {data} --restored {good} --pixels floored", "unknown pixels 'floored': choose from float,"),
        ("--data {data} --restored {good} --layout tidy", "--layout tidy: unknown layout"),
        ("--data {data} --restored {good} --degrade sepia", "--degrade sepia: unknown; choose from"),
        ("--data {data} --restored {good} --degrade gaussian:x", "--degrade gaussian:x: must be gaussian:"),
        ("--data {data} --restored {good} --save", "--save and --overwrite need --out FOLDER"),
        ("--data {data} --restored {good} --overwrite", "--save and --overwrite need --out FOLDER"),
        ("--data {data} --restored {good} -o {data}/out", "choose another folder"),
        ("--data {data} --restored {good} -o {good}", "choose another folder"),
        ("--data {data} --restored {good} -o {bad}", "is not empty and holds no evaluation"),
        ("--data {data} --restored {good} -o {bad} --overwrite", "is not empty and holds no evaluation"),
        ("--data {data}/target --weights {model}", "holds clean images without degraded ones"),
        ("--restored {good}", "--data"),
    ],
)
def test_senseless_requests_do_nothing(arguments, reason, data, no_network, tmp_path, capsys):
    before = files(tmp_path)
    places = {name: tmp_path / name for name in ("data", "good", "bad")} | {"model": no_network}
    maximir("evaluate", *(word.format(**places) for word in arguments.split()), expect=2)
    message = capsys.readouterr().err
    assert reason in message
    assert (
        message.startswith("maximir: ") == (arguments != "--restored {good}") and "Traceback" not in message
    )
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: shutil.rmtree(data), "no such folder"),
        (lambda data: [shutil.rmtree(path) for path in data.iterdir()], "contains no images"),
        (lambda data: shutil.rmtree(data / "target"), "looks like an input, but none has a target"),
    ],
)
def test_data_that_cannot_be_scored(change, reason, data, tmp_path, capsys):
    change(data)
    maximir("evaluate", "--data", data, "--restored", tmp_path / "good", "-o", tmp_path / "out", expect=2)
    message = capsys.readouterr().err
    assert reason in message and message.startswith(f"maximir: {data}: ") and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_interrupted_and_gone_on(data, no_network, tmp_path, capsys, monkeypatch):
    real = stand_in.Restorer.restore_arrays

    def interrupt(self, arrays, **call):
        if arrays[0].shape[1] == 14:
            raise KeyboardInterrupt
        return real(self, arrays)

    command = ("evaluate", "--weights", no_network, "--data", data, "-o", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(stand_in.Restorer, "restore_arrays", interrupt)
        maximir(*command, expect=130)
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "maximir: interrupted; run the same command again to continue"
    )
    known = [score.name for score in read_scores(tmp_path / "out")]
    assert known == ["input/a", "input/b"][: len(known)] and not (tmp_path / "out" / "report.html").exists()
    maximir(*command)
    streams = capsys.readouterr()
    assert "4 of 4 images" in streams.out and streams.err.count("(known)") == len(known)
    maximir(*command, "--ensemble", expect=2)
    assert "holds an evaluation with another ensemble; choose another folder, or" in capsys.readouterr().err
    maximir(*command, "--ensemble", "--overwrite")
    assert "(known)" not in capsys.readouterr().err


def test_odd_names_are_names(data, tmp_path, capsys):
    odd = tmp_path / "[bold]odd"
    for seed, name in enumerate(("[red]", "esc\x1b[31m", ":dog:")):
        put(odd / name / "x.png", picture(seed))
        put(tmp_path / "theirs" / name / "x.png", picture(seed + 3)[:, :-3])
    out = tmp_path / "[/out]"
    maximir("evaluate", "--data", odd, "--layout", "clean", "--restored", tmp_path / "theirs", "-o", out)
    streams = capsys.readouterr()
    for words in ("[red]", ":dog:", r"esc\x1b[31m", "3 of 3 images", str(out / "report.html")):
        assert words in streams.out
    assert "\x1b" not in streams.out + streams.err


# maximir compare


@pytest.fixture
def runs(data, tmp_path, capsys, quick_pictures):
    """Both of the others, evaluated."""
    for name in ("bad", "good"):
        maximir("evaluate", "--data", data, "--restored", tmp_path / name, "-o", tmp_path / "runs" / name)
    capsys.readouterr()
    return tmp_path / "runs"


def test_two_evaluations(runs, capsys):
    maximir("compare", runs / "bad", runs / "good", "--worst", 1)
    out = capsys.readouterr().out
    comparison = compare(kept(runs / "bad")[1], kept(runs / "good")[1])
    psnr, ssim = comparison.differences
    for words in (
        f"A  {runs / 'bad'}",
        "8-bit values, rounded",
        f"{psnr.mean:+.3f}",
        f"{psnr.low:+.3f} … {psnr.high:+.3f}",
        f"{ssim.mean:+.5f}",
        "B is better",
    ):
        assert words in out
    assert out.splitlines()[-2].endswith("  input/d") and out.splitlines()[-1].endswith("  input/a")
    maximir("compare", runs / "good", runs / "bad", "--worst", 0)
    out = capsys.readouterr().out
    assert "A is better" in out and "input/" not in out


def test_models_and_folders_are_measured_first(runs, data, no_network, tmp_path, capsys):
    maximir("compare", runs / "bad", tmp_path / "good", "--data", data)
    measured = capsys.readouterr().out.splitlines()[3:]
    maximir("compare", runs / "bad", runs / "good")
    assert capsys.readouterr().out.splitlines()[3:] == measured
    maximir("compare", no_network, runs / "good", "--data", data, "--protocol", "rounded")
    assert "B is better" in capsys.readouterr().out
    maximir(
        "compare", no_network, "denoise", "--data", data / "target", "--degrade", "rain", "--only", "[abc]"
    )
    assert "no significant difference" in capsys.readouterr().out


def test_images_that_only_one_has(runs, tmp_path, data, capsys):
    out = tmp_path / "runs" / "part"
    maximir("evaluate", "--data", data, "--restored", tmp_path / "good", "-o", out, "--images", 3)
    maximir("compare", runs / "bad", out, expect=1)
    streams = capsys.readouterr()
    assert "maximir: not compared: 1 images only in A, 0 only in B" in streams.err
    assert "B is better" in streams.out
    for folder in ("bad", "good"):
        (tmp_path / folder / "a.png").write_bytes(b"")
    maximir("compare", tmp_path / "bad", tmp_path / "good", "--data", data, expect=1)  # both lack one
    assert "B is better" in capsys.readouterr().out


def test_evaluations_are_compared_as_they_are(runs, capsys):
    maximir("compare", runs / "bad", runs / "good", "--only", "a*", expect=2)
    assert "leave out --data, --protocol, --degrade and --only" in capsys.readouterr().err


def test_what_cannot_be_compared(runs, data, no_network, tmp_path, capsys, monkeypatch):
    maximir(
        *("evaluate", "--data", data, "--restored", tmp_path / "good", "-o", runs / "y", "--protocol", "rain")
    )
    maximir(*("evaluate", "--data", data / "target", "--restored", tmp_path / "good", "-o", runs / "clean"))
    capsys.readouterr()
    monkeypatch.setattr("maximir.evaluation.evaluate.run", None)  # refused before any work
    for arguments, code, reason in (
        ((runs / "bad", runs / "y"), 2, "by different conventions: RGB"),
        (
            (runs / "bad", no_network, "--data", data, "--protocol", "rain"),
            2,
            "by different conventions: RGB",
        ),
        ((runs / "bad", runs / "clean"), 1, "the two evaluations have no image in common"),
        (
            (runs / "bad", tmp_path / "good"),
            2,
            f"{tmp_path / 'good'}: holds no evaluation; give --data to score",
        ),
        ((runs / "bad", "nothing", "--data", data), 2, "unknown model 'nothing'"),
    ):
        maximir("compare", *arguments, expect=code)
        streams = capsys.readouterr()
        assert reason in streams.err and streams.err.count("\n") == 1 and not streams.out
    (runs / "y" / "run.json").write_text("{")
    maximir("compare", runs / "y", runs / "bad", expect=1)
    assert "holds no complete evaluation" in capsys.readouterr().err


def test_without_scipy_nothing_is_measured(data, no_network, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    monkeypatch.setattr("maximir.evaluation.evaluate.run", None)
    maximir("compare", no_network, tmp_path / "good", "--data", data, expect=2)
    assert "pip install 'maximir[evaluate]'" in capsys.readouterr().err


def test_colour_adds_columns_and_fields(data, quick_pictures, tmp_path, capsys):
    words = ["evaluate", "--restored", tmp_path / "good", "--data", data, "-o", tmp_path / "out"]
    maximir(*words, "--colour")
    assert "restored ΔE / hue / cast" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    whole = summary["all"]
    assert 0 < whole["delta_e"] < whole["input_delta_e"] and 0 < whole["hue"] < whole["input_hue"]
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert whole["delta_e"] == pytest.approx(np.mean([float(row["delta_e"]) for row in rows]))
    assert [score.delta_e for score in read_scores(tmp_path / "out")] == [float(r["delta_e"]) for r in rows]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert f"<td>{float(rows[0]['delta_e']):.2f}</td>" in page
    assert "restored ΔE / hue / cast" in (tmp_path / "out" / "summary.md").read_text("utf-8")
    maximir(*words[:-1], tmp_path / "plain")
    assert "ΔE" not in capsys.readouterr().out
    maximir(*words[:-1], tmp_path / "plain", "--colour", expect=2)  # its scores have no colours
