"""Images cannot be built in these tests: what the files say is held against the package."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "hosts/docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def test_what_is_copied_is_what_the_build_needs():
    kept = re.findall(r"^!(.+)$", (FOLDER / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert all((FOLDER.parents[1] / name).exists() for name in kept)
    pyproject = (FOLDER.parents[1] / "pyproject.toml").read_text()
    for needed in ("README.md", "LICENSE", "build_kernels.py"):
        assert needed in kept and needed in pyproject


def test_it_serves_as_nobody_special():
    lines = DOCKERFILE.splitlines()
    assert lines.index("USER maximir") < lines.index('ENTRYPOINT ["maximir"]')
    assert 'CMD ["serve", "--host", "0.0.0.0"]' in lines
    assert "/healthz" in DOCKERFILE and "EXPOSE 8000" in lines


def test_compose_names_what_there_is():
    compose = (FOLDER / "compose.yaml").read_text()
    assert "dockerfile: hosts/docker/Dockerfile" in compose and "./Caddyfile:" in compose
    assert "reverse_proxy maximir:8000" in (FOLDER / "Caddyfile").read_text()
    assert set(re.findall(r"\$\{(\w+)", compose)) == {"MAXIMIR_HOST", "MAXIMIR_TOKEN"}


def test_only_torch_itself_comes_from_its_index():
    """That index has other versions of torch's dependencies than tested.txt: nothing could be resolved."""
    (torch,) = re.findall(r"pip install .*--index-url.*", DOCKERFILE)
    assert "--no-deps torch" in torch
    (ours,) = re.findall(r"pip install .*'\.\[serve\]'.*", DOCKERFILE)
    assert "--no-deps" not in ours and "--index-url" not in ours


def test_scratch_files_lie_on_a_disk():
    """/tmp is memory in compose, and the rest of the image is read-only."""
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["maximir"]
    (scratch,) = re.findall(r"--scratch=(\S+)", " ".join(service["command"]))
    assert any(volume.endswith(f":{scratch}") for volume in service["volumes"])
    assert scratch not in service["tmpfs"] and service["read_only"] is True
    assert re.search(rf"mkdir .*{scratch}\b.* chown maximir .*{scratch}\b", DOCKERFILE)
