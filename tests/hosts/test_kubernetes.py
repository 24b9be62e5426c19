"""No cluster runs in these tests: what the manifests say is held against the service and each other."""

import asyncio
import re
import shlex
from pathlib import Path

import pytest
import typer

from maximir.cli import app as cli
from maximir.service.app import make_app
from maximir.service.limits import is_monitored, is_open
from maximir.service.metrics import Metrics
from maximir.service.queue import Queue
from maximir.service.server import LAST_BYTES
from maximir.service.settings import Settings

yaml = pytest.importorskip("yaml")
FOLDER = Path(__file__).parents[2] / "hosts/kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
MANIFESTS = {
    manifest["kind"]: manifest for file in FILES for manifest in yaml.safe_load_all(file.read_text())
}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
PROBES = {name: CONTAINER[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
OPTIONS = dict(zip(CONTAINER["args"][1::2], CONTAINER["args"][2::2], strict=True))


def test_every_manifest_is_one():
    assert set(MANIFESTS) == {
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "PodMonitor",
        "ScaledObject",
        "HorizontalPodAutoscaler",
    }
    for manifest in MANIFESTS.values():
        assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
        assert manifest["metadata"]["name"] == "maximir"


def service():
    async def make():
        metrics = Metrics()
        return make_app(Queue(Settings(), metrics), Settings(), metrics), metrics

    return asyncio.run(make())


@pytest.mark.parametrize("probe", PROBES)
def test_probes_ask_for_what_there_is_without_a_token(probe):
    asked = PROBES[probe]["httpGet"]
    app, _ = service()
    assert asked["path"] in app.openapi()["paths"]
    assert is_open(asked["path"]) and is_monitored(asked["path"])
    assert asked["port"] in [port["name"] for port in CONTAINER["ports"]]


def test_who_drains_is_not_killed_for_it():
    assert PROBES["readinessProbe"]["httpGet"]["path"] == "/healthz"
    assert PROBES["livenessProbe"]["httpGet"]["path"] == "/livez"
    pause = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    unready = PROBES["readinessProbe"]["periodSeconds"]
    assert pause >= unready
    assert POD["terminationGracePeriodSeconds"] > pause + float(OPTIONS["--drain"]) + LAST_BYTES


def test_the_command_has_these_options():
    serve = typer.main.get_command(cli.app).commands["serve"]
    known = {name for parameter in serve.params for name in parameter.opts}
    assert CONTAINER["args"][0] == "serve"
    assert set(OPTIONS) <= known
    assert all(not name.startswith("-") for name in OPTIONS.values())
    assert (
        Settings(host=OPTIONS["--host"], token="a-long-secret", queue=int(OPTIONS["--queue"])).check() is None
    )


def test_metrics_that_scale_exist():
    _, metrics = service()
    told = metrics.text().decode()
    query = MANIFESTS["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
    hpa = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]
    names = [*re.findall(r"maximir_\w+", query), hpa["metric"]["name"]]
    assert len(names) == 3
    for name in names:
        assert f"\n{name} " in told
    assert int(hpa["target"]["averageValue"]) < int(OPTIONS["--queue"])


def test_they_name_each_other():
    spec = MANIFESTS["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == MANIFESTS["Service"]["spec"]["selector"] == labels
    assert MANIFESTS["PodMonitor"]["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    secret = CONTAINER["env"][0]["valueFrom"]["secretKeyRef"]
    (endpoint,) = MANIFESTS["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == secret
    app, _ = service()
    assert endpoint["path"] in app.openapi()["paths"]
    dockerfile = (FOLDER.parent / "docker/Dockerfile").read_text()
    mounted = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert set(shlex.split(re.findall(r"^VOLUME (.+)$", dockerfile, re.MULTILINE)[0])) <= mounted
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {v["name"] for v in POD["volumes"]}
