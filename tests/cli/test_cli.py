"""The command as its users meet it: in a process of its own where exit codes and streams matter."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.command import files, maximir
from helpers.reference import write_checkpoint
from maximir import MaximirError, UsageError, __version__, images, storage
from maximir.batch import pipeline
from maximir.batch.outcome import Outcome, Report
from maximir.batch.plan import Job, plan
from maximir.engine import precision
from maximir.files import PART, file_digest
from maximir.models import catalogue
from maximir.models.official import table
from maximir.network.config import MaximConfig
from maximir.storage import Address, Folder


@pytest.fixture
def photos(tmp_path):
    """A folder of good photographs, some below another folder."""
    folder = tmp_path / "photos"
    (folder / "summer").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "summer/c.webp", "summer/d.tif"):
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), np.uint8)).save(folder / name)
    return folder


def test_help_and_version_do_not_import_torch():
    code = (
        "import sys; sys.argv = ['maximir', {!r}]\n"
        "from maximir.cli import main\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code\n"
        "heavy = {{'torch', 'numpy', 'pyvips', 'PIL'}} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for option, words in (("--help", "restore"), ("--version", __version__)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(option)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


def test_python_m_maximir():
    done = subprocess.run(
        [sys.executable, "-m", "maximir", "restore"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_keeps_brackets(capsys):
    maximir("evaluate", "--help")
    assert "maximir[evaluate]" in "".join(capsys.readouterr().out.split())


def test_usage_errors(capsys):
    for arguments in (["restore", "x.png"], ["frobnicate"], ["restore", "--wrong"]):
        maximir(*arguments, expect=2)
        assert "Traceback" not in capsys.readouterr().err


def test_a_file_that_begins_with_a_dash_gets_a_hint(tmp_path, monkeypatch, capsys):
    for name in ("-dash.png", "-"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for given, hinted in (
        ("-dash.png", True),
        ("./-dash.png", False),
        ("-other.png", False),
        ("-", False),
    ):
        maximir("restore", given, "-o", "out", "--task", "nothing", expect=2)
        error = capsys.readouterr().err
        assert ("-dash.png is a file, but starts like an option: write ./-dash.png" in error) == hinted
        assert hinted == ("starts like an option" in error)


def test_folder(photos, tiny_weights, tmp_path, capsys):
    maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights)
    assert files(tmp_path / "out") == files(photos)
    streams = capsys.readouterr()
    assert "4 restored, 0 failed" in streams.out
    assert "[4/4]" in streams.err
    for name in files(photos):
        before, after = images.read(photos / name), images.read(tmp_path / "out" / name)
        assert before.rgb.shape == after.rgb.shape
        assert not np.array_equal(before.rgb, after.rgb)


def test_one_file_to_one_file_and_to_a_folder(photos, tiny_weights, tmp_path):
    maximir("restore", photos / "a.png", "-o", tmp_path / "new.tif", "--weights", tiny_weights)
    assert (tmp_path / "new.tif").is_file()
    maximir("restore", photos / "a.png", photos / "b.jpg", "-o", tmp_path / "out", "--weights", tiny_weights)
    assert files(tmp_path / "out") == ["a.png", "b.jpg"]


def test_bad_files_among_good_ones(photos, tiny_weights, tmp_path, capsys):
    good = files(photos)
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpg").write_text("hello")
    (photos / "notes").write_text("hello")
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:200])
    (photos / "dangling.png").symlink_to(photos / "nowhere.png")
    (photos / ".hidden").write_text("ignored")
    bad = ["cut.png", "dangling.png", "empty.png", "notes", "text.jpg"]
    missing = tmp_path / "missing.png"
    maximir("restore", photos, missing, "-o", tmp_path / "out", "--weights", tiny_weights, expect=1)
    assert files(tmp_path / "out") == good
    streams = capsys.readouterr()
    assert f"4 restored, {len(bad) + 1} failed" in streams.out
    lines = streams.err.splitlines()
    for path in [photos / name for name in bad] + [missing]:
        assert sum(line.startswith(f"{path}: ") for line in lines) == 1
    assert "Traceback" not in streams.err


def test_existing_results_are_kept_without_overwrite(photos, tiny_weights, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"precious")
    maximir("restore", photos, "-o", out, "--weights", tiny_weights, expect=1)
    assert (out / "a.png").read_bytes() == b"precious"
    assert "use --overwrite" in capsys.readouterr().err
    maximir("restore", photos, "-o", out, "--weights", tiny_weights, "--overwrite")
    assert (out / "a.png").read_bytes() != b"precious"


def test_resume(photos, tiny_weights, tmp_path, capsys):
    words = ("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, "--resume")
    maximir(*words)
    (tmp_path / "out" / "summer" / "c.webp").unlink()
    maximir(*words)
    streams = capsys.readouterr()
    assert "3 done before, 1 restored, 0 failed" in streams.out
    assert streams.err.count("(done before)") == 3
    maximir(*words, "--precision", "bf16")  # other settings: other results
    assert "4 restored, 0 failed" in capsys.readouterr().out
    maximir(*words, "--precision", "bf16")
    assert "4 done before, 0 restored" in capsys.readouterr().out
    one = ("restore", photos / "a.png", "-o", tmp_path / "one.png", "--weights", tiny_weights, "--resume")
    maximir(*one, expect=2)
    assert "--resume needs a folder" in capsys.readouterr().err
    assert not (tmp_path / "one.png").exists()


def test_precision_auto_is_stated_and_not_mixed(photos, tiny_weights, tmp_path, capsys, monkeypatch):
    processors = [precision.Processor("AuthenticAMD", frozenset({flag})) for flag in ("avx512_bf16", "avx2")]
    Image.fromarray(np.full((8, 8), 30_000, np.uint16)).save(photos / "deep.png")
    report = tmp_path / "run.jsonl"
    words = ("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, "--device", "cpu")
    words += ("--resume", "--report", report)
    monkeypatch.setattr(precision, "processor", lambda: processors[0])
    maximir(*words)
    assert "tiny.safetensors, bf16, fp32)" in capsys.readouterr().out
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [line["precision"] for line in lines[1:]] == ["bf16", "bf16", "fp32", "bf16", "bf16"]
    maximir(*words)
    assert "5 done before, 0 restored" in capsys.readouterr().out
    monkeypatch.setattr(precision, "processor", lambda: processors[1])
    maximir(*words)  # the same command on another machine: nothing is mixed
    assert "5 restored, 0 failed" in (out := capsys.readouterr().out) and "tiny.safetensors, fp32)" in out
    maximir(*words, "--precision", "fp32")
    assert "5 done before, 0 restored" in capsys.readouterr().out


def test_report(photos, tiny_weights, tmp_path, capsys):
    (photos / "bad.png").write_text("no image")
    report = tmp_path / "run.jsonl"
    words = ("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, "--report", report)
    maximir(*words, expect=1)
    maximir(*words, "--resume", expect=1)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [lines[0]["run"].split()[:2], lines[0]["version"]] == [["maximir", "restore"], __version__]
    assert [line.get("status") for line in lines] == [
        *(None, "restored", "restored", "failed", "restored", "restored"),
        *(None, "known", "known", "failed", "known", "known"),
    ]
    first = lines[1]
    assert first["source"] == str(photos / "a.png") and first["target"] == str(tmp_path / "out" / "a.png")
    assert (first["height"], first["width"], first["error"]) == (10, 12, None)
    assert first["sha256"] == lines[7]["sha256"] == file_digest(tmp_path / "out" / "a.png")
    assert lines[3]["error"] == "not an image that maximir can read"


@pytest.mark.parametrize(
    ("report", "expect", "reason"),
    [
        (
            "missing/run.jsonl",
            2,
            "missing/run.jsonl: cannot write the report there (no such file or directory)",
        ),
        pytest.param(
            "/dev/full",
            1,
            "/dev/full: cannot be written (no space left on device)",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device"),
        ),
    ],
)
def test_a_report_that_cannot_be_written(report, expect, reason, photos, tiny_weights, tmp_path, capsys):
    words = ("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights)
    maximir(*words, "--report", tmp_path / report, expect=expect)
    assert reason in capsys.readouterr().err
    assert not files(tmp_path / "out")


@pytest.mark.parametrize("content", [None, b"{}", b"[1]\n", b"notes\n"])
def test_a_report_never_touches_another_file(content, photos, tiny_weights, tmp_path, capsys):
    target = photos / "a.png"
    if content is not None:
        target.write_bytes(content)
    before = target.read_bytes()
    maximir(
        "restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, "--report", target, expect=2
    )
    assert "a.png: exists and is not a report" in capsys.readouterr().err
    assert target.read_bytes() == before and not files(tmp_path / "out")


def test_options_of_ray_need_it(photos, tiny_weights, tmp_path, capsys):
    for option in ("--actors", "--cpus", "--gpus"):
        maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, option, "2", expect=2)
        assert "are for --ray" in capsys.readouterr().err


def test_output_folder_inside_the_input_is_not_an_input(photos, tiny_weights):
    good = files(photos)
    for _ in range(2):
        maximir("restore", photos, "-o", photos / "restored", "--weights", tiny_weights, "--overwrite")
    assert files(photos / "restored") == good


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["{photos}", "-o", "{photos}", "--weights", "{weights}"], "same folder"),
        (["{photos}/a.png", "-o", "{photos}", "--weights", "{weights}"], "same file"),
        (["{photos}/a.png", "-o", "{photos}/a.png", "--weights", "{weights}", "--overwrite"], "same file"),
        (["{photos}", "-o", "{out}", "--task", "sharpen"], "unknown task 'sharpen'"),
        (["{photos}", "-o", "{out}"], "one of --task, --model and --weights, or a --preset"),
        (["{photos}", "-o", "{out}", "--weights", "nothing"], "unknown model 'nothing'"),
        (["{empty}", "-o", "{out}", "--weights", "{weights}"], "no files in"),
        (["", "-o", "{out}", "--weights", "{weights}"], "an INPUT is empty"),
        (["{photos}", "-o", "", "--weights", "{weights}"], "the output is empty"),
        (["-", "--in-place", "--weights", "{weights}"], "--in-place is for files on disks"),
        (
            ["{photos}", "-o", "{out}", "--weights", "{weights}", "--shard", "9" * 5000 + "/9"],
            "a shard is i/n",
        ),
        (["{photos}/a.png", "-o", "{out}.heic", "--weights", "{weights}"], "cannot write .heic"),
        (["{photos}/" + 300 * "x", "-o", "/dev/null", "--weights", "{weights}"], "cannot write there"),
        (["{photos}", "-o", "{out}.png", "--weights", "{weights}"], "named like one image"),
        (["{photos}/a.png", "{other}/a.png", "-o", "{out}", "--weights", "{weights}"], "would both become"),
        (["{photos}", "-o", "{photos}/a.png/x", "--weights", "{weights}"], "cannot write there"),
        (["{photos}", "-o", "/dev/null", "--weights", "{weights}"], "cannot write there"),
        (["{photos}", "-o", "{out}", "--weights", "{weights}", "--device", "gpu"], "device 'gpu'"),
    ],
)
def test_senseless_requests_do_nothing(arguments, reason, photos, tiny_weights, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.png").write_bytes((photos / "a.png").read_bytes())
    before = files(photos)
    places = {
        "photos": photos,
        "out": tmp_path / "out",
        "empty": tmp_path / "empty",
        "other": tmp_path / "other",
        "weights": tiny_weights,
    }
    maximir("restore", *(argument.format(**places) for argument in arguments), expect=2)
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1
    assert files(photos) == before
    assert not (tmp_path / "out").exists()


def test_bad_weights_do_nothing(photos, tmp_path, capsys):
    (tmp_path / "bad.npz").write_bytes(b"PK\3\4 no")
    maximir("restore", photos, "-o", tmp_path / "out", "--weights", tmp_path / "bad.npz", expect=1)
    message = capsys.readouterr().err
    assert message.startswith(f"maximir: {tmp_path / 'bad.npz'}: ")
    assert not (tmp_path / "out").exists()
    assert message.count("\n") == 1


def test_a_file_that_its_format_cannot_hold_fails_before_the_work(
    tiny_weights, tmp_path, capsys, monkeypatch
):
    Image.new("RGBA", (5, 5)).save(tmp_path / "a.png")
    monkeypatch.setattr("maximir.restoring.restorer.Restorer.restore_arrays", None)
    maximir("restore", tmp_path / "a.png", "-o", tmp_path / "b.jpg", "--weights", tiny_weights, expect=1)
    assert "JPEG cannot hold transparency" in capsys.readouterr().err


def test_a_folder_may_be_named_like_an_image(photos, tiny_weights, tmp_path):
    maximir("restore", photos / "a.png", "-o", f"{tmp_path}/b.png/", "--weights", tiny_weights)
    assert [path.name for path in (tmp_path / "b.png").iterdir() if not path.name.startswith(".")] == [
        "a.png"
    ]


def test_alpha_that_is_opaque_does_not_keep_a_jpeg_from_being_written(tiny_weights, tmp_path, capsys):
    Image.new("RGBA", (5, 5), (9, 9, 9, 255)).save(tmp_path / "a.png")
    maximir("restore", tmp_path / "a.png", "-o", tmp_path / "b.jpg", "--weights", tiny_weights)
    assert "alpha, which is opaque everywhere, left out" in capsys.readouterr().err
    assert images.read(tmp_path / "b.jpg").alpha is None


def test_a_full_disk_ends_the_run(photos, tiny_weights, tmp_path, monkeypatch, capsys):
    tried = []

    def write(path, data, **_):
        if path.suffix != ".jsonl":
            tried.append(path.name)
            if path.name == "b.jpg":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_bytes(data)

    with monkeypatch.context() as full:
        full.setattr(storage, "write_atomically", write)
        full.setattr(pipeline, "WAITING_PHOTOS", 1)
        maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, expect=1)
    assert "d.tif" not in tried
    said = capsys.readouterr().err
    assert "b.jpg: no space left on device" in said
    assert "the disk is full: stopped before 2 of 4 images; make room, then repeat" in said
    maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, "--resume")
    assert "1 done before, 3 restored, 0 failed" in capsys.readouterr().out


def test_a_full_disk_at_the_end_is_one_failure(photos, tiny_weights, tmp_path, monkeypatch, capsys):
    def write(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, "write_atomically", write)
    maximir("restore", photos / "a.png", "-o", tmp_path / "out", "--weights", tiny_weights, expect=1)
    said = capsys.readouterr()
    assert "0 restored, 1 failed" in said.out and "the disk is full" not in said.err


def test_a_report_named_like_standard_output_is_refused():
    with pytest.raises(UsageError, match="--report takes a file"):
        Report(Path("-"), "maximir")


def test_a_report_goes_on_after_a_full_disk(tmp_path, monkeypatch):
    report = Report(tmp_path / "report.jsonl", "maximir")
    outcome = Outcome(Job(Address(Folder(tmp_path), "a.png"), Address(Folder(tmp_path), "b.png")))
    with monkeypatch.context() as full:
        full.setattr(report.lines, "add", lambda facts: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(MaximirError, match="no space left"):
            report.add(outcome)
    report.add(outcome)
    report.close()
    assert len((tmp_path / "report.jsonl").read_text().splitlines()) == 2


def test_a_report_may_be_a_pipe(photos, tiny_weights, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    out = tmp_path / "out"
    maximir("restore", photos / "a.png", "-o", out, "--weights", tiny_weights, "--report", tmp_path / "pipe")
    lines = [json.loads(line) for line in os.read(reading, 1 << 16).splitlines()]
    os.close(reading)
    assert "run" in lines[0] and lines[1]["status"] == "restored"


def test_what_a_format_cannot_hold_is_said(tiny_weights, tmp_path, capsys):
    images.write(images.Photo(np.zeros((5, 5, 3), np.uint16)), tmp_path / "a.png")
    maximir("restore", tmp_path / "a.png", "-o", tmp_path / "b.jpg", "--weights", tiny_weights)
    assert "[16 bit reduced to the 8 of JPEG]" in capsys.readouterr().err


def test_odd_names_stay_on_one_line(tiny_weights, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("bad\nname.png", "esc\x1b[31m.png", ":dog: [red]x.png"):
        (folder / name).write_bytes(b"")
    maximir("restore", folder, "-o", tmp_path / "out", "--weights", tiny_weights, expect=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert f"{folder}/:dog: [red]x.png: the file is empty" in lines
    assert f"{folder}/bad\\nname.png: the file is empty" in lines
    assert f"{folder}/esc\\x1b[31m.png: the file is empty" in lines


def test_links_to_folders_and_collisions_are_named(photos, tiny_weights, tmp_path, capsys):
    (photos / "loop").symlink_to(photos)
    (photos / "a").write_bytes((photos / "a.png").read_bytes())  # would become a.png too
    maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, expect=1)
    streams = capsys.readouterr()
    assert "4 restored, 2 failed" in streams.out
    assert f"{photos / 'loop'}: is a link to a folder" in streams.err
    assert "would become" in streams.err
    half = tmp_path / f"{PART}0123456789ab.png"  # of another run, in a folder that is not ours
    half.write_bytes(b"half")
    maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, "--resume", expect=1)
    assert "4 done before, 0 restored, 2 failed" in capsys.readouterr().out
    assert half.exists()


def test_a_folder_that_cannot_be_read_is_named(photos, tiny_weights, tmp_path, capsys, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("summer"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, expect=1)
    streams = capsys.readouterr()
    assert f"{photos / 'summer'}: permission denied" in streams.err
    assert "2 restored, 1 failed" in streams.out
    maximir("restore", photos / "summer", "-o", tmp_path / "out", "--weights", tiny_weights, expect=1)
    assert f"{photos / 'summer'}: permission denied" in capsys.readouterr().err


def test_names_of_results():
    def targets(*inputs, output="out"):
        return [str(job.target) for job in plan(inputs, output).jobs]

    assert targets("x/a.JPG", "y/b.tiff") == ["out/a.JPG", "out/b.tiff"]
    assert targets("a.gif", "scan", "b.heic") == ["out/a.gif.png", "out/scan.png", "out/b.heic.png"]
    assert targets("a.NEF", "b.dng", "c.dng.tif") == ["out/a.NEF.tif", "out/b.dng.tif", "out/c.dng.tif"]
    assert targets("a.jpg", output="b.png") == ["b.png"]
    assert targets("a.jpg", output="folder.d") == ["folder.d/a.jpg"]


def test_convert(tmp_path, capsys):
    rng = np.random.default_rng(0)
    config = MaximConfig(features=8, stages=2, groups=1, bottlenecks=1)
    arrays = {e.key: rng.standard_normal(e.shape).astype(np.float32) for e in table(config).values()}
    source, target = write_checkpoint(tmp_path / "a.npz", arrays), tmp_path / "a.safetensors"
    maximir("convert", source, target)
    assert "8 features, 2 stages" in capsys.readouterr().out
    maximir("convert", source, target, expect=2)
    assert "use --overwrite" in capsys.readouterr().err
    maximir("convert", source, tmp_path / "a.pth", expect=2)
    maximir("convert", source, tmp_path / "c.safetensors", "--half", "--int8", expect=2)
    maximir("convert", source, tmp_path / "c.safetensors", "--int8")
    assert (tmp_path / "c.safetensors").stat().st_size < target.stat().st_size / 2
    maximir("convert", source, tmp_path / "nowhere" / "a.safetensors", expect=1)
    del arrays["stage_0_input_conv_0/bias"]
    maximir("convert", write_checkpoint(tmp_path / "b.npz", arrays), tmp_path / "b.safetensors", expect=1)
    assert not (tmp_path / "b.safetensors").exists()


def test_info_lists_models(capsys):
    maximir("info")
    out = capsys.readouterr().out
    assert all(model.task in out for model in catalogue.MODELS)
    assert "trained on" in out
    assert "M-3" in out


def test_interrupt(photos, tiny_weights, tmp_path, monkeypatch, capsys):
    def interrupt(data):
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "decode", interrupt)
    maximir("restore", photos, "-o", tmp_path / "out", "--weights", tiny_weights, expect=130)
    assert not files(tmp_path / "out")
    assert "Traceback" not in capsys.readouterr().err


def test_no_network(photos, tiny_weights, tmp_path):
    """Restoring opens no connection: with sockets forbidden it works as before."""
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from maximir.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "restore", photos, "-o", tmp_path / "o", "--weights", tiny_weights]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def large(tmp_path):
    """A photograph that is large for the tiny model's tests, in a folder of its own."""
    folder = tmp_path / "large"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (800, 900, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "large.png")
    return folder / "large.png"


@pytest.mark.slow
def test_plan_cluster(tiny_weights, tmp_path, capsys):
    stated = ["plan-cluster", "--images", "1000", "--size", "4000x3000=1", "--size", "2000x1000=3"]
    stated += ["--workers", "1", "--workers", "10", "--price", "2", "--within", "1"]
    maximir(*stated, "--seconds-per-megapixel", "2")
    out = capsys.readouterr().out
    assert "1,000 photographs of 4.5 megapixels, 9 s each (as stated): 2 h 30 min of computing" in out
    assert re.search(r"^1 +2 h 3\d min +2\.\d +5\.\d\d +\d+% +\d+ +computing", out, re.MULTILINE)
    assert "within 1 h: 3 workers, " in out
    maximir(*stated, "--seconds-per-megapixel", "2")
    assert capsys.readouterr().out == out  # seeded
    maximir("plan-cluster", "--images", "9", "--size", "64x64", "--weights", tiny_weights, "--workers", "1")
    assert "timed on this machine (cpu)" in capsys.readouterr().out
    (tmp_path / "r.jsonl").write_text('{"status": "restored", "height": 9, "width": 9, "seconds": 2}')
    maximir("plan-cluster", "--images", "9", "--sample", tmp_path / "r.jsonl", "--workers", "1", "--shards")
    assert "2 s each (r.jsonl): 18 s of computing" in capsys.readouterr().out
    for wrong in (
        ["--seconds-per-megapixel", "2"],  # of what size?
        ["--size", "64x64"],  # with which model?
        ["--size", "64x64=none", "--seconds-per-megapixel", "2"],
        ["--size", "64x64", "--seconds-per-megapixel", "0"],
        ["--size", "64x64", "--seconds-per-megapixel", "2", "--task", "denoise"],
        ["--size", "64x64", "--seconds-per-megapixel", "2", "--bandwidth", "0"],
        ["--size", "64x64", "--seconds-per-megapixel", "2", "--within", "0"],
        ["--size", "64x64", "--seconds-per-megapixel", "2", "--listing", "0"],
        ["--size", "64x64", "--seconds-per-megapixel", "nan"],
        ["--size", "64x64", "--seconds-per-megapixel", "2", "--latency", "inf"],
        ["--sample", tmp_path / "none.jsonl"],
        ["--sample", tmp_path / "r.jsonl", "--task", "denoise"],
    ):
        maximir("plan-cluster", "--images", "9", *wrong, expect=2)
        assert capsys.readouterr().err.startswith("maximir: ")


@pytest.mark.slow
def test_info_estimates_an_image(tiny_weights, capsys):
    maximir("info", "--size", "640x480", "--weights", tiny_weights, "--precision", "fp32")
    out = capsys.readouterr().out
    assert "640 x 480 pixels, fp32, cpu" in out
    assert "B (at least " in out and "time    about" in out
    maximir("info", "--size", "big", "--task", "denoise", expect=2)
    maximir("info", "--size", "640x480", expect=2)
    maximir("info", "--size", "30000x30000", "--weights", tiny_weights, expect=2)
    assert "images have at most 250,000,000 pixels" in capsys.readouterr().err
    maximir("info", "--size", "6000x4000", "--weights", tiny_weights, "--max-memory", "100MB", expect=1)
    assert "6000 x 4000 pixels need at least" in capsys.readouterr().err


def test_a_budget_that_is_too_small_is_refused_before_the_work(large, tiny_weights, tmp_path, capsys):
    out = tmp_path / "out"
    maximir("restore", large, "-o", out, "--weights", tiny_weights, "--max-memory", "100MB", expect=1)
    assert "900 x 800 pixels need at least" in capsys.readouterr().err
    assert files(out) == []
    maximir("restore", large, "-o", out, "--weights", tiny_weights, "--max-memory", "lots", expect=2)


def test_a_scratch_folder_that_is_missing_is_named(large, tiny_weights, tmp_path, capsys, monkeypatch):
    from maximir.restoring import memory

    monkeypatch.setattr(memory, "resident", lambda: 0)
    options = ("--weights", tiny_weights, "--max-memory", "250MB", "--scratch", tmp_path / "missing")
    maximir("restore", large, "-o", tmp_path / "out", *options, expect=1)
    assert "missing: no scratch files can be made there" in capsys.readouterr().err


def test_interrupted_in_the_middle_of_an_image(large, tiny_weights, tmp_path, monkeypatch, capsys):
    """No part of a result, no scratch file; the status of an interrupted program."""
    from maximir.restoring import memory

    def interrupt(self, strips):
        assert list(scratch.iterdir()) == []
        raise KeyboardInterrupt

    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(memory, "resident", lambda: 0)
    monkeypatch.setattr(memory.Shares, "__call__", interrupt)
    options = ("--weights", tiny_weights, "--max-memory", "250MB", "--scratch", scratch)
    maximir("restore", large, "-o", out, *options, expect=130)
    assert capsys.readouterr().err.splitlines()[-1].startswith("maximir: interrupted")
    assert files(out) == files(scratch) == []
