"""Replicas behind nginx, by hosts/nginx/replicas.conf. With the real worker: benchmarks/replicas.py."""

import shutil
import time

import httpx
import pytest

from helpers.nginx import Nginx
from helpers.serving import FRESH, PATIENCE, Later, Service, children, until, wish

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
CLIENTS, PICTURES = 12, 4


@pytest.mark.slow
def test_nobody_loses_a_picture_when_a_replica_is_killed_and_one_drained(tmp_path):
    with (
        Service(tmp_path / "a", queue=6) as killed,
        Service(tmp_path / "b", queue=6) as drained,
        Service(tmp_path / "c", queue=6) as left,
        Nginx(tmp_path, [killed.port, drained.port, left.port]) as nginx,
        httpx.Client(base_url=f"http://127.0.0.1:{nginx.port}", timeout=PATIENCE, limits=FRESH) as client,
    ):
        seen = []

        def one(number):
            for picture in range(PICTURES):
                upload = wish(name=f"{number}-{picture}", sleep=0.05)
                while True:  # as docs/service.md says
                    try:
                        files = {"image": ("a.png", upload)}
                        answer = client.post("/v1/restore", data={"task": "denoise"}, files=files)
                    except httpx.TransportError:
                        seen.append("broken")
                        time.sleep(1)
                        continue
                    seen.append(answer.status_code)
                    if answer.status_code == 200:
                        assert answer.content == upload[::-1]
                        break
                    assert answer.status_code in (429, 502, 503)
                    time.sleep(float(answer.headers.get("retry-after", "1")))

        clients = [Later(lambda number=number: one(number)) for number in range(CLIENTS)]
        until(lambda: seen.count(200) >= CLIENTS)
        family = [*children(killed.process.pid), killed.process]
        for process in family:
            process.kill()
        until(lambda: seen.count(200) >= 2 * CLIENTS)
        drained.signal()
        for each in clients:
            each.result()
        assert seen.count(200) == CLIENTS * PICTURES
        assert drained.process.wait(PATIENCE) == 0
        assert left.metric("maximir_jobs_total") > 0
