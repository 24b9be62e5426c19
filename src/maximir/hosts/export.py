"""Export of a network to a file for other runtimes: ONNX, or torch.export's `.pt2`, checked against ours."""

from __future__ import annotations

import importlib.util
import io
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from maximir import __version__
from maximir.engine import network as engine
from maximir.errors import MaximirError, UsageError
from maximir.files import reason, write_atomically
from maximir.network.config import SIZE_MULTIPLE
from maximir.network.model import Maxim
from maximir.restoring.restorer import unaffected

KINDS = (".onnx", ".pt2")
OPSET = 20  # the oldest that has GELU
TOLERANCE = 1e-5  # for values in [0, 1]: other runtimes sum in another order
# N, H, W for the check of a file for any size.
SIZES = ((1, 64, 64), (2, 64, 128), (1, 192, 64), (1, 128, 256))
TRACED = (2, 2, 3)  # N, H/64, W/64: not 1, which torch.export takes as a constant
NAMES = ("image", "restored")
NEEDED = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Tensor], Tensor]  # [N, 3, H, W] in [0, 1] → the same, restored


def export(
    model: Maxim,
    output: Path,
    size: int | None = None,
    facts: Mapping[str, str] | None = None,
) -> float:
    """Write the network with its weights as `.onnx` or `.pt2`, after a check that results are the same.

    Input `image` [N, 3, H, W] in [0, 1], float32; output `restored`, the same shape, not clipped.

    Args:
        model: in evaluation mode; its parameters need no gradients afterwards.
        size: side of the only image shape of the file, [1, 3, size, size]; None: any N, and any H and W that
            are multiples of 64.
        facts: further entries of an ONNX file's metadata.

    Returns:
        The largest difference from this package's own output, at each of `SIZES` or at `size`.

    Raises:
        UsageError: another kind of file, no folder for it, no multiple of 64, or a package is missing.
        MaximirError: the file's results differ from the network's, or it cannot be written. Nothing is left.
    """
    check_request(output, size)
    kind = ".pt2" if output.suffix == ".pt2" else ".onnx"
    data, difference = proved(model, kind, size, facts or {})
    write(output, data)
    return difference


@unaffected(gradients=True)
def proved(
    model: Maxim, kind: str, size: int | None, facts: Mapping[str, str], names: tuple[str, str] = NAMES
) -> tuple[bytes, float]:
    """Return the content of the file and the largest difference of its results from ours.

    Raises:
        MaximirError: the difference is larger than `TOLERANCE`.
    """
    data = to_pt2(model, size) if kind == ".pt2" else to_onnx(model, size, facts, names)
    run = run_pt2(data) if kind == ".pt2" else run_onnx(data)
    difference = compare(model, run, SIZES if size is None else [(1, size, size)])
    if not difference <= TOLERANCE:
        raise MaximirError(
            f"nothing was written: its results differ from maximir's by {difference:.1e} "
            f"({TOLERANCE:.0e} is allowed)"
        )
    return data, difference


def write(output: Path, data: bytes) -> None:
    try:
        write_atomically(output, data)
    except OSError as error:
        raise MaximirError(f"{output}: cannot be written ({reason(error)})") from error


def check_request(output: Path, size: int | None) -> None:
    """Raise as `export` does, before any work."""
    if output.suffix not in KINDS:
        raise UsageError(f"{output}: the output must be named {' or '.join(KINDS)}")
    check_folder(output)
    check_size(size)
    if output.suffix == ".onnx":
        check_installed()


def check_folder(output: Path) -> None:
    """Refuse a missing folder before minutes of work."""
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}")


def check_size(size: int | None) -> None:
    if size is not None and (size < SIZE_MULTIPLE or size % SIZE_MULTIPLE):
        raise UsageError(f"--size must be a multiple of {SIZE_MULTIPLE}, not {size}")


def check_installed() -> None:
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"ONNX needs {package}: pip install 'maximir[export]'")


class Restoring(nn.Module):
    """The network with the restored image as its only output."""

    def __init__(self, model: Maxim) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:  # [N, 3, H, W] → the same
        restored: Tensor = self.model(image)[-1][-1]
        return restored


class RestoringCells(Restoring):
    """`Restoring` for an image in cells [N, 3, H/64, 64, W/64, 64].

    Each size in the network is then a symbol times a number. With H and W as symbols most sizes would be
    quotients, and torch.export takes longer with each block (docs/decisions/0009-hosts.md).
    """

    def forward(self, image: Tensor) -> Tensor:
        n, c, h, side, w, _ = image.shape
        return super().forward(image.reshape(n, c, h * side, w * side))


def capture(model: Maxim, size: int | None) -> ExportedProgram:
    """Capture the network as a graph of torch's operators."""
    n, h, w = TRACED
    side = SIZE_MULTIPLE
    model.requires_grad_(False)
    with torch.no_grad():
        if size is not None:
            return torch.export.export(Restoring(model), (blank(1, 3, size, size),), strict=False)
        symbols = {0: Dim("N", min=1), 2: Dim("h", min=1), 4: Dim("w", min=1)}
        cells = blank(n, 3, h, side, w, side)
        program = torch.export.export(
            RestoringCells(model), (cells,), dynamic_shapes=(symbols,), strict=False
        )
    return without_cells(program, blank(n, 3, h * side, w * side))


def blank(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float32)


def without_cells(program: ExportedProgram, example: Tensor) -> ExportedProgram:
    """Rewrite the program of `RestoringCells` for the image itself: [N, 3, 64 h, 64 w]."""
    graph = program.graph
    (image,) = (node for node in graph.nodes if node.name in program.graph_signature.user_inputs)
    (joined,) = (node for node in image.users if node.target is torch.ops.aten.reshape.default)
    joined.replace_all_uses_with(image)
    graph.erase_node(joined)
    image.meta["val"] = whole = joined.meta["val"]
    for cells, axis in ((2, 2), (4, 3)):
        for node in [node for node in image.users if node.args == (image, cells)]:
            with graph.inserting_before(node):
                side = graph.call_function(torch.ops.aten.sym_size.int, (image, axis))
                count = graph.call_function(operator.floordiv, (side, SIZE_MULTIPLE))
            side.meta["val"], count.meta["val"] = whole.shape[axis], node.meta["val"]
            node.replace_all_uses_with(count)
            graph.erase_node(node)
    graph.eliminate_dead_code()
    whole.fake_mode.shape_env.guards.clear()  # they ask for the cells' shape; what is left is the image's
    return ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=((example,), {}),
        constants=program.constants,
    )


def to_pt2(model: Maxim, size: int | None) -> bytes:
    file = io.BytesIO()
    torch.export.save(capture(model, size), file)
    return file.getvalue()


def to_onnx(
    model: Maxim, size: int | None, facts: Mapping[str, str], names: tuple[str, str] = NAMES
) -> bytes:
    import onnx_ir

    program = capture(model, size)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=[names[0]],
        output_names=[names[1]],
        verbose=False,
    )
    assert exported is not None
    if size is None:
        for value in (*exported.model.graph.inputs, *exported.model.graph.outputs):
            value.shape = onnx_ir.Shape(["N", 3, "64*h", "64*w"])
    proto = exported.model_proto
    proto.producer_name, proto.producer_version = "maximir", __version__
    for key, fact in facts.items():
        proto.metadata_props.add(key=key, value=fact)
    data: bytes = proto.SerializeToString()
    return data


def run_onnx(data: bytes) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: image.numpy()})[0])


def run_pt2(data: bytes) -> Run:
    module = torch.export.load(io.BytesIO(data)).module()
    return lambda image: module(image)


@torch.inference_mode()
def compare(model: Maxim, run: Run, sizes: Sequence[tuple[int, int, int]]) -> float:
    """Return the largest difference between our output and that of `run`; inf if a value is not finite."""
    worst = 0.0
    random = np.random.default_rng(0)
    for n, h, w in sizes:
        image = torch.from_numpy(random.random((n, 3, h, w), dtype=np.float32))
        expected, restored = engine.run(model, image)[-1][-1], run(image)
        if restored.shape != expected.shape:
            return float("inf")
        difference = (restored - expected).abs().max().item()
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst
