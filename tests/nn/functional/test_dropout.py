import torch

from motor_geo.nn.functional.dropout import drop_entries, perturb_rows


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


def test_which_entries_does_not_depend_on_the_precision():
    def kept(dtype):
        torch.manual_seed(0)
        return drop_entries(torch.ones(200, 50, dtype=dtype), 0.3) != 0

    assert torch.equal(kept(torch.bfloat16), kept(torch.float32))
    assert not torch.equal(kept(torch.float64), kept(torch.float32))


def test_perturb_rows():
    torch.manual_seed(0)
    x = torch.randn(50, 16, dtype=torch.float64, requires_grad=True)
    noise = perturb_rows(x, 0.3) - x
    torch.testing.assert_close(noise.norm(dim=1), torch.full((50,), 0.3, dtype=torch.float64))
    assert (noise * x >= 0).all()
    perturb_rows(x, 0.3).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
