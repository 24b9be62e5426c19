"""Weights from the Hub, with a client that is patched: the tests use no network."""

import sys
import types

import pytest
import torch

from maximir import MaximirError, Restorer, UsageError, load_model


@pytest.fixture
def client(monkeypatch, tiny_weights):
    """`huggingface_hub`, and what it was asked for."""
    client = types.ModuleType("huggingface_hub")
    client.asked = []

    def hf_hub_download(repo_id, filename, *, revision=None):
        client.asked.append((repo_id, filename, revision))
        if repo_id == "nobody/nothing":
            raise RuntimeError("404 Client Error.\n\nRepository Not Found")
        return str(tiny_weights)

    client.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return client


def test_an_address_is_fetched(client, tiny_model):
    model = load_model("hf://somebody/maxim/models/rain.safetensors")
    assert client.asked == [("somebody/maxim", "models/rain.safetensors", None)]
    for name, value in model.state_dict().items():
        assert torch.equal(value, tiny_model.state_dict()[name])


def test_a_revision_and_other_callers(client):
    Restorer("hf://somebody/maxim@v1.0/rain.npz")
    assert client.asked == [("somebody/maxim", "rain.npz", "v1.0")]
    load_model("denoise")
    assert len(client.asked) == 1, "a name asked the Hub"


def test_what_is_not_there(client):
    with pytest.raises(MaximirError) as caught:
        load_model("hf://nobody/nothing/x.safetensors")
    assert str(caught.value) == "hf://nobody/nothing/x.safetensors: cannot be fetched (404 Client Error.)"


@pytest.mark.parametrize(
    "address", ["hf://", "hf://a/b", "hf://a/x.npz", "hf://a/b/model.bin", "hf://a/b/x.pth"]
)
def test_other_addresses(client, address):
    with pytest.raises(UsageError, match="addresses on the Hub are hf://owner/repo/file"):
        load_model(address)
    assert not client.asked


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"hf:// needs huggingface_hub: pip install 'maximir\[hub\]'"):
        load_model("hf://somebody/maxim/rain.safetensors")
