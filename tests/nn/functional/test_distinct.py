import torch

from motor_geo.nn.functional.distinct import distinct


def test_distinct(monkeypatch):
    index = torch.tensor([5, 2, 5, 9, 2, 5])
    nodes = distinct(index)
    assert torch.equal(nodes.node[nodes.inverse], index)
    assert nodes.node.tolist() == [2, 5, 9] and nodes.times.tolist() == [2, 3, 1]
    monkeypatch.setattr('motor_geo.nn.functional.distinct.SYNCHRONOUS', ())  # As on an accelerator.
    nodes = distinct(index)
    assert torch.equal(nodes.node, index) and nodes.times.tolist() == [1] * 6
    assert nodes.inverse.tolist() == list(range(6))
