"""One photograph through standard input and output: in processes, because streams and exit codes matter."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from helpers.command import maximir
from maximir import Restorer, images


def encoded(kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def run(*arguments, data=b"", weights, expect=0):
    command = [sys.executable, "-m", "maximir", "restore", *map(str, arguments), "--weights", str(weights)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=120)
    assert done.returncode == expect, done.stderr
    assert b"Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("kind", "wish", "result"),
    [("png", None, "png"), ("jpeg", None, "jpeg"), ("gif", None, "png"), ("png", "tiff", "tiff")],
)
def test_from_pipe_to_pipe(kind, wish, result, tiny_weights):
    data = encoded(kind)
    done = run("-", "-o", "-", *(["--format", wish] if wish else []), data=data, weights=tiny_weights)
    restored = Restorer(tiny_weights).restore_photo(images.decode(data))
    assert done.stdout == images.encode(restored, result)[0]  # nothing else is there
    assert b"1 restored, 0 failed" in done.stderr


@pytest.mark.slow
def test_from_a_file_and_to_a_file(tmp_path, tiny_weights):
    (tmp_path / "a.jpg").write_bytes(encoded("jpeg"))
    there = run(tmp_path / "a.jpg", "-o", "-", weights=tiny_weights).stdout
    assert there.startswith(b"\xff\xd8\xff")
    run("-", "-o", tmp_path / "b.jpg", data=encoded("jpeg"), weights=tiny_weights)
    assert (tmp_path / "b.jpg").read_bytes() == there
    done = run("-", "-o", tmp_path / "b.jpg", data=encoded("jpeg"), weights=tiny_weights, expect=1)
    assert b"use --overwrite" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "b.jpg"]  # no journal


@pytest.mark.parametrize(
    ("arguments", "data", "code", "words"),
    [
        (["-", "-o", "-"], b"", 1, "standard input: the file is empty"),
        (["-", "-o", "-"], b"hello", 1, "standard input: not an image"),
        (["-", "-o", "-"], encoded()[:200], 1, "standard input: the file is truncated or damaged"),
        (["{tmp}/missing.png", "-o", "-"], b"", 1, "missing.png: no such file"),
        (["{tmp}", "-o", "-"], b"", 2, "is a folder; standard output holds one photograph"),
        (["-", "-o", "-", "--format", "gif"], encoded(), 2, "give one of png, jpeg, webp, tiff, avif"),
        (["-", "-o", "{tmp}/a.png", "--format", "png"], encoded(), 2, "--format is for -o -"),
        (["{tmp}/a.png", "-o", "{tmp}/b.png", "--format", "png"], b"", 2, "--format is for -o -"),
        (["-", "-o", "{tmp}"], encoded(), 2, "name the file for the result"),
        (["-", "-o", "webdav://me:hunter22@h/x"], encoded(), 2, "webdav://***@h/x: name the file"),
        (["http://me:hunter22@127.0.0.1:9/x.png", "-o", "-"], b"", 1, "http://***@127.0.0.1:9/x.png: "),
        (["-", "-o", "-", "--max-memory", "1kB"], encoded() + bytes(2000), 1, "the limit is 1,000"),
        (["-", "-o", "{tmp}/a.heic"], encoded(), 2, "cannot write .heic"),
        (["-", "{tmp}/a.png", "-o", "{tmp}"], encoded(), 2, "- stands for one photograph"),
        (["-", "-o", "-", "--shard", "1/2"], encoded(), 2, "leave out other inputs, --shard"),
        (["-", "-o", "-", "--resume"], encoded(), 2, "--resume needs a folder"),
    ],
)
def test_what_cannot_be_piped(arguments, data, code, words, tmp_path, tiny_weights, monkeypatch, capsys):
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))
    monkeypatch.setattr("maximir.cli.restore.private_output", lambda: output)
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    maximir("restore", *arguments, "--weights", tiny_weights, expect=code)
    streams = capsys.readouterr()
    assert (
        words in streams.err
        and "hunter22" not in streams.err
        and streams.out == ""
        and output.getvalue() == b""
    )
    assert os.listdir(tmp_path) == []


def test_terminals_are_refused(tiny_weights, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: True))
    maximir("restore", "-", "-o", "-", "--weights", tiny_weights, expect=2)
    assert "standard input, which is a terminal" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    maximir("restore", "a.png", "-o", "-", "--weights", tiny_weights, expect=2)
    assert "standard output, which is a terminal" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", None)
    maximir("restore", "-", "-o", "-", "--weights", tiny_weights, expect=2)
    assert "standard input is closed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_closed_pipe_is_one_sentence(tiny_weights):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "maximir", "restore", "-", "-o", "-", "--weights", str(tiny_weights)]
    done = subprocess.run(command, input=encoded(), stdout=write, stderr=subprocess.PIPE, timeout=120)
    os.close(write)
    assert done.returncode == 1 and b"standard output: broken pipe" in done.stderr
    assert b"Traceback" not in done.stderr


def test_times_are_kept(tmp_path, tiny_weights):
    (tmp_path / "in").mkdir()
    source, target = tmp_path / "in" / "a.png", tmp_path / "out" / "a.png"
    source.write_bytes(encoded())
    os.utime(source, ns=(10**18, 10**18 + 1000))
    words = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--weights", tiny_weights)
    maximir(*words)
    assert target.stat().st_mtime_ns != source.stat().st_mtime_ns
    for _ in range(2):  # of results that are there, too
        maximir(*words, "--keep-times", "--resume")
        assert target.stat().st_mtime_ns == 10**18 + 1000
