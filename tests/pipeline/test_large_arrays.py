import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.nn import UsedItems
from motor_geo.nn.models import BPR, VBPR, LightGCN
from motor_geo.nn.objective import WholeDataLoss
from motor_geo.pipeline import large_arrays
from motor_geo.pipeline.large_arrays import tune_large_arrays
from motor_geo.typing import ITEM, USER, set_edges

ROWS = 2**17  # Rows of 64 floats that take 32 MB, as the items of half as many pairs.


def build(backbone, num_users=10):
    data = HeteroData()
    data[USER].num_nodes = num_users
    data[ITEM].x_text = torch.randn(3, 4)
    set_edges(data, torch.tensor([[0, 1, 2], [0, 1, 2]]))
    return backbone(data)


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setattr(large_arrays, 'keep_large_arrays', lambda: made.append(1) or True)
    monkeypatch.setattr(large_arrays, 'available_memory', lambda: 10**9)
    return made


@pytest.mark.parametrize(
    ('backbone', 'num_users', 'batch_size', 'expected'),
    [
        (BPR, 10, ROWS // 2 - 1, False),
        (BPR, 10, ROWS // 2, True),
        (BPR, ROWS, 2048, False),  # Steps make no array of the size of a table.
        (LightGCN, 10, 2048, False),
        (LightGCN, 10, ROWS // 2, True),
        (LightGCN, ROWS - 1, 2048, False),
        (LightGCN, ROWS, 2048, True),
        (LightGCN, 10**9 // 8 // 256, 2048, False),  # Gaps might not fit into memory.
        (VBPR, 10, ROWS, False),  # It reads features.
    ],
)
def test_large_arrays(calls, backbone, num_users, batch_size, expected):
    assert tune_large_arrays(build(backbone, num_users), batch_size) is expected
    assert len(calls) == expected


def test_a_model_that_needs_all_rows(calls, monkeypatch):
    monkeypatch.setattr(large_arrays, 'available_memory', lambda: 0)
    model = build(BPR)
    assert tune_large_arrays(model, ROWS)
    model.set_objective(WholeDataLoss())
    assert not tune_large_arrays(model, ROWS)
    model = build(BPR)
    model.set_user_encoder(UsedItems())
    assert not tune_large_arrays(model, ROWS)
    monkeypatch.setattr(large_arrays, 'available_memory', lambda: None)
    assert not tune_large_arrays(model, ROWS)
