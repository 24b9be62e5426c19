"""Images cannot be built in these tests: what the files say is held against the package."""

import re
from pathlib import Path

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
