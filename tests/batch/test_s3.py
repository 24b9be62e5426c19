"""S3 as it is spoken: moto's server on loopback, where moto and s3fs are installed."""

import numpy as np
import pytest

from helpers.command import maximir
from maximir import images
from maximir.storage import open_storage

pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("default")  # of botocore and moto


@pytest.fixture
def s3(monkeypatch):
    moto = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    fs = open_storage("s3://pictures").fs
    if not fs.exists("pictures"):  # moto keeps its buckets as long as the process lives
        fs.mkdir("pictures")
    yield fs
    moto.stop()


def test_from_bucket_to_bucket_as_on_a_disk(s3, tmp_path, capsys, gentle_weights):
    (tmp_path / "in").mkdir()
    for k in range(3):
        data, _ = images.encode(images.Photo(np.full((4, 5 + k, 3), 40 * k, np.uint8)), "png")
        s3.pipe_file(f"pictures/in/{k}.png", data)
        (tmp_path / "in" / f"{k}.png").write_bytes(data)
    also = ("--weights", gentle_weights, "--precision", "fp32")  # addresses take fp32 for auto
    maximir("restore", tmp_path / "in", "-o", tmp_path / "out", *also)
    maximir("restore", "s3://pictures/in", "-o", "s3://pictures/out", *also)
    for k in range(3):
        assert s3.cat_file(f"pictures/out/{k}.png") == (tmp_path / "out" / f"{k}.png").read_bytes()
    capsys.readouterr()
    maximir("restore", "s3://pictures/in", "-o", "s3://pictures/out", *also, "--resume")
    assert "3 done before, 0 restored" in capsys.readouterr().out
    # A store that tells MD5s is not read again to know what is done.
    [address] = [found for found, _ in open_storage("s3://pictures/out").files() if found.path == "1.png"]
    assert len(address.item.md5) == 32


def test_what_is_wrong_is_one_sentence_before_work(s3, tmp_path, capsys, monkeypatch, gentle_weights):
    def told(*words):
        maximir("restore", *words, "--weights", gentle_weights, expect=2)
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "testing-secret" not in err
        return err

    (tmp_path / "1.png").write_bytes(b"")
    assert "s3://no-such-bucket" in told("s3://no-such-bucket/in", "-o", tmp_path / "out")
    assert "s3://no-such-bucket/out" in told(tmp_path / "1.png", "-o", "s3://no-such-bucket/out")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "redentials" in told("s3://pictures/in", "-o", tmp_path / "out")
