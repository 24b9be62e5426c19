"""Files for other runtimes, each against our own output. One capture serves all tests: it takes its time.

Those for any size are long; in CI test_darktable alone takes the way to ONNX, with a file for one size.
"""

import json
import logging
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.command import maximir
from maximir import MaximirError, UsageError, load_model
from maximir.hosts import export as hosts
from maximir.restoring.padding import reflected
from maximir.restoring.restorer import restore_batch

DOC = Path(__file__).parents[2] / "docs/hosts/onnx.md"


@pytest.fixture(scope="module")
def captured(gentle_weights):
    """The network for any size, captured once and not for each file."""
    program = hosts.capture(load_model(gentle_weights), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "capture", lambda model, size: program)
        yield


@pytest.fixture(scope="module")
def onnx_file(captured, gentle_weights, tmp_path_factory):
    for package in hosts.NEEDED:
        pytest.importorskip(package)
    output = tmp_path_factory.mktemp("export") / "gentle.onnx"
    maximir("export", gentle_weights, "-o", output)
    return output


@pytest.mark.long
def test_onnx_for_any_size(onnx_file):
    import onnx

    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    assert not [weight.name for weight in model.graph.initializer if weight.external_data]
    (image,), (restored,) = model.graph.input, model.graph.output
    assert (image.name, restored.name) == ("image", "restored")
    for value in (image, restored):
        dims = value.type.tensor_type.shape.dim
        assert [dim.dim_param or dim.dim_value for dim in dims] == ["N", 3, "64*h", "64*w"]
    assert "GatherND" not in {node.op_type for node in model.graph.node}
    assert not model.graph.value_info  # or ONNX Runtime holds three times the memory
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["model"].endswith("gentle.safetensors")
    assert [path.name for path in onnx_file.parent.iterdir()] == ["gentle.onnx"]


@pytest.mark.long
def test_onnx_does_what_the_network_does(onnx_file, gentle_weights):
    run = hosts.run_onnx(onnx_file.read_bytes())
    assert hosts.compare(load_model(gentle_weights), run, [(1, 64, 64), (3, 192, 128)]) <= 1e-5


@pytest.mark.long
def test_half_the_size(onnx_file, captured, gentle_weights, tmp_path):
    output = tmp_path / "half.onnx"
    maximir("export", gentle_weights, "-o", output, "--half", "--tile", "256")
    assert output.stat().st_size < 0.7 * onnx_file.stat().st_size
    difference = hosts.compare(load_model(gentle_weights), hosts.run_onnx(output.read_bytes()), [(1, 64, 64)])
    assert 1e-6 < difference <= 1e-3
    facts = json.loads(output.with_suffix(".json").read_text())
    assert facts == facts | hosts.tiling("", 256)


def test_weights_are_converted_where_they_are_loaded():
    """A weight too large for half precision becomes infinite, which the check of results finds."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weight = np.random.default_rng(0).random((32, 32), np.float32)
    for scale in (1, 1e6):
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["image", "weight"], ["restored"])],
            "graph",
            [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 32])],
            [helper.make_tensor_value_info("restored", onnx.TensorProto.FLOAT, [1, 32])],
            [numpy_helper.from_array(weight * np.float32(scale), "weight")],
        )
        hosts.halve(graph)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", hosts.OPSET)], ir_version=10)
        assert sum(len(stored.raw_data) for stored in graph.initializer) == 2 * weight.size
        restored = hosts.run_onnx(model.SerializeToString())(torch.ones(1, 32)).numpy()
        assert np.isfinite(restored).all() == (scale == 1)
        if scale == 1:
            np.testing.assert_allclose(restored[0], weight.sum(axis=0), rtol=1e-3)


@pytest.mark.long
def test_a_file_of_other_weights_differs(onnx_file, gentle_weights):
    """The negative control: the check can fail."""
    other = load_model(gentle_weights)
    with torch.no_grad():
        next(other.stages[0].outputs.parameters()).add_(0.01)
    assert hosts.compare(other, hosts.run_onnx(onnx_file.read_bytes()), [(1, 64, 64)]) > 1e-4


@pytest.mark.parametrize("size", [(50, 70), (65, 64), (3, 130)])
def test_the_documented_python_pads_as_we_do(gentle_weights, size):
    """With our own network in place of a session; `test_onnx_does_what_the_network_does` compares the two."""
    model = load_model(gentle_weights)

    class Session:
        def run(self, outputs, inputs):
            return [model(torch.from_numpy(inputs["image"]))[-1][-1].detach().numpy()]

    there = {"session": Session()}
    opening = 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("x.onnx")\n'
    assert opening in documented("python")
    exec(documented("python").replace(opening, ""), there)
    image = np.random.default_rng(0).random((*size, 3), np.float32)
    expected = restore_batch(model, torch.from_numpy(image).permute(2, 0, 1)[None])
    assert np.abs(there["restore"](image) - expected[0].permute(1, 2, 0).clamp(0, 1).numpy()).max() <= 1e-5


ODD_SIZES = (1, 2, 3, 50, 64, 65, 130)


def documented(language):
    (code,) = re.findall(rf"```{language}\n(.*?)```", DOC.read_text(), re.DOTALL)
    return code


def expected_padding():
    return "".join(
        " ".join(map(str, reflected(size)[0])) + f" from {reflected(size)[1]}\n" for size in ODD_SIZES
    )


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_documented_javascript_pads_as_we_do():
    script = documented("js") + (
        f"for (const n of {list(ODD_SIZES)}) "
        "console.log([...Array(side(n)).keys()].map((k) => source(k, n)).join(' ') + ' from ' + before(n));"
    )
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert done.stdout == expected_padding()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_the_documented_cpp_pads_as_we_do(tmp_path):
    (tmp_path / "pad.cpp").write_text(
        "#include <cstdio>\n#include <initializer_list>\n"
        + documented("cpp")
        + "int main() { for (int n : {"
        + ", ".join(map(str, ODD_SIZES))
        + "}) { for (int k = 0; k < side(n); k++) "
        + 'printf("%d ", source(k, n)); printf("from %d\\n", before(n)); } }'
    )
    subprocess.run(["g++", "-o", tmp_path / "pad", tmp_path / "pad.cpp"], check=True)
    done = subprocess.run([tmp_path / "pad"], capture_output=True, text=True, check=True)
    assert done.stdout == expected_padding()


@pytest.mark.slow
def test_pt2_for_one_size(gentle_weights, tmp_path, capsys):
    output = tmp_path / "gentle.pt2"
    maximir("export", gentle_weights, "-o", output, "--size", "64")
    assert re.search(r"differs from maximir by \d\.\de-\d\d at most", capsys.readouterr().out)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = load_model(gentle_weights)(image)[-1][-1]
        torch.testing.assert_close(torch.export.load(output).module()(image), expected, rtol=0, atol=1e-5)


@pytest.mark.long
def test_pt2_for_any_size(captured, gentle_weights, tmp_path, capsys, monkeypatch):
    """The module that was read from these bytes to prove them: reading takes as long as all the rest."""
    read, load = [], torch.export.load

    def loading(file):
        read.append((file.getvalue(), load(file)))
        return read[0][1]

    monkeypatch.setattr(torch.export, "load", loading)
    output = tmp_path / "gentle.pt2"
    maximir("export", gentle_weights, "-o", output)
    assert re.search(r"differs from maximir by \d\.\de-\d\d at most", capsys.readouterr().out)
    ((data, program),) = read
    assert output.read_bytes() == data
    module = program.module()
    image = torch.rand(1, 3, 128, 64)
    with torch.no_grad():
        expected = load_model(gentle_weights)(image)[-1][-1]
    torch.testing.assert_close(module(image), expected, rtol=0, atol=1e-5)
    with pytest.raises((AssertionError, RuntimeError)):
        module(torch.rand(1, 3, 100, 64))


@pytest.mark.long
def test_the_process_stays_the_callers(gentle_weights):
    """With float64 and a device set for the process, the file gives the same bits; nothing is set."""
    model, image = load_model(gentle_weights), torch.rand(1, 3, 64, 64)
    usual = hosts.run_pt2(hosts.proved(model, ".pt2", 64, {})[0])(image)  # imports set filters of their own
    before = list(warnings.filters), levels()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        data, _ = hosts.proved(model, ".pt2", 64, {})
        kept = torch.get_default_dtype(), torch.get_default_device().type
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert kept == (torch.float64, "meta") and torch.equal(hosts.run_pt2(data)(image), usual)
    assert (list(warnings.filters), levels()) == before


def levels():
    return {name: log.level for name, log in logging.root.manager.loggerDict.items() if hasattr(log, "level")}


def test_options_arrive(gentle_weights, tmp_path, monkeypatch):
    """What a file for one size does: test_darktable."""
    given = []

    def export(model, output, size, facts, *, tile, half):
        output.write_bytes(b"")
        given.append((model.config.stages, size, tile, half))
        return 0.0

    monkeypatch.setattr(hosts, "export", export)
    maximir("export", gentle_weights, "-o", tmp_path / "x.pt2", "--size", "128", "--stages", "1")
    maximir("export", gentle_weights, "-o", tmp_path / "x.onnx", "--tile", "256", "--half")
    assert given == [(1, 128, None, False), (load_model(gentle_weights).config.stages, None, 256, True)]


def test_what_differs_is_not_written(gentle_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "to_pt2", lambda model, size: b"")
    monkeypatch.setattr(hosts, "run_pt2", lambda data: lambda image: image + 1e-3)
    with pytest.raises(MaximirError, match="nothing was written: its results differ"):
        hosts.export(load_model(gentle_weights), tmp_path / "x.pt2", 64)
    monkeypatch.setattr(hosts, "run_pt2", lambda data: lambda image: image * float("nan"))
    with pytest.raises(MaximirError, match="differ from maximir's by inf"):
        hosts.export(load_model(gentle_weights), tmp_path / "x.pt2", 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["denoise", "-o", "x.onnx", "--size", "100"], "--size must be a multiple of 64, not 100"),
        (["denoise", "-o", "x.onnx", "--size", "0"], "--size must be a multiple of 64, not 0"),
        (["denoise", "-o", "x.tflite"], "x.tflite: the output must be named .onnx or .pt2"),
        (["denoise"], "give the file to write: -o model.onnx"),
        (["-o", "x.onnx"], "give one model: a name, a task, or a file of weights"),
        (["denoise", "-o", "x.onnx", "--tile", "64"], "--tile must be a multiple of 64, 128 or more, not 64"),
        (["denoize", "-o", "x.pt2"], "unknown model 'denoize': did you mean denoise"),
        (["denoise", "-o", "x.pt2", "--stages", "9"], "stages must be 1 for"),
    ],
)
def test_requests_that_make_no_sense(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    maximir("export", *arguments, expect=2)
    assert capsys.readouterr().err.startswith(f"maximir: {sentence}")
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(tmp_path, capsys):
    (tmp_path / "x.onnx").write_bytes(b"mine")
    maximir("export", "denoise", "-o", tmp_path / "x.onnx", expect=2)
    assert "exists; use --overwrite" in capsys.readouterr().err
    assert (tmp_path / "x.onnx").read_bytes() == b"mine"
    (tmp_path / "y.json").write_bytes(b"mine")
    maximir("export", "denoise", "-o", tmp_path / "y.onnx", "--tile", "512", expect=2)
    assert "y.json exists; use --overwrite" in capsys.readouterr().err


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "NEEDED", ("package_that_is_not_there",))
    with pytest.raises(
        UsageError, match=r"ONNX needs package_that_is_not_there: pip install 'maximir\[export\]'"
    ):
        hosts.check_request(tmp_path / "x.onnx", None)


def test_a_folder_that_is_missing_is_noticed_before_any_work(tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        hosts.check_request(tmp_path / "nowhere" / "x.pt2", None)


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "x.pt2").mkdir()
    with pytest.raises(MaximirError, match="cannot be written"):
        hosts.write(tmp_path / "x.pt2", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt2"]
