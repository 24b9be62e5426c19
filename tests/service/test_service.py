"""The service as its users meet it: the real worker, with a model of the box and small images."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from helpers.command import maximir
from helpers.dng import dng, sensor_values
from helpers.serving import PATIENCE, Later, Service, children, until
from maximir import Chain, Restorer, images
from maximir.service import server
from maximir.service.settings import Settings
from maximir.service.worker import Worker

MAX_PIXELS = 2_200_000


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    with Service(folder, real=True, max_pixels=MAX_PIXELS) as running:
        yield running


@pytest.fixture(scope="module")
def restorer():
    return Restorer("denoise", precision="fp32")


def noise(height=16, width=20, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(kind="png", array=None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise() if array is None else array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_it_gives_what_the_library_gives(kind, service, restorer):
    data = encoded(kind)
    answer = service.restore(data, f"photo.{kind}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"image/{kind}"
    expected, _ = images.encode(restorer.restore_photo(images.decode(data)), kind)
    assert answer.content == expected
    assert float(answer.headers["x-maximir-seconds"]) > 0


def test_all_tasks(service):
    results = {
        task: service.restore(encoded(), task=task) for task in ("denoise", "derain", "dehaze", "enhance")
    }
    assert {answer.status_code for answer in results.values()} == {200}
    assert len({answer.content for answer in results.values()}) == 4
    assert 'filename="photo-dehaze.png"' in results["dehaze"].headers["content-disposition"]


def test_strength_detail_and_a_mask(service, restorer):
    data = encoded("png")
    mask = np.zeros((16, 20), np.uint8)
    mask[:, :9] = 255
    fields = {"strength": 0.6, "detail": 0.3}
    answer = service.restore(data, files={"mask": ("m.png", encoded(array=mask))}, **fields)
    blend = restorer.blend(mask=mask, **fields)
    expected, _ = images.encode(restorer.restore_photo(images.decode(data), blend=blend), "png")
    assert answer.content == expected
    earlier = service.restore(data).content
    files = {"mask": ("m.png", encoded(array=mask)), "restored": ("r.png", earlier)}
    blended = service.restore(data, files=files, **fields)
    assert blended.content == expected
    assert "x-maximir-precision" in answer.headers and "x-maximir-precision" not in blended.headers
    unchanged = service.restore(data, strength=0)
    assert np.array_equal(images.decode(unchanged.content).rgb, noise())


@pytest.mark.parametrize(
    ("fields", "files", "status", "words"),
    [
        ({"strength": "1.2"}, {}, 400, "strength must be from 0 to 1"),
        ({"detail": "much"}, {}, 400, "detail must be a number from 0 to 1"),
        ({"strength": "nan"}, {}, 400, "strength must be from 0 to 1"),
        ({"task": "denoise,paint"}, {}, 422, "unknown task 'paint'"),
        ({"task": "denoise,"}, {}, 400, "empty link"),
        ({"task": "denoise:7,enhance"}, {}, 400, "must be from 0 to 1"),
        ({"task": "denoise,enhance", "model": "denoise-box"}, {}, 422, "task has 2 links"),
        ({"task": "enhance", "model": "denoise-box"}, {}, 422, "is for denoise"),
        ({}, {"mask": np.zeros((16, 20), np.uint8)}, 422, "all black"),
        ({}, {"mask": np.ones((16, 21), np.uint8)}, 422, "does not scale exactly"),
        ({}, {"restored": np.ones((16, 21, 3), np.uint8)}, 422, "the restored image is"),
    ],
)
def test_blends_and_chains_that_are_refused(fields, files, status, words, service):
    files = {name: ("a.png", encoded(array=array)) for name, array in files.items()}
    answer = service.restore(encoded(), files=files, **fields)
    assert answer.status_code == status and words in answer.json()["error"].lower(), answer.text


@pytest.mark.parametrize(("field", "words"), [("mask", "The mask: "), ("restored", "The restored image: ")])
def test_errors_say_which_file_they_are_about(field, words, service):
    answer = service.restore(encoded(), files={field: ("a.png", b"hello")})
    assert answer.status_code == 422 and answer.json()["error"].startswith(words), answer.text


def test_a_users_model_may_have_the_name_of_a_task(gentle_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("MAXIMIR_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "denoise.safetensors"
    path.write_bytes(gentle_weights.read_bytes())
    worker = Worker(Settings().for_worker("cpu"), io.BytesIO())
    assert worker.restorer_of("denoise").files == [(path, 1.0)]
    assert worker.restorer_of("denoise").task == "denoise"


def test_a_chain(service):
    data = encoded()
    answer = service.restore(data, task="denoise,enhance:0.5")
    chain = Chain("denoise,enhance:0.5", precision="fp32")
    assert np.array_equal(images.decode(answer.content).rgb, chain.restore_photo(images.decode(data)).rgb)
    assert 'filename="photo-denoise-enhance.png"' in answer.headers["content-disposition"]
    assert "denoise-box" in answer.headers["x-maximir-notes"]


def test_what_a_photograph_says_of_itself_is_kept(service):
    exif = Image.Exif()
    exif[271], exif[274] = "Maker", 6  # lies on its side
    icc = b"\0" * 36 + b"acsp" + b"\0" * 100
    answer = service.restore(encoded("jpeg", exif=exif), "a.jpg")
    with Image.open(io.BytesIO(answer.content)) as result:
        assert result.size == (16, 20)  # upright
        assert result.getexif()[271] == "Maker" and result.getexif().get(274, 1) == 1
    assert service.restore(encoded("png", icc_profile=icc), "a.png").status_code == 200


def test_formats_and_notes(service):
    wide, _ = images.encode(images.Photo(np.full((9, 9, 3), 40_000, np.uint16)), "png")
    answer = service.restore(wide, "scan.png", format="jpeg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-maximir-notes"] == "16 bit reduced to the 8 of JPEG"
    assert images.decode(service.restore(wide).content).rgb.dtype == np.uint16
    moving = io.BytesIO()
    frames = [Image.fromarray(noise(seed=n)) for n in range(3)]
    frames[0].save(moving, "gif", save_all=True, append_images=frames[1:])
    answer = service.restore(moving.getvalue(), "moving.gif")
    assert answer.headers["content-type"] == "image/png"
    assert "first of 3 frames" in answer.headers["x-maximir-notes"]


def test_camera_raw_files(service):
    pytest.importorskip("rawpy")
    data = dng(sensor_values(np.full((32, 48), 0.3)))
    answer = service.restore(data, "photo.dng")
    assert answer.headers["content-type"] == "image/tiff"
    assert "DNG developed by LibRaw" in answer.headers["x-maximir-notes"]
    assert images.decode(answer.content).rgb.shape == (32, 48, 3)
    assert service.restore(data, "photo.dng", format="png").headers["content-type"] == "image/png"
    answer = service.restore(dng(sensor_values(np.full((32, 48), 0.3)), size=(320, 48)), "photo.dng")
    assert answer.status_code == 422 and "damaged" in answer.json()["error"]
    answer = service.restore(dng(sensor_values(np.full((1600, 1600), 0.3))), "photo.dng")
    assert answer.status_code == 413


def bomb() -> bytes:
    """A small PNG of 50,000 × 50,000 pixels."""
    data = bytearray(encoded())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "status", "words"),
    [
        (lambda: b"hello", 415, "not an image"),
        (lambda: b"http://127.0.0.1/a.png", 415, "not an image"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", 415, "not an image"),
        (lambda: b"%PDF-1.7", 415, "not an image"),
        (lambda: b"", 422, "empty"),
        (lambda: encoded()[:200], 422, "damaged"),
        (lambda: encoded("jpeg")[:300], 422, "damaged"),
        (bomb, 413, ""),
        (lambda: encoded(array=np.zeros((1500, 1500, 3), np.uint8)), 413, "exceeds this server's limit"),
    ],
)
def test_what_cannot_be_restored(make, status, words, service):
    start = time.monotonic()
    answer = service.restore(make())
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"].lower()
    assert time.monotonic() - start < 5


def test_a_format_that_cannot_hold_it(service):
    buffer = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(buffer, "png")
    answer = service.restore(buffer.getvalue(), format="jpeg")
    assert answer.status_code == 422 and "transparency" in answer.json()["error"]


def test_malformed_images(service):
    """Cut off, with bits turned over, with bytes overwritten: a result or a reason, and no restart."""
    rng = np.random.default_rng(0)
    restarts = service.metric("maximir_worker_starts_total")
    found = []
    for kind in ("png", "jpeg", "webp", "tiff", "gif", "avif"):
        whole = encoded(kind)
        for case in range(12):
            data = bytearray(whole)
            if case % 3 == 0:
                del data[int(rng.integers(1, len(data))) :]
            elif case % 3 == 1:
                data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
            else:
                at = int(rng.integers(min(64, len(data) - 8)))
                data[at : at + 4] = rng.bytes(4)
            found.append(service.restore(bytes(data), f"a.{kind}").status_code)
    assert set(found) <= {200, 413, 415, 422}, found
    assert len(set(found)) > 1
    assert service.metric("maximir_worker_starts_total") == restarts


def test_the_service_itself_holds_no_torch_and_no_decoder(service):
    service.restore(encoded())
    parent = psutil.Process(service.process.pid)
    libraries = {os.path.basename(map.path) for map in parent.memory_maps()}
    assert not [name for name in libraries if re.search("torch|vips|numpy|multiarray", name)]
    worker = {os.path.basename(map.path) for map in service.worker.memory_maps()}
    assert [name for name in worker if "torch" in name] and [name for name in worker if "vips" in name]
    assert parent.memory_info().rss < 150e6
    assert service.worker.status() != psutil.STATUS_ZOMBIE


def test_a_worker_killed_while_it_computes(service):
    large = encoded(array=noise(600, 600))
    job = service.later(large)
    until(lambda: service.metric("maximir_waiting_seconds_count") > 0 and not job.value)
    until(lambda: service.metric("maximir_places_taken") == 1)
    time.sleep(0.3)
    service.worker.kill()
    answer = job.result()
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    assert service.restore(encoded()).status_code == 200


@pytest.mark.slow
def test_a_client_that_leaves_stops_the_computing(service):
    """In the middle of the network: the image takes long enough for that on any machine."""
    id = "leaving-client"
    with service.begin(encoded(array=noise(1500, 1400)), ("id", None, id.encode())):
        until(lambda: service.progress(id).status_code == 200)
        until(lambda: service.progress(id).json()["fraction"] > 0)
    until(lambda: service.progress(id).json()["state"] == "failed")
    assert service.restore(encoded()).status_code == 200
    text = service.client.get("/metrics").text
    assert 'maximir_jobs_total{outcome="cancelled",task="denoise"} 1.0' in text


@pytest.mark.slow
def test_the_view_of_a_large_photograph_can_be_chosen(service):
    image = encoded(array=noise(16, 1030))
    auto, exact = (service.restore(image, task="retouch", view=view) for view in ("", "exact"))
    assert auto.status_code == exact.status_code == 200
    assert "light from a view" in auto.headers["x-maximir-notes"]
    assert "x-maximir-notes" not in exact.headers
    assert auto.content != exact.content


# The command.


def command(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "maximir", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def test_the_command_serves_and_stops(tmp_path):
    process = command("--port", "0", "--max-memory", "3GB", MAXIMIR_TOKEN="secret-of-tests")
    try:
        url = re.search(r"http://\S+\d", process.stdout.readline())[0]
        assert httpx.get(url + "/v1/models", trust_env=False).status_code == 401
        headers = {"authorization": "Bearer secret-of-tests"}
        restore = Later(
            lambda: httpx.post(
                url + "/v1/restore",
                files={"image": encoded(array=noise(200, 200))},
                data={"task": "derain"},
                headers=headers,
                timeout=PATIENCE,
                trust_env=False,
            )
        )
        metrics = lambda: httpx.get(url + "/metrics", headers=headers, trust_env=False).text  # noqa: E731
        until(lambda: "maximir_places_taken 1.0" in metrics() or restore.value)
        process.send_signal(signal.SIGTERM)
        assert restore.result().status_code == 200
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        for left in [process, *children(process.pid)]:
            left.kill()
    assert process.returncode == 0
    assert "stopped" in errors and "Traceback" not in errors
    assert re.search(
        r"127\.0\.0\.1 POST /v1/restore 200 \d+\.\d{3} s, \d+ bytes in, \d+ out \(derain-box, upload\)",
        errors,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--host", "0.0.0.0"], 2, "choose a secret"),
        (
            ["--host", "no.such.host.invalid", "--token", "long-enough"],
            2,
            "is not an address of this machine",
        ),
        (["--host", "192.0.2.1", "--token", "long-enough"], 1, "cannot listen at 192.0.2.1"),
        (["--port", "{taken}"], 1, "in use"),
        (["--port", "70000"], 2, "65535"),
        (["--port", "0", "--max-bytes", "many"], 2, "is not an amount of memory"),
        (["--queue", "0"], 2, "queue"),
    ],
)
def test_commands_that_make_no_sense(arguments, status, words, service, monkeypatch, capsys):
    monkeypatch.delenv("MAXIMIR_TOKEN", raising=False)
    monkeypatch.setattr(server, "log_to_stderr", lambda level: None)  # it is for the whole process
    maximir("serve", *(argument.format(taken=service.port) for argument in arguments), expect=status)
    errors = capsys.readouterr().err
    assert words in errors
    ours = [line for line in errors.splitlines() if line.startswith("maximir: ")]
    assert len(ours) == (0 if words == "65535" or words == "queue" else 1)


@pytest.mark.slow
def test_a_device_that_is_not_there():
    process = command("--port", "0", "--device", "gpu")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "device 'gpu' cannot be used" in errors and "Traceback" not in errors
