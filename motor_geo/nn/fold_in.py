r"""Folding in: vectors of users outside the training graph, computed from their
interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch_geometric.data import HeteroData

from motor_geo.nn.models import Recommender, TokenALS
from motor_geo.typing import RATES, Embeddings, Scores, find_edges, num_nodes, with_edges

#: Number of users whose linear systems are solved at once.
BLOCK = 256
#: Candidate powers of the item degree that discounts an interaction, and candidate ridge
#: strengths.
POWERS, STRENGTHS = (0.0, 0.5), (0.03, 0.3, 3.0)

Function = Callable[..., Tensor]


def fold_in_mean(
    item: Tensor, count: Tensor, row: Tensor, index: Tensor, size: int, power: float
) -> Tensor:
    r"""Represents a user by the weighted sum of the vectors of their items,

    .. math::
        \mathbf{u} = \sum_{i \in \mathcal{N}(u)} d_i^{-p} \, \mathbf{v}_i .

    Args:
        item: Item vectors :math:`\mathbf{v}_i`.
        count: Number of training interactions :math:`d_i` of every item.
        row: User of every interaction, from zero.
        index: Item of every interaction.
        size: Number of users :math:`n`.
        power: The power :math:`p`.

    Shapes:
        - **input:** vectors :math:`(N, d)`, counts :math:`(N)`, interactions
          :math:`(E)`
        - **output:** user vectors :math:`(n, d)`
    """
    weight = count.clamp(min=1).to(item.dtype).pow(-power)[index].view(-1, 1)
    return item.new_zeros(size, item.size(1)).index_add_(0, row, weight * item[index])


def fold_in_ridge(
    item: Tensor, row: Tensor, index: Tensor, size: int, alpha: float, weight: Tensor
) -> Tensor:
    r"""Fits a user to all items by least squares, with fixed item vectors,

    .. math::
        \mathbf{u} = \Big( \sum_{i \in \mathcal{N}(u)} \mathbf{v}_i
        \mathbf{v}_i^{\top} + \alpha \sum_j \mathbf{v}_j \mathbf{v}_j^{\top} +
        \lambda_u \mathbf{I} \Big)^{-1} \sum_{i \in \mathcal{N}(u)}
        \mathbf{v}_i ,

    as the user half of an iteration in the `"Collaborative Filtering for
    Implicit Feedback Datasets" <https://doi.org/10.1109/ICDM.2008.22>`_ paper.

    Args:
        item: Vectors of the items to fit, and zeros for all others.
        row: User of every interaction, from zero.
        index: Item of every interaction.
        size: Number of users :math:`n`.
        alpha: Weight :math:`\alpha` of all items.
        weight: Weight :math:`\lambda_u` of every user, or a scalar for all
            users.

    Shapes:
        - **input:** vectors :math:`(N, d)`, interactions :math:`(E)`, weights
          :math:`(n)` or :math:`()`
        - **output:** user vectors :math:`(n, d)`
    """
    gram, eye = alpha * (item.t() @ item), torch.eye(item.size(1)).to(item)
    order = row.argsort(stable=True)
    row, index, out = row[order], index[order], []
    weight = weight.expand(size)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        part = (row >= start) & (row < end)
        x, place = item[index[part]], row[part] - start
        left = gram + weight[start:end].view(-1, 1, 1) * eye
        outer = (x.unsqueeze(2) * x.unsqueeze(1)).flatten(1)
        left = left.flatten(1).index_add(0, place, outer).view_as(left)
        right = x.new_zeros(end - start, x.size(1)).index_add_(0, place, x)
        out.append(torch.linalg.solve(left, right.unsqueeze(2)).squeeze(2))
    return torch.cat(out) if out else item[:0]


def fold_in_graph(
    model: Recommender, data: HeteroData, row: Tensor, index: Tensor, size: int
) -> Tensor:
    r"""Folds users in with the backbone itself: adds them to its graph as nodes
    with their edges, and to the user table as rows of zeros.

    Args:
        model: The backbone.
        data: The training graph.
        row: User of every interaction, from zero.
        index: Item of every interaction.
        size: Number of users :math:`n`.

    Shapes:
        - **input:** interactions :math:`(E)`
        - **output:** user vectors :math:`(n, d)`
    """
    num_users = num_nodes(data, model.user_type)
    edge_index = find_edges(data, model.edge_type)
    more = torch.stack([row + num_users, index]).to(edge_index)
    more = more[:, more[0].argsort(stable=True)]
    out = with_edges(data, torch.cat([edge_index, more], dim=1), model.edge_type)
    out[model.user_type].num_nodes = num_users + size
    table = model.user_embedding.detach()
    table = torch.cat([table, table.new_zeros(size, table.size(1))])
    emb: Embeddings = functional_call(model, {'user_embedding': table}, (out,))
    return emb.user[num_users:]


def has_one_user_table(model: Recommender, data: HeteroData) -> bool:
    r"""Whether the user table is the only state that a backbone keeps per user,
    and the graph has no edges between users.
    """
    size, similar = num_nodes(data, model.user_type), (model.user_type, model.user_type)
    own = [name for name, x in model.state_dict().items() if size in x.shape]
    among = any((source, target) == similar for source, _, target in data.edge_types)
    return own == ['user_embedding'] and not among


def fold_in_functions(
    model: nn.Module, data: HeteroData, emb: Embeddings
) -> Mapping[str, Function]:
    r"""All methods that can fold in the users of a model, by name. Each maps the
    users **[E]** and items **[E]** of interactions and the number of users
    :math:`n` to user vectors **[n, d]**.

    Args:
        model: The model.
        data: The training graph.
        emb: User and item vectors of the model.
    """
    if isinstance(model, Recommender) and model.user_encoder is not None:
        return {'graph': partial(fold_in_graph, model, data)}  # As in training.
    edge_index = find_edges(data, getattr(model, 'edge_type', RATES))
    item = emb.item.detach().float()
    count = edge_index[1].bincount(minlength=item.size(0))
    known = item * (count > 0).to(item).view(-1, 1)
    num_items, num_edges = int((count > 0).sum()), edge_index.size(1)
    num_users = int(edge_index[0].unique().numel())
    alpha = num_edges / max(num_users * num_items, 1)
    out: dict[str, Function] = {}
    for power in POWERS:
        name = f'mean of items (power {power:g})'
        out[name] = partial(fold_in_mean, item, count, power=power)
    trace = float(known.square().sum()) / max(item.size(1), 1)
    for strength in STRENGTHS:
        weight = item.new_tensor(strength * alpha * trace)
        name = f'least squares ({strength:g})'
        out[name] = partial(fold_in_ridge, known, alpha=alpha, weight=weight)
    if isinstance(model, TokenALS):
        scaled, reg = alpha * model.unobserved, model.weight(data)

        def own(row: Tensor, index: Tensor, size: int) -> Tensor:
            weight = reg * (row.bincount(minlength=size).to(item) + scaled * num_items)
            return fold_in_ridge(known, row, index, size, scaled, weight)

        out['least squares of training'] = own
    if isinstance(model, Recommender) and has_one_user_table(model, data):
        out['graph'] = partial(fold_in_graph, model, data)
    return out


def fold_in_scores(scores: Scores, row: Tensor, index: Tensor, size: int) -> Scores:
    r"""Scores of new users from their interactions, for a model without vectors.

    Args:
        scores: Output of the model.
        row: User of every interaction, from zero.
        index: Item of every interaction.
        size: Number of users.

    Shapes:
        - **input:** interactions :math:`(E)`

    Raises:
        ValueError: If the model can only score the users of its graph.
    """
    from scipy.sparse import csr_matrix

    if scores.history is None:
        raise ValueError('The model can only score users of its graph, so it cannot fold in users')
    pairs = row.cpu().numpy(), index.cpu().numpy()
    shape = size, scores.num_items
    used = csr_matrix((torch.ones(len(pairs[0])).numpy(), pairs), shape=shape)
    used.data[:] = 1
    history = scores.history
    return Scores(lambda user: history(used[user.cpu().numpy()]).to(user.device), *shape)
