r"""Reads the golden cases: arrays of published implementations, and what they
mean. Sizes, names and hyper-parameters come from the case itself.
"""

import json
import os.path as osp

import numpy as np
import torch
from torch_geometric.data import HeteroData

from motor_geo.typing import RATED_BY, RATES, Batch, similar

FOLDER = osp.join(osp.dirname(__file__), 'golden')


class GoldenCase:
    def __init__(self, name, dtype=torch.float64):
        with open(osp.join(FOLDER, f'{name}.json')) as f:
            self.meta = json.load(f)
        with np.load(osp.join(FOLDER, f'{name}.npz'), allow_pickle=False) as f:
            self.arrays = {key: f[key] for key in f.files}
        self.dtype = dtype
        self.hyper = self.meta.get('hyper_parameters', {})

    def __getitem__(self, key):
        value = torch.from_numpy(np.asarray(self.arrays[key]))
        return value.to(self.dtype) if value.is_floating_point() else value

    def __contains__(self, key):
        return key in self.arrays

    @property
    def modalities(self):
        names = (key[:-5] for key in self.arrays if key.endswith('_feat'))
        return sorted(name for name in names if name != 'dct')  # Derived ones.

    @property
    def batch(self):
        names = 'batch_users', 'batch_pos_items', 'batch_neg_items'
        return Batch(*(self[name] for name in names))

    def data(self, weighting=None):
        r"""The graph; with the item graphs of `ItemKNN` if `weighting` is
        given.
        """
        data = HeteroData()
        data['user'].num_nodes = self.hyper['M']
        data['item'].num_nodes = self.hyper['N']
        for modality in self.modalities:
            data['item'][f'x_{modality}'] = self[f'{modality}_feat']
        data[RATES].edge_index = self['train_edges']
        data[RATED_BY].edge_index = self['train_edges'].flip(0)
        if weighting is not None:
            from motor_geo.data import ItemKNN

            data = ItemKNN(k=self.hyper['k'], weighting=weighting, cache=False)(data)
            assert all(similar(m) in data.edge_types for m in self.modalities)
        return data

    def assert_close(self, actual, key):
        r"""float64: 1e-6 absolute plus 1e-6 relative; float32: 1e-5 of the
        largest entry.
        """
        expected = self[key]
        actual = actual.detach()
        assert actual.dtype == expected.dtype and actual.shape == expected.shape
        if self.dtype == torch.float64:
            torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
        else:
            atol = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(actual, expected, atol=atol, rtol=0)

    def assert_loss(self, losses, weights, prefix=''):
        r"""Compares every loss term and the total. `weights` maps the terms of
        the model to `(name in the case, weight)`.
        """
        rtol = 1e-6 if self.dtype == torch.float64 else 1e-5
        assert set(losses) == set(weights)
        for term, (name, weight) in weights.items():
            expected = self[f'{prefix}{name}'] * weight
            torch.testing.assert_close(losses[term].detach(), expected, atol=1e-9, rtol=rtol)
        total = torch.stack(list(losses.values())).sum()
        expected = self[f'{prefix}loss_total']
        torch.testing.assert_close(total.detach(), expected, atol=1e-9, rtol=rtol)

    def assert_gradients(self, losses, parameters, prefix=''):
        r"""Compares gradients of the total loss, whole where the case holds
        them and their norms otherwise. `parameters` maps names in the case to
        parameters.
        """
        total = torch.stack(list(losses.values())).sum()
        tensors = list(parameters.values())
        gradients = torch.autograd.grad(total, tensors, allow_unused=True)
        rtol = 1e-5 if self.dtype == torch.float64 else 1e-4
        for (name, tensor), gradient in zip(parameters.items(), gradients):
            gradient = torch.zeros_like(tensor) if gradient is None else gradient
            if f'{prefix}grad_{name}' in self:
                expected = self[f'{prefix}grad_{name}']
                atol = rtol * float(expected.abs().max())
                torch.testing.assert_close(gradient, expected, atol=atol, rtol=0)
            expected = self[f'{prefix}gradnorm_{name}']
            torch.testing.assert_close(gradient.norm(), expected, atol=1e-8, rtol=rtol)

    def load(self, parameters):
        r"""Copies arrays of the case into parameters."""
        with torch.no_grad():
            for name, parameter in parameters.items():
                assert parameter.shape == self[name].shape, name
                parameter.copy_(self[name])
        return parameters
