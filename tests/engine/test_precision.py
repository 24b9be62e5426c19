"""Who gets bf16 without asking, and who is warned; of processors that the tests do not run on, too."""

import logging

import numpy as np
import pytest
import torch

from maximir import Restorer
from maximir.engine import measuring, precision
from maximir.engine.precision import Processor, bf16_is_emulated, bf16_is_faster, choose, parse
from maximir.ops import kernels

SPEED_OF_BF16 = measuring.speed_of_bf16  # other tests do not measure (conftest.py)
CPU = torch.device("cpu")
ZEN5 = Processor("AuthenticAMD", frozenset({"avx2", "avx512f", "avx512_bf16"}))
AMX = Processor("GenuineIntel", frozenset({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}))
ZEN3 = Processor("AuthenticAMD", frozenset({"avx2"}))
FASTER, NATIVE, EMULATED, UNKNOWN = (True, False), (False, False), (False, True), (False, False)


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", "fpu avx2 avx512f avx512_bf16", FASTER),
        ("GenuineIntel", "fpu avx2 avx512f avx512_bf16 amx_bf16", NATIVE),  # without our kernels for AMX
        ("GenuineIntel", "fpu avx2 avx512f avx512_bf16", NATIVE),  # no AMX: slower in bf16 than in fp32
        ("GenuineIntel", "fpu avx2 avx_ne_convert", NATIVE),
        ("AuthenticAMD", "fpu avx2", EMULATED),
        ("GenuineIntel", "fpu avx2 avx512f", EMULATED),
        ("", "", UNKNOWN),
    ],
)
def test_processors(vendor, flags, expected, monkeypatch):
    first = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: A: B\nflags\t\t: {flags}\nbugs\t\t:\n"
    monkeypatch.setattr(precision, "processor", lambda: parse(first + "\n" + first.replace(flags, "none")))
    assert (bf16_is_faster(CPU), bf16_is_emulated(CPU)) == expected


@pytest.mark.parametrize(
    ("processor", "library", "speed", "bf16"),
    [
        (ZEN5, "avx512bf16", 1.6, True),
        (ZEN5, "avx512bf16", 0.97, False),  # never the slower one
        (AMX, "amx", 2.2, True),
        (AMX, "amx", 0.9, False),
        (AMX, "avx512bf16", 1.1, False),  # not promised, and not clearly faster
        (AMX, "avx512bf16", 1.3, True),
        (ZEN3, "avx2", 1.3, False),  # emulated: not even measured
    ],
)
def test_the_measurement_decides(processor, library, speed, bf16, monkeypatch):
    monkeypatch.setattr(precision, "processor", lambda: processor)
    monkeypatch.setattr(kernels, "name", lambda: library)
    monkeypatch.setattr(measuring, "speed_of_bf16", lambda name: speed)
    assert choose(CPU).bf16 == bf16
    assert (str(speed) in choose(CPU).reason) == (processor is not ZEN3)


def test_a_measurement_is_kept(monkeypatch, tmp_path):
    speeds = iter([1.5, 0.5])
    monkeypatch.setenv("MAXIMIR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(measuring, "measure", lambda: next(speeds))
    monkeypatch.setattr(kernels, "name", lambda: "amx")
    speed = SPEED_OF_BF16.__wrapped__  # without the process's memory
    assert [speed("A"), speed("A"), speed("B")] == [1.5, 1.5, 0.5]
    (tmp_path / "home" / "bf16.json").write_text("{")  # damaged: measured again
    monkeypatch.setattr(measuring, "measure", lambda: 2.0)
    assert speed("A") == 2.0
    monkeypatch.setattr(kernels, "name", lambda: None)
    assert speed("A") is None


@pytest.mark.skipif(kernels.library() is None, reason="no native kernels for this processor")
def test_measuring_leaves_the_caller_alone():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert 0.001 < measuring.measure() < 1000
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


@pytest.mark.parametrize(("flags", "emulated"), [("fp asimd bf16", False), ("fp asimd", True)])
def test_arm(flags, emulated, monkeypatch):
    text = f"processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: {flags}\nCPU implementer\t: 0x41\n\n"
    monkeypatch.setattr(precision, "processor", lambda: parse(text))
    assert (bf16_is_faster(CPU), bf16_is_emulated(CPU)) == (False, emulated)


def test_where_the_system_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "missing")
    precision.processor.cache_clear()
    assert precision.processor() == Processor()
    precision.processor.cache_clear()


@pytest.mark.parametrize("native", [True, False])
def test_gpus(native, monkeypatch):
    monkeypatch.setattr("torch.cuda.device", lambda device: torch.inference_mode())
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: native)
    assert (bf16_is_faster(torch.device("cuda")), bf16_is_emulated(torch.device("cuda"))) == (
        native,
        not native,
    )


def test_auto_is_for_8_bits_only(tiny_weights, monkeypatch):
    monkeypatch.setattr(precision, "processor", lambda: ZEN5)
    auto, exact, half = (Restorer(tiny_weights, "cpu", name) for name in ("auto", "fp32", "bf16"))
    eight = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    sixteen, unit = eight.astype(np.uint16) * 257, eight / np.float32(255)
    for image, same, chosen in ((eight, half, "bf16"), (sixteen, exact, "fp32"), (unit, exact, "fp32")):
        assert np.array_equal(auto(image), same(image))
        assert auto.precision_for(image.dtype) == chosen
    # Together, each is what it is alone.
    results = auto.restore_arrays([eight, sixteen])
    for result, expected in zip(results, (half(eight), exact(sixteen)), strict=True):
        assert np.array_equal(result, expected)


def test_auto_is_plain_fp32_elsewhere(tiny_weights, monkeypatch):
    monkeypatch.setattr(precision, "processor", lambda: ZEN3)
    restorer = Restorer(tiny_weights, "cpu", "auto")
    assert restorer.precision == restorer.precision_for("uint8") == "fp32"  # so is what a journal remembers


@pytest.mark.parametrize(
    ("processor", "name", "warned"),
    [(ZEN3, "bf16", True), (ZEN3, "auto", False), (ZEN3, "fp32", False), (ZEN5, "bf16", False)],
)
def test_emulation_is_told_beforehand(processor, name, warned, tiny_weights, monkeypatch, caplog):
    monkeypatch.setattr(precision, "processor", lambda: processor)
    with caplog.at_level(logging.WARNING):
        Restorer(tiny_weights, "cpu", name)
    assert ("bf16 is emulated" in caplog.text) == warned
