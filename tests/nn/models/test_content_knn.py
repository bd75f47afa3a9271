import numpy as np
import pytest
import torch

from motor_geo.nn.models import ContentKNN
from motor_geo.typing import ITEM
from tests.golden_case import GoldenCase


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('entries', [1, 70, 2**25])
def test_content_knn_equals_the_published(dtype, entries):
    case = GoldenCase('itemknncbf', dtype)
    data, h = case.data(), case.hyper
    model = ContentKNN(data, k=h['k'], shrink=h['shrink'])
    tables = [data[ITEM][f'x_{m}'] for m in case.modalities]
    similarity = model.similarity(tables, entries)
    case.assert_close(torch.from_numpy(similarity.toarray()), 'item_sim')
    assert (np.diff(similarity.indptr) == h['k']).all()
    case.assert_close(model(data)(torch.arange(h['M'])), 'scores')


def test_content_knn_scores_items_that_were_not_there():
    case = GoldenCase('itemknncbf')
    data = case.data()
    model = ContentKNN(data, k=case.hyper['N'])
    before = model(data)(torch.arange(3))
    for m in case.modalities:
        x = data[ITEM][f'x_{m}']
        data[ITEM][f'x_{m}'] = torch.cat([x, x[4:5]])
    data[ITEM].num_nodes += 1
    model.k += 1
    after = model(data)(torch.arange(3))
    torch.testing.assert_close(after[:, :-1], before)
    torch.testing.assert_close(after[:, -1], before[:, 4])


def test_content_knn_rejects_bad_arguments():
    data = GoldenCase('itemknncbf').data()
    with pytest.raises(ValueError, match=r"'k' must be at least 1 \(got 0\)"):
        ContentKNN(data, k=0)
    with pytest.raises(ValueError, match=r"'shrink' must be at least 0 and finite \(got -1\)"):
        ContentKNN(data, shrink=-1)
    with pytest.raises(ValueError, match="'ContentKNN' needs item features of at least 1 modality"):
        ContentKNN(GoldenCase('bpr').data())
