"""The service's HTTP: what is refused and how, and that nothing is left behind. The worker is a fake one."""

import contextlib
import gzip
import math
import re
import select
import socket
import time

import pytest

from helpers.serving import Later, Service, form, head, reply, until, wish
from maximir.errors import UsageError
from maximir.models import catalogue
from maximir.service import app, connection, limits
from maximir.service.refusal import Refusal
from maximir.service.settings import Settings

MAX_BYTES = 200_000
TOKEN = "long-enough-secret"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("http")
    with Service(folder, max_bytes=MAX_BYTES, queue=4, patience=0.5) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    yield
    if "service" in request.fixturenames:
        until(request.getfixturevalue("service").idle)


def test_an_image_goes_through(service):
    done = service.restore(wish(name="a"), "holiday.JPG", format="webp")
    assert done.status_code == 200
    assert done.content == wish(name="a")[::-1]
    assert done.headers["content-type"] == "image/webp"
    assert done.headers["content-disposition"] == 'attachment; filename="holiday-denoise.webp"'
    assert done.headers["x-maximir-notes"] == r"n\xe4ive"
    assert float(done.headers["x-maximir-seconds"]) >= 0
    assert done.headers["x-maximir-precision"] == "fp32"
    assert done.headers["cache-control"] == "no-store"
    assert service.restore(wish(), format="JPG").headers["content-type"] == "image/jpeg"


def test_every_reply_has_the_headers_of_safety(service):
    for path in ("/healthz", "/nothing", "/static/app.js"):
        answer = service.client.get(path)
        assert answer.headers["content-security-policy"].startswith(
            "default-src 'self'; img-src 'self' blob: data:"
        )
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"


def test_page(service):
    page = service.client.get("/")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    for address in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
        part = service.client.get("/" + address)
        assert part.status_code == 200 and part.headers["cache-control"] == "no-cache"
    assert "javascript" in service.client.get("/static/app.js").headers["content-type"]


def test_what_is_not_there(service):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/docs", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/static/%2e%2e/app.py", 404),
        ("GET", "/static/..%2fapp.py", 404),
        ("GET", "/v1/progress/unknown-id", 404),
        ("GET", "/v1/progress/" + 5000 * "x", 404),
        ("GET", "/v1/progress/%00%0a", 404),
        ("GET", "/v1/restore", 405),
        ("OPTIONS", "/v1/restore", 405),
        ("DELETE", "/healthz", 405),
        ("FROBNICATE", "/v1/models", 405),
    ):
        # httpx would tidy the path up
        with service.raw() as connection:
            connection.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            found, text = reply(connection)
        assert found == status, (method, path, text)
        assert re.search(rb'\{"error":\s*"[A-Z][^"]+\."\}$', text), text


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        "/metrics",
        "/openapi.json",
        "/v1/models",
        "/v1/restore",
        "/v1/progress/unknown-id",
        "/static/app.js",
        "/nothing",
    ],
)
def test_head_is_get_without_the_body(path, service):
    got, headed = service.client.get(path), service.client.head(path)
    assert headed.status_code == got.status_code and not headed.content
    differ = {"date", "content-length"} if path == "/metrics" else {"date"}
    for name in got.headers.keys() - differ:
        assert headed.headers[name] == got.headers[name], name
    with service.raw() as connection:  # nothing stands behind the head, either
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert reply(connection)[1].endswith(b"\r\n\r\n")
    if got.status_code == 200:
        text = service.client.get("/metrics").text
        assert re.search(r'requests_total{method="HEAD",route="\S+",status="200"}', text)


def test_models_and_documentation(service):
    models = service.client.get("/v1/models").json()
    assert [model["name"] for model in models] == [model.name for model in catalogue.MODELS]
    for model in models:
        (task,) = model["tasks"]
        assert model["name"] == (f"{task}-box" if model["default"] else f"{task}-fast")
        assert model["licence"] == "Apache-2.0" and model["origin"] == "box"
        assert 2e6 < model["parameters"] < 7e6 and model["stages"] == 1
        assert model["description"]
    documented = service.client.get("/openapi.json").json()
    restore = documented["paths"]["/v1/restore"]["post"]
    form = restore["requestBody"]["content"]["multipart/form-data"]["schema"]
    fields = form["properties"]
    blends = {"strength", "detail", "mask", "restored"}
    assert set(fields) == {"image", "task", "model", "preset", "format", "view", "id"} | blends
    # By schemathesis: what is said to be right is taken, what is taken is said to be right.
    assert [each["required"] for each in form["anyOf"]] == [["task"], ["model"], ["preset"]]
    assert form["anyOf"][1]["properties"]["model"]["minLength"] == 1 and re.search(
        fields["id"]["pattern"], ""
    )
    for kind in fields["format"]["enum"]:
        assert service.restore(wish(), format=kind).status_code == 200
    assert {"200", "400", "401", "403", "408", "413", "415", "422", "429", "503", "504"} <= set(
        restore["responses"]
    )


def test_presets(service):
    listed = {preset["name"]: preset for preset in service.client.get("/v1/presets").json()}
    assert listed["night"]["task"] == "denoise,enhance" and listed["night"]["model"] is None
    night = service.restore(wish(), "a.png", task="", preset="night")
    assert night.status_code == 200 and "a-denoise-enhance.png" in night.headers["content-disposition"]
    other = service.restore(wish(), "a.png", task="derain", preset="night", strength="1")
    assert "a-derain.png" in other.headers["content-disposition"]


def test_metrics(service):
    before = service.metric("maximir_jobs_total")
    assert service.restore(wish()).status_code == 200
    assert service.metric("maximir_jobs_total") == before + 1
    assert service.metric("maximir_worker_up") == 1
    assert service.metric("maximir_worker_memory_bytes") > 1e6
    service.client.request("BREW", "/coffee")
    text = service.client.get("/metrics").text
    assert 'method="other",route="other",status="404"' in text and "BREW" not in text


@pytest.mark.parametrize(
    ("status", "words", "parts"),
    [
        (400, "image is missing", [("task", None, b"denoise")]),
        (400, "task is missing: choose one of auto, denoise,", [("image", "a", b"x")]),
        (400, "or send model or preset", [("image", "a", b"x")]),
        (
            400,
            "must be the file itself",
            [("image", None, b"http://127.0.0.1/a.png"), ("task", None, b"denoise")],
        ),
        (400, "must be the file itself", [("image", None, b"/etc/passwd"), ("task", None, b"denoise")]),
        (400, "image was sent twice", [("image", "a", b"x"), ("image", "b", b"y")]),
        (400, "sent twice", [("image", "a", b"x"), ("task", None, b"denoise"), ("task", None, b"derain")]),
        (400, "unknown field 'path'", [("image", "a", b"x"), ("path", None, b"/etc/passwd")]),
        (400, "task must be text", [("task", "a.txt", b"denoise"), ("image", "b", b"x")]),
        (400, "sent twice", [("task", None, b"x")] * 20),
        (400, "sent twice", [("task", None, b"x")] * 3000),
        (400, "sent twice", [("image", "a", b"x")] * 3000),
        (400, "longer than 1,024 bytes", [("task", None, b"x" * 100_000)]),
        (
            422,
            "unknown task 'sharpen': choose one of denoise,",
            [("image", "a", b"x"), ("task", None, b"sharpen")],
        ),
        (422, "unknown task", [("image", "a", b"x"), ("task", None, b"../../etc/passwd\0")]),
        (
            422,
            "unknown preset 'day': choose one of scans, night, haze, chat",
            [("image", "a", b"x"), ("preset", None, b"day")],
        ),
        (422, "unknown model 'other': choose", [("image", "a", b"x"), ("model", None, b"other")]),
        (422, "unknown model", [("image", "a", b"x"), ("model", None, b"/etc/passwd")]),
        (
            422,
            "unknown view 'wide': choose one of auto, exact",
            [("image", "a", b"x"), ("task", None, b"denoise"), ("view", None, b"wide")],
        ),
        (
            422,
            "derain-box is for derain, not for denoise",
            [("image", "a", b"x"), ("task", None, b"denoise"), ("model", None, b"derain-box")],
        ),
        (
            422,
            "unknown format 'gif'",
            [("image", "a", b"x"), ("task", None, b"denoise"), ("format", None, b"gif")],
        ),
        (422, "an id has 8", [("image", "a", b"x"), ("task", None, b"denoise"), ("id", None, b"../../../a")]),
        (422, "an id has 8", [("image", "a", b"x"), ("task", None, b"denoise"), ("id", None, b"12345678\n")]),
        (413, "image is too large", [("image", "a", b"x" * (MAX_BYTES + 1)), ("task", None, b"denoise")]),
    ],
)
def test_forms_that_make_no_sense(status, words, parts, service):
    body, kind = form(*parts)
    answer = service.client.post("/v1/restore", content=body, headers={"content-type": kind.decode()})
    assert answer.status_code == status, answer.text
    assert words.lower() in answer.json()["error"].lower()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("application/x-www-form-urlencoded", b"task=denoise&image=http://127.0.0.1/"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=" + 1000 * "x", b""),
        ("multipart/form-data; boundary=edge", b""),
        ("multipart/form-data; boundary=edge", b"not multipart at all"),
        (
            "multipart/form-data; boundary=edge",
            b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n',
        ),
        (
            "multipart/form-data; boundary=edge",
            b"--edge\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge--\r\n",
        ),
        ("multipart/form-data; boundary=edge", b"--edge\r\n" + b"A: b\r\n" * 1000 + b"\r\nx\r\n--edge--\r\n"),
        (
            "multipart/form-data; boundary=edge",
            b"--edge\r\nA: " + b"b" * 150_000 + b"\r\n\r\nx\r\n--edge--\r\n",
        ),
        ("multipart/form-data; boundary=edge; charset=utf-99", b"--edge\r\nA: b\r\n\r\nx\r\n--edge--\r\n"),
        ("", b"x"),
        ("\xff\xfe", b"x"),
    ],
)
def test_bodies_that_are_no_form(kind, body, service):
    answer = service.client.post(
        "/v1/restore", content=body, headers={"content-type": kind.encode("latin-1")}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].endswith(".")


def test_a_compressed_form_is_not_read(service):
    body, kind = form(("image", "a", b"x"), ("task", None, b"denoise"))
    headers = {"content-type": kind.decode(), "content-encoding": "gzip"}
    answer = service.client.post("/v1/restore", content=gzip.compress(body), headers=headers)
    assert answer.status_code == 415 and "Content-Encoding" in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("../../etc/passwd", "passwd-denoise.png"),
        ("C:\\Users\\me\\cat.jpeg", "cat-denoise.png"),
        ("a\0b\x1b[31m.png", "ab[31m-denoise.png"),
        ("x" * 4000 + ".png", "x" * 80 + "-denoise.png"),
        ("…/😀 Füße.png", "😀 Füße-denoise.png"),
        ('quo"te;100%.tif', "quote100%-denoise.png"),
        (".hidden", "hidden-denoise.png"),
        ("..", "image-denoise.png"),
        ("", "image-denoise.png"),
        ("archive.tar.gz", "archive.tar-denoise.png"),
    ],
)
def test_names_of_results(name, result):
    assert app.result_name(name, "denoise", "png") == result


def test_names_of_results_of_models_without_a_task(gentle_weights, tmp_path, monkeypatch):
    monkeypatch.setenv("MAXIMIR_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.safetensors").write_bytes(gentle_weights.read_bytes())
    with Service(tmp_path) as service:
        for chosen, word in (
            ({"model": "mine"}, "restored"),
            ({"model": "mine,denoise-box"}, "denoise"),
            ({"task": "auto"}, "auto"),
        ):
            done = service.restore(wish(), **({"task": ""} | chosen))
            assert f'"photo-{word}.png"' in done.headers["content-disposition"]


def test_odd_names_do_no_harm(service):
    for name in (
        "../../etc/passwd",
        "x" * 3000 + ".png",
        "Füße.png",
        "a%0d%0aX-Evil: 1.png",
        "$(touch x).png",
    ):
        answer = service.restore(wish(), name)
        assert answer.status_code == 200
        assert "x-evil" not in answer.headers
    assert (
        "filename*=UTF-8''F%C3%BC%C3%9Fe-denoise.png"
        in service.restore(wish(), "Füße.png").headers["content-disposition"]
    )
    body, kind = form(("image", "new\x85line\x1b[31m.png", wish()), ("task", None, b"denoise"))
    assert (
        service.client.post("/v1/restore", content=body, headers={"content-type": kind.decode()}).status_code
        == 200
    )
    last = until(lambda: [line for line in service.stderr.read_text().split("\n") if "line" in line])[-1]
    assert r"new\x85line\x1b[31m.png" in last


# Who may ask.


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost", None, 200),
        ("localhost:{port}", None, 200),
        ("127.0.0.1:{port}", None, 200),
        ("[::1]:{port}", None, 200),
        ("LOCALHOST:99", None, 200),  # another port may be forwarded
        ("evil.example", None, 403),
        ("evil.example:{port}", None, 403),
        ("localhost.evil.example", None, 403),
        ("127.0.0.1.evil.example", None, 403),
        ("", None, 403),
        ("localhost:{port}", "http://localhost:{port}", 200),
        ("localhost:{port}", "http://127.0.0.1:{port}", 403),
        ("localhost:{port}", "http://localhost:1", 403),
        ("localhost:{port}", "https://evil.example", 403),
        ("localhost:{port}", "null", 403),
        ("localhost:{port}", "http://localhost:{port}.evil.example", 403),
        ("localhost:{port}", "http://[", 403),
    ],
)
def test_host_and_origin(host, origin, status, service):
    headers = {"host": host.format(port=service.port)}
    if origin is not None:
        headers["origin"] = origin.format(port=service.port)
    for answer in (
        service.client.get("/v1/models", headers=headers),
        service.restore(wish(), headers=headers),
    ):
        assert answer.status_code == status, answer.text


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """With a token, and the patience that services have."""
    folder = tmp_path_factory.mktemp("guarded")
    with Service(folder, token=TOKEN, names=["photos.example"]) as running:
        yield running


def test_a_token_is_needed_for_all_but_the_page(guarded):
    with contextlib.nullcontext(guarded) as service:
        for path in ("/", "/healthz", "/livez", "/static/app.js"):
            assert service.client.get(path).status_code == 200
        for path in (
            "/v1/models",
            "/v1/progress/12345678",
            "/metrics",
            "/openapi.json",
            "/nothing",
            "/healthz/",
        ):
            for given in (
                None,
                "Bearer",
                "Bearer wrong",
                "Basic " + TOKEN,
                TOKEN,
                f"Bearer {TOKEN}x",
                "Bearer \xff",
            ):
                headers = {} if given is None else {"authorization": given.encode("latin-1")}
                answer = service.client.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
        assert service.restore(wish()).status_code == 401
        right = {"authorization": f"Bearer {TOKEN}"}
        assert service.client.get("/v1/models", headers=right).status_code == 200
        assert service.restore(wish(), headers=right).status_code == 200
        # By the name that a proxy has for it, whose page is a page of ours.
        proxied = right | {"host": "photos.example", "origin": "https://photos.example"}
        assert service.client.get("/v1/models", headers=proxied).status_code == 200
        proxied["origin"] = "https://other.example"
        assert service.client.get("/v1/models", headers=proxied).status_code == 403
        assert TOKEN not in service.stderr.read_text()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"host": "0.0.0.0"}, "choose a secret"),
        ({"host": "::"}, "choose a secret"),
        ({"host": "192.168.0.1"}, "choose a secret"),
        ({"host": "some.name"}, "choose a secret"),
        ({"token": "short"}, "at least 8"),
        ({"token": "with blank in it"}, "no blanks"),
        ({"names": ("https://x",)}, "not a host name"),
        ({"max_bytes": 10}, "--max-bytes must be at least 1,000 bytes"),
        ({"timeout": math.nan}, "--timeout must be a number of seconds"),
        ({"drain": math.inf}, "--drain must be a number of seconds"),
    ],
)
def test_settings_that_make_no_sense(wrong, words):
    with pytest.raises(UsageError, match=words):
        Settings(**wrong).check()


def test_loopback_needs_no_token():
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        Settings(host=host).check()
    Settings(host="0.0.0.0", token=TOKEN).check()


def test_origins_of_our_page():
    assert limits.same_place("https://a.example", "a.example", ())
    assert limits.same_place("http://[::1]:8000", "[::1]:8000", ())
    assert not limits.same_place("https://a.example", "a.example:8000", ())
    assert not limits.same_place("ftp://a.example", "a.example", ())


# How much, and how slowly.


def test_a_large_body_is_refused_by_its_head(service):
    with service.raw() as connection:
        connection.sendall(
            head(1_000_000_000, b"multipart/form-data; boundary=edge", b"Expect: 100-continue")
        )
        status, text = reply(connection)
    assert status == 413 and b"accepts at most 200,000" in text
    assert b"100 Continue" not in text


def pour(connection, chunked):
    """Send a gigabyte, until that fails; how much could be sent."""
    piece, sent = b"x" * 65536, 0
    if chunked:
        piece = b"10000\r\n" + piece + b"\r\n"
    connection.settimeout(20)
    try:
        while sent < 1_000_000_000:
            sent += connection.send(piece)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_is_not_read(chunked, service):
    memory = service.metric("process_resident_memory_bytes")
    with service.raw() as connection:
        connection.sendall(head(None if chunked else 1_000_000_000))
        start, _ = form(("image", "a", b""))
        start = start[: start.index(b"\r\n\r\n") + 4]
        connection.sendall(b"%x\r\n%b\r\n" % (len(start), start) if chunked else start)
        assert pour(connection, chunked) < 100_000_000  # what sockets hold is in it
    assert service.metric("process_resident_memory_bytes") < memory + 20e6
    assert until(lambda: "POST /v1/restore 413" in "".join(service.stderr.read_text().splitlines()[-4:]))
    assert service.restore(wish()).status_code == 200


def test_a_client_that_sends_first_and_reads_later_gets_the_reply(guarded):
    """The connection is not closed under its feet: it would see a broken one, not the reply."""
    body, kind = form(("image", "a", bytes(20_000_000)), ("task", None, b"denoise"))
    with guarded.raw() as connection:
        connection.sendall(head(len(body), kind) + body)
        status, _ = reply(connection)
    assert status == 401


@pytest.mark.parametrize("length", [500, None, 150_000])
def test_a_slow_upload_is_given_up(length, service):
    start = time.monotonic()
    with service.raw() as connection:
        connection.sendall(head(length))
        connection.sendall(b"8\r\n--edge\r\n\r\n" if length is None else b"--edge\r\n")
        trickle = Later(lambda: slowly(connection, b"1\r\nx\r\n" if length is None else b"x"))
        status, text = reply(connection)
    trickle.result()
    assert status == 408 and b"too slow" in text
    assert time.monotonic() - start < 10


def slowly(connection, piece):
    try:
        for _ in range(100):
            connection.sendall(piece)
            time.sleep(0.1)
    except OSError:
        pass


@pytest.mark.parametrize("piece", [b"", b"G", b"X-Header: y\r\n"])
def test_a_head_that_does_not_end_is_given_up(piece, service):
    with service.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n" if len(piece) > 1 else b"")
        trickle = Later(lambda: slowly(connection, piece) if piece else None)
        start = time.monotonic()
        assert reply(connection)[0] == 0
        assert time.monotonic() - start < 8
    trickle.result()


def test_a_download_that_nobody_takes_is_given_up(service):
    with service.raw() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body, kind = form(("image", "a", wish(large=30_000_000)), ("task", None, b"denoise"))
        connection.sendall(head(len(body), kind) + body)
        until(lambda: service.metric("maximir_results_leaving") == 1)
        until(service.idle, 20)


def test_a_reply_whose_end_nobody_takes_does_not_stay(service):
    """It is in uvicorn's buffer, whole: nothing else would ever close this connection."""
    from maximir.service.connection import Connection

    class Stuck(Connection):
        def __init__(self):
            self.loop, self.waiting_since, self.cycle, self.dropped = self, 0.0, None, False

        def time(self):
            return 100.0

        def drop(self):
            self.dropped = True

    stuck = Stuck()
    stuck.check(101.0)
    assert not stuck.dropped
    stuck.check(99.0)
    assert stuck.dropped


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 2_000_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 2_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/restore HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        head(500, b"multipart/form-data; boundary=edge", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(None) + b"zz\r\n",
        head(None) + b"-1\r\n",
        head(None) + b"fffffffffffffffff\r\nx",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_hardly_http(raw, service):
    with service.raw() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(raw)
        status, text = reply(connection)
    assert status in (400, 403, 408, 413), text
    assert b'{"error": "' in text or b'{"error":"' in text
    assert service.health().status_code == 200


def test_false_content_lengths(service):
    body, kind = form(("image", "a", wish()), ("task", None, b"denoise"))
    with service.raw() as connection:  # more is announced, and then the client goes away
        connection.sendall(head(len(body) + 1000, kind) + body)
    with service.raw() as connection:  # or waits
        connection.sendall(head(len(body) + 1000, kind) + body)
        assert reply(connection)[0] == 408
    with service.raw() as connection:  # less is announced: what is too much is no request
        connection.sendall(head(len(body) - 20, kind) + body)
        status, _ = reply(connection)
    assert status == 400
    assert service.restore(wish()).status_code == 200


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """With more places than there may be requests."""
    with Service(tmp_path_factory.mktemp("wide"), queue=2 * connection.MOST_BUSY) as running:
        yield running


def ask(service, what=b"GET /healthz"):
    """On a connection of its own: the status."""
    with service.raw() as one:
        one.sendall(what + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return reply(one)[0]


def closed(connection, seconds):
    """Whether the service closes it in that time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("said", [b"", b"GET / HTT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_idle_connections_keep_nobody_out(said, wide):
    """Silent, in the middle of a head, or kept alive after a reply; more than there may be."""
    with contextlib.ExitStack() as stack:
        idle = []
        for number in range(connection.MOST_OPEN + 100):
            idle.append(stack.enter_context(wide.raw()))
            idle[-1].sendall(said)
            if number % 100 == 99:
                start = time.monotonic()
                assert ask(wide) == 200 and ask(wide, b"GET /v1/models") == 200
                assert wide.restore(wish()).status_code == 200
                assert time.monotonic() - start < 5
        assert closed(idle[0], 5) and not closed(idle[-1], 0.5)
    until(lambda: wide.health().status_code == 200)


def test_too_many_requests_at_once_are_told_but_not_who_watches(wide):
    with contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(wide.raw()) for _ in range(connection.MOST_BUSY + 9)]
        for each in uploads:
            each.sendall(head(1000))
        until(lambda: len(select.select(uploads, (), (), 0)[0]) == 9)  # have their refusals
        with wide.raw() as one:
            one.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            status, text = reply(one)
        assert status == 503 and b"retry-after: 5" in text
        assert ask(wide) == 200 and ask(wide, b"HEAD /metrics") == 200
    until(wide.idle)


def test_refusals_are_one_sentence():
    assert Refusal(400, "too bad\nfor you", 0.2).sentence == "Too bad\\nfor you."
    assert Refusal(400, "x", 0.2).headers == {"Retry-After": "1"}
    assert Refusal(400, "").sentence == "Something went wrong."
