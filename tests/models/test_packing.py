import pytest
import torch
from tiny_models import plain_model
from torch.nn.functional import linear

from hf_evol.models import packing
from hf_evol.models.packing import PackedLinear, pack

pytestmark = pytest.mark.skipif(
    not packing._can_be_packed(torch.nn.Linear(4, 4)), reason="oneDNN has no packed weights on this machine"
)


class Reader(torch.nn.Module):
    """A model that uses one layer's weights by itself."""

    def __init__(self, *, by_module: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.by_module = torch.nn.Linear(32, 48), torch.nn.Linear(48, 5), by_module

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs)
        return self.second(hidden) if self.by_module else linear(hidden, self.second.weight, self.second.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("block", [None, 7, 64])
def test_outputs_are_those_of_exact_arithmetic(dtype, bias, block):
    torch.manual_seed(0)
    layer = torch.nn.Linear(96, 50, bias=bias, dtype=dtype)
    inputs = torch.randn(3, 17, 96, dtype=dtype)
    exact = inputs.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0)
    with torch.inference_mode():
        packed = PackedLinear(layer, block)
        outputs = packed(inputs)
        assert [part.shape[-1] for part in packed.blocks(inputs)] == {None: [50], 7: [7] * 7 + [1], 64: [50]}[block]
    rounding = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(outputs.double(), exact, rtol=rounding, atol=rounding)
    assert (packed.weight is layer.weight) == (block is not None)


def test_all_layers_of_a_model_are_packed_and_its_logits_stay(tiny_model):
    model, tokens = plain_model(tiny_model), torch.arange(12)[None]
    with torch.inference_mode():
        before = model(input_ids=tokens).logits
        assert pack(model, lambda: model(input_ids=tokens).logits)
        torch.testing.assert_close(model(input_ids=tokens).logits, before)
    assert not any(type(layer) is torch.nn.Linear for layer in model.modules())
    assert model.get_output_embeddings().weight.shape == model.get_input_embeddings().weight.shape


def test_a_model_that_reads_weights_stays_as_it_is():
    inputs = torch.ones(1, 32)
    for by_module in (True, False):
        model = Reader(by_module=by_module).eval()
        with torch.inference_mode():
            before = model(inputs)
            assert pack(model, lambda model=model: model(inputs)) is by_module
            torch.testing.assert_close(model(inputs), before)
        assert (type(model.first) is torch.nn.Linear) is not by_module


def test_a_layer_that_is_another_when_packed_stays(monkeypatch):
    model = Reader(by_module=True).eval()
    monkeypatch.setattr(PackedLinear, "forward", lambda self, inputs: torch.zeros(len(inputs), self.out_features))
    assert not pack(model, lambda: model(torch.ones(1, 32)))
    assert type(model.first) is type(model.second) is torch.nn.Linear
