"""GPUs that torch reports and that fail when they are used."""

import pytest
import torch

from maximir import UsageError
from maximir.restoring.restorer import choose_device
from maximir.training import distributed


def fail(error):
    def raise_it(*args, **more):
        raise error

    return raise_it


@pytest.fixture(
    params=["too old", "full", "broken", "late"],
)
def unusable_gpu(request, monkeypatch):
    """torch reports a GPU, which fails when it is used; gives the reason."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 30, 8 << 30))
    match request.param:
        case "too old":
            error = RuntimeError("CUDA error: no kernel image is available\nCompile with TORCH_USE_CUDA_DSA")
            monkeypatch.setattr(torch, "ones", fail(error))
            return "no kernel image"
        case "full":
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 << 20, 8 << 30))
            return "only 9 MB of its memory are free"
        case "broken":
            error = torch.cuda.DeferredCudaCallError("CUDA call failed lazily")
            monkeypatch.setattr(torch.cuda, "mem_get_info", fail(error))
            return "failed lazily"
        case _:
            error = torch.OutOfMemoryError("CUDA out of memory")
            monkeypatch.setattr(torch.nn.functional, "conv2d", fail(error))
            monkeypatch.setattr(torch, "ones", lambda *size, **more: torch.zeros(size))
            return "out of memory"


def test_an_unusable_gpu_leaves_auto_the_processor(unusable_gpu, caplog):
    assert choose_device("auto") == torch.device("cpu")
    (message,) = caplog.messages
    assert unusable_gpu in message and "computing on the processor instead" in message
    assert "\n" not in message


def test_an_unusable_gpu_asked_for_gets_a_sentence(unusable_gpu):
    with pytest.raises(UsageError, match=unusable_gpu) as caught:
        choose_device("cuda")
    assert "\n" not in str(caught.value)


def test_processes_of_one_run_never_differ_in_device(unusable_gpu, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError, match="'cuda:1' cannot be used"), distributed.join("auto"):
        pass
