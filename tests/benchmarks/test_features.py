import torch

from benchmarks.features import axes_rows, dimension_rows, iteration_rows, load


def test_curves():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=generator) @ torch.randn(5, 12, generator=generator)
    x += 0.1 * torch.randn(300, 12, generator=generator)
    features = {'toy text': x.numpy()}
    rows = iteration_rows(features, (1, 4))
    assert [row['setting']['init'] for row in rows] == ['pca', 'pca', 'random', 'random']
    assert [row['setting']['num_iters'] for row in rows] == [1, 4, 1, 4]
    rows += dimension_rows(features, (4, 64, None), num_iters=1)
    assert [row['setting']['max_dim'] for row in rows[4:]] == [4, None]
    assert all(row['what'] == 'toy text' and row['seconds'] > 0 for row in rows)
    assert all(0 < row['error'] < 1 for row in rows) and rows[4]['error'] > rows[5]['error']


def test_axes():
    exact, iteration = axes_rows(width=64, num_rows=256, num_axes=8)
    assert exact['error'] <= iteration['error'] + 1e-9
    assert iteration['error'] < exact['error'] + 1e-2


def test_missing_data(tmp_path):
    assert load(str(tmp_path)) == {}
