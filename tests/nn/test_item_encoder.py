import pytest
import torch
from torch_geometric.data import HeteroData

from motor_geo.nn import FeatureProjection, IDEmbedding


def make_data():
    torch.manual_seed(0)
    data = HeteroData()
    data['item'].num_nodes = 6
    data['item'].x_text = torch.randn(6, 3)
    data['item'].x_image = 50 * torch.rand(6, 4)
    return data


def test_id_embedding():
    data = make_data()
    encoder = IDEmbedding(6, 2)
    index = torch.tensor([4, 4, 0])
    assert torch.equal(encoder.encode(data['item']), encoder.weight)
    assert torch.equal(encoder.encode(data['item'], index), encoder.weight[index])
    pairs = index.view(1, 3)
    assert torch.equal(encoder.encode(data['item'], pairs), encoder.weight[pairs])
    assert str(encoder) == 'IDEmbedding(6, 2)'
    data['item'].num_nodes = 7
    with pytest.raises(ValueError, match='knows 6 items but the graph has 7'):
        encoder.encode(data['item'])
    with pytest.raises(ValueError, match="must be 'uniform' or 'normal'"):
        IDEmbedding(6, 2, xavier='orthogonal')


@pytest.mark.parametrize('normalize', [True, False])
def test_feature_projection(normalize):
    data = make_data()
    encoder = FeatureProjection({'text': 3, 'image': 4}, 2, normalize=normalize)
    out = encoder.encode(data['item'])
    for i in range(6):
        expected = encoder.bias
        for modality in ('text', 'image'):
            x = data['item'][f'x_{modality}'][i]
            expected = expected + encoder.lin[modality].weight @ (x / x.norm() if normalize else x)
        torch.testing.assert_close(out[i], expected)
    index = torch.tensor([5, 1])
    torch.testing.assert_close(encoder.encode(data['item'], index), out[index])
    assert str(encoder) == "FeatureProjection({'image': 4, 'text': 3}, 2)"
    with pytest.raises(ValueError, match='needs at least one modality'):
        FeatureProjection({}, 2)
