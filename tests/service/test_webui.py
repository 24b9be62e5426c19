"""AUTOMATIC1111's API, as its clients ask it. The worker is a fake one, which gives wishes back reversed."""

import base64

import pytest

from helpers.serving import Later, Service, until, wish

TOKEN = "long-enough-secret"
MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("webui"), webui=True, max_bytes=MAX_BYTES, queue=4) as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    yield
    if "service" in request.fixturenames:
        until(request.getfixturevalue("service").idle)


def packed(data, prefix="data:image/png;base64,"):
    return prefix + base64.b64encode(data).decode()


def single(service, image, upscaler="denoise", **fields):
    """As webuiapi sends it, which always sends all fields."""
    others = {
        "resize_mode": 0,
        "show_extras_results": True,
        "gfpgan_visibility": 0,
        "codeformer_visibility": 0,
        "codeformer_weight": 0,
        "upscaling_resize": 1,
        "upscaling_resize_w": 512,
        "upscaling_resize_h": 512,
        "upscaling_crop": True,
        "upscaler_2": "None",
        "extras_upscaler_2_visibility": 0,
        "upscale_first": False,
    }
    body = {**others, "upscaler_1": upscaler, "image": image, **fields}
    return service.client.post("/sdapi/v1/extra-single-image", json=body)


def batch(service, *images, upscaler="denoise"):
    body = {"upscaler_1": upscaler, "imageList": [{"data": data, "name": name} for name, data in images]}
    return service.client.post("/sdapi/v1/extra-batch-images", json=body)


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "", "data:image/jpeg;base64,\n"])
def test_one_image(prefix, service):
    for size in (0, 1, 2, 150_000):  # base64 pads, and large ones travel in pieces
        data = wish(name="a", large=size)
        done = single(service, packed(data, prefix))
        assert done.status_code == 200, done.text
        assert done.headers["content-type"] == "application/json"
        assert int(done.headers["content-length"]) == len(done.content)
        assert base64.b64decode(done.json()["image"], validate=True) == data[::-1] + bytes(size)
        assert done.json()["html_info"] == r"<p>näive</p>"


def test_the_limit_is_that_of_the_image_not_of_its_base64(service):
    data = wish() + bytes(MAX_BYTES - len(wish()))
    done = single(service, packed(data))
    assert done.status_code == 200 and base64.b64decode(done.json()["image"]) == data[::-1]


def test_several_images(service):
    data = [wish(name=str(n)) for n in range(3)]
    done = batch(service, *((f"{n}.png", packed(each)) for n, each in enumerate(data)))
    assert done.status_code == 200, done.text
    assert [base64.b64decode(image) for image in done.json()["images"]] == [each[::-1] for each in data]


@pytest.mark.parametrize(
    ("upscaler", "logged"),
    [("auto", "auto"), ("denoise,enhance", "chain"), ("night", "chain"), ("derain-box", "derain")],
)
def test_tasks_chains_presets_and_models_are_upscalers(upscaler, logged, service):
    name = f'maximir_jobs_total{{outcome="done",task="{logged}"}}'
    count = lambda: float(dict(line.rsplit(" ", 1) for line in metrics(service)).get(name, 0))  # noqa: E731
    before = count()
    assert single(service, packed(wish()), upscaler).status_code == 200
    assert count() == before + 1


def metrics(service):
    return [line for line in service.client.get("/metrics").text.splitlines() if not line.startswith("#")]


def test_what_clients_ask_first(service):
    get = lambda name: service.client.get(f"/sdapi/v1/{name}").json()  # noqa: E731
    upscalers = get("upscalers")
    assert [each["name"] for each in upscalers][:3] == ["auto", "denoise", "deblur"]
    assert {"night", "denoise-box"} < {each["name"] for each in upscalers}
    assert {each["scale"] for each in upscalers} == {1}
    assert set(upscalers[0]) == {"name", "model_name", "model_path", "model_url", "scale"}
    assert get("scripts") == {"txt2img": [], "img2img": []}
    assert get("options") == get("options?value=x") == get("cmd-flags") == {}
    assert get("samplers") == get("sd-models") == get("face-restorers") == []
    assert get("progress")["progress"] == 0.0


def test_progress(service):
    asked = Later(lambda: single(service, packed(wish(hold=service.hold("go"), steps=2))))
    until(lambda: service.client.get("/sdapi/v1/progress").json()["progress"] == 0.5)
    service.release("go")
    assert asked.result().status_code == 200


@pytest.mark.parametrize(
    ("status", "words", "fields"),
    [
        (422, "The field upscaler_1 is missing: choose one of /sdapi/v1/upscalers.", {"upscaler_1": "None"}),
        (
            422,
            "Unknown upscaler_1 'R-ESRGAN 4x+': choose one of auto, denoise,",
            {"upscaler_1": "R-ESRGAN 4x+"},
        ),
        (422, "Unknown task 'sharpen': choose one of denoise,", {"upscaler_1": "denoise,sharpen"}),
        (400, "at most 6 links", {"upscaler_1": ",".join(7 * ["denoise"])}),
        (422, "The field upscaling_resize must be 1", {"upscaling_resize": 2}),
        (422, "The field resize_mode must be 0", {"resize_mode": 1}),
        (422, "The field gfpgan_visibility must be 0", {"gfpgan_visibility": 0.5}),
        (
            422,
            "The field upscaler_2 is not supported",
            {"upscaler_2": "derain", "extras_upscaler_2_visibility": 0.5},
        ),
        (422, "The image is missing", {"image": None}),
        (422, "The image is missing", {"image": ""}),
        (422, "The image is missing", {"image": 5}),
        (422, "addresses are not opened", {"image": "http://127.0.0.1/a.png"}),
        (422, "not valid base64", {"image": "/etc/passwd"}),
        (422, "not valid base64", {"image": "фото"}),
        (422, "The file is damaged", {"image": packed(wish(do="fail"))}),
        (413, "The image is too large", {"image": packed(bytes(MAX_BYTES + 1))}),
    ],
)
def test_errors_have_the_form_that_clients_expect(status, words, fields, service):
    answer = (
        single(service, **({"image": packed(wish())} | fields))
        if "upscaler_1" not in fields
        else single(service, packed(wish()), **fields)
    )
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error", "detail", "body", "errors"}
    assert words in told["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'"text"'])
def test_what_is_no_request(body, service):
    answer = service.client.post("/sdapi/v1/extra-single-image", content=body)
    assert answer.status_code in (400, 422) and answer.json()["detail"]


def test_a_batch_names_the_image_that_fails(service):
    good, bad = ("a.png", packed(wish())), ("b.png", packed(wish(do="fail")))
    failed = batch(service, good, bad, good)
    assert failed.status_code == 422 and failed.json()["detail"] == "Image b.png: The file is damaged."
    unpacked = batch(service, good, ("", "?"))
    assert unpacked.json()["detail"] == "Image 2: The image is not valid base64."
    assert batch(service).status_code == 422
    assert "5 images are too many" in batch(service, *5 * [good]).json()["detail"]
    half = packed(bytes(MAX_BYTES // 2 + 1))
    assert batch(service, ("a", half), ("b", half)).status_code == 413


def test_the_queue_is_the_same(service):
    """A batch takes one place; who finds none is told when to come back."""
    hold = packed(wish(hold=service.hold("all")))
    asked = [Later(lambda: batch(service, ("a", hold), ("b", hold))) for _ in range(4)]
    until(lambda: service.metric("maximir_places_taken") == 4)
    refused = single(service, packed(wish()))
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
    assert "too many images" in refused.json()["detail"].lower()
    service.release("all")
    assert [each.result().status_code for each in asked] == 4 * [200]


def test_a_client_that_goes_away_frees_its_place(service):
    import json

    body = json.dumps({"upscaler_1": "denoise", "image": packed(wish(steps=100, sleep=20))}).encode()
    with service.raw() as connection:
        connection.sendall(
            b"POST /sdapi/v1/extra-single-image HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        )
        until(lambda: service.client.get("/sdapi/v1/progress").json()["progress"] > 0)
    until(service.idle, 10)


def test_the_token_is_the_password(tmp_path):
    with Service(tmp_path, webui=True, token=TOKEN) as service:
        ask = lambda **how: service.client.get("/sdapi/v1/upscalers", **how)  # noqa: E731
        refused = ask()
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Basic"
        assert refused.json()["detail"].startswith("This server requires a token")
        assert ask(auth=("anyone", TOKEN)).status_code == 200
        assert ask(headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert ask(auth=("anyone", "wrong-token")).status_code == 401
        for value in ("Basic", "Basic ?", "Basic " + base64.b64encode(TOKEN.encode()).decode(), TOKEN):
            assert ask(headers={"Authorization": value}).status_code == 401, value
        assert service.client.get("/v1/models", auth=("anyone", TOKEN)).status_code == 401


def test_it_is_off_by_default(tmp_path):
    with Service(tmp_path, max_bytes=MAX_BYTES) as service:
        assert service.client.get("/sdapi/v1/upscalers").status_code == 404
        assert single(service, packed(wish())).status_code == 404
        assert single(service, packed(bytes(MAX_BYTES + 1))).status_code == 413
