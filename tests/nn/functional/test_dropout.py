import torch

from motor_geo.nn.functional.dropout import drop_entries


def test_drop_entries():
    torch.manual_seed(0)
    x = torch.ones(200, 50, requires_grad=True)
    out = drop_entries(x, 0.2)
    assert set(out.detach().unique().tolist()) == {0.0, 1.25}
    assert abs(float((out == 0).float().mean()) - 0.2) < 0.02
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert torch.equal(drop_entries(x, 0.0), x)
    assert not torch.equal(drop_entries(x, 0.2), out)
