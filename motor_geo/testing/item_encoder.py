from __future__ import annotations

import copy
import io
import pickle
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from motor_geo.nn.item_encoder import encode_items
from motor_geo.testing.graphs import NUM_ITEMS, small_graph, with_names
from motor_geo.typing import ITEM

#: Numbers of rows below and above the codebook size.
ROWS = (0, 1, 5, 400)


def encode(encoder: nn.Module, data: HeteroData, index: Tensor | None = None) -> Tensor:
    r"""Item vectors without gradients."""
    with torch.no_grad():
        return encode_items(encoder, data[ITEM], index).clone()


def some(size: int) -> Tensor:
    r"""Random item indices, possibly repeated."""
    return torch.randint(NUM_ITEMS, (size,), generator=torch.Generator().manual_seed(0))


class ItemEncoderContract:
    r"""Tests that every item encoder must pass, for :obj:`pytest`:

    .. code-block:: python

        class TestMyEncoder(ItemEncoderContract):
            def build(self, data):
                return MyEncoder(data['item'].x_text.size(1), out_channels=24)
    """

    #: Whether the encoder has parameters for every item.
    per_item: ClassVar[bool] = False

    def build(self, data: HeteroData) -> nn.Module:
        r"""Builds the encoder for a graph of :mod:`motor_geo.testing.graphs`."""
        raise NotImplementedError

    @pytest.fixture
    def data(self) -> HeteroData:
        return small_graph()

    @pytest.fixture
    def encoder(self, data: HeteroData) -> nn.Module:
        torch.manual_seed(0)
        return self.build(data)

    @pytest.mark.parametrize('size', ROWS)
    def test_rows(self, data: HeteroData, encoder: nn.Module, size: int) -> None:
        r"""Encoding some items gives the same vectors as encoding all of them."""
        every, index = encode(encoder.eval(), data), some(size)
        assert every.shape == (NUM_ITEMS, encoder.out_channels)
        out = encode(encoder, data, index)
        assert out.shape == (size, encoder.out_channels)
        torch.testing.assert_close(out, every[index], atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize('size', ROWS)
    def test_gradients(self, data: HeteroData, encoder: nn.Module, size: int) -> None:
        r"""Encoding some items gives the same gradients as encoding all of them."""
        index = some(size)
        encoder.eval()
        weight = torch.randn_like(encode(encoder, data, index))
        grads = []
        for out in (
            encode_items(encoder, data[ITEM], index),
            encode_items(encoder, data[ITEM]).index_select(0, index),
        ):
            encoder.zero_grad()
            (out * weight).sum().backward()
            found = [(n, p, p.grad) for n, p in encoder.named_parameters()]
            grads.append({n: torch.zeros_like(p) if g is None else g for n, p, g in found})
        torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize('how', ['deepcopy', 'pickle', 'state_dict'])
    def test_copies(self, data: HeteroData, encoder: nn.Module, how: str) -> None:
        expected = encode(encoder.eval(), data)
        if how == 'deepcopy':
            other = copy.deepcopy(encoder)
        elif how == 'pickle':
            other = pickle.loads(pickle.dumps(encoder))
        else:
            file = io.BytesIO()
            torch.save(encoder.state_dict(), file)
            file.seek(0)
            other = self.build(data).eval()
            other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(encode(other, data), expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        assert not torch.equal(encode(other, data), expected)
        assert torch.equal(encode(encoder, data), expected)

    @pytest.mark.parametrize('size', ROWS)
    def test_double(self, data: HeteroData, encoder: nn.Module, size: int) -> None:
        expected = encode(encoder.eval(), data, some(size))
        out = encode(encoder.double(), data, some(size))
        assert out.dtype == torch.float64
        torch.testing.assert_close(out.float(), expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize('size', ROWS)
    def test_inference_mode(self, data: HeteroData, encoder: nn.Module, size: int) -> None:
        r"""Inference mode works for any number of rows and for graphs created under
        inference mode, and does not affect later training.
        """
        index = some(size)
        expected = encode(encoder.eval(), data, index)
        with torch.inference_mode():
            assert torch.equal(encode_items(encoder, data[ITEM], index), expected)
            assert torch.equal(encode_items(encoder, data.clone()[ITEM], index.clone()), expected)
        encoder.train()
        encode_items(encoder, data[ITEM], index).sum().backward()
        assert torch.equal(encode(encoder.eval(), data, index), expected)

    @pytest.mark.parametrize('assign', [False, True])
    def test_meta_device(self, data: HeteroData, encoder: nn.Module, assign: bool) -> None:
        encoder.eval()
        with torch.device('meta'):
            other = self.build(data).eval()
        if not assign:
            other.to_empty(device='cpu')
        other.load_state_dict(encoder.state_dict(), assign=assign)
        for index in (None, *(some(size) for size in ROWS)):
            assert torch.equal(encode(other, data, index), encode(encoder, data, index))

    def test_autocast(self, data: HeteroData, encoder: nn.Module) -> None:
        expected = encode(encoder.eval(), data)
        with torch.autocast('cpu', torch.bfloat16):
            out = encode(encoder, data)
        scale = float(expected.abs().max())
        torch.testing.assert_close(out.float(), expected, atol=0.03 * scale, rtol=0.03)

    def test_reset_parameters(self, data: HeteroData, encoder: nn.Module) -> None:
        r"""Resetting draws new vectors on the same scale."""
        before = encode(encoder.eval(), data)
        torch.manual_seed(1)
        reset = encoder.reset_parameters
        assert callable(reset)
        reset()
        after = encode(encoder, data)
        assert not torch.equal(before, after)
        assert 0.7 < after.std() / before.std() < 1.4

    def test_more_items(self, data: HeteroData, encoder: nn.Module) -> None:
        r"""Items added after training get vectors, unless the encoder has parameters
        for every item.
        """
        encoder.eval()
        if self.per_item:
            assert any(NUM_ITEMS in parameter.shape for parameter in encoder.parameters())
            return
        assert all(NUM_ITEMS not in parameter.shape for parameter in encoder.parameters())
        expected = encode(encoder, data)
        for key, value in list(data[ITEM].items()):
            if isinstance(value, Tensor):
                data[ITEM][key] = torch.cat([value, value[:7]])
        data[ITEM].num_nodes = NUM_ITEMS + 7
        out = encode(encoder, data)
        torch.testing.assert_close(out[:NUM_ITEMS], expected)
        torch.testing.assert_close(out[NUM_ITEMS:], expected[:7])

    def test_modality_names(self, data: HeteroData) -> None:
        named = with_names(data, {'image': 'clip.vit-b32', 'text': 'type'})
        torch.manual_seed(0)
        encoder = self.build(named).eval()
        assert encode(encoder, named).isfinite().all()
        assert torch.equal(encode(copy.deepcopy(encoder), named), encode(encoder, named))

    @pytest.mark.parametrize('dtype', [torch.uint8, torch.int16, torch.int32, torch.int64])
    def test_token_types(self, data: HeteroData, encoder: nn.Module, dtype: torch.dtype) -> None:
        r"""Tokens may have any integer type."""
        encoder.eval()
        expected = encode(encoder, data), encode(encoder, data, some(5))
        data[ITEM].token_id = data[ITEM].token_id.to(dtype)
        assert torch.equal(encode(encoder, data), expected[0])
        assert torch.equal(encode(encoder, data, some(5)), expected[1])
