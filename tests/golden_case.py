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

#: By (case, dtype, kind): the largest deviation that was seen, relative to the
#: largest entry of the array, for `benchmarks/backbones.py`.
DEVIATIONS = {}


class GoldenCase:
    def __init__(self, name, dtype=torch.float64):
        with open(osp.join(FOLDER, f'{name}.json')) as f:
            self.meta = json.load(f)
        with np.load(osp.join(FOLDER, f'{name}.npz'), allow_pickle=False) as f:
            self.arrays = {key: f[key] for key in f.files}
        self.name, self.dtype = name, dtype
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

    def data(self, weighting=None, users=False):
        r"""The graph; with the item graphs of `ItemKNN` if `weighting` is
        given, and with the user graph of `UserKNN` if `users` is true.
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
        if users:
            from motor_geo.data import UserKNN

            default = torch.get_default_dtype()
            torch.set_default_dtype(self.dtype)
            data = UserKNN(k=self.hyper['k_user'], cache=False)(data)
            torch.set_default_dtype(default)
        return data

    def assert_close(self, actual, key):
        r"""float64: 1e-6 absolute plus 1e-6 relative; float32: 1e-5 of the
        largest entry.
        """
        expected = self[key]
        if self.dtype == torch.float64:
            self._compare('outputs', actual, expected, atol=1e-6, rtol=1e-6)
        else:
            atol = 1e-5 * float(expected.abs().max())
            self._compare('outputs', actual, expected, atol=atol, rtol=0)

    def assert_loss(self, losses, weights, prefix='', idle=()):
        r"""Compares every loss term and the total. `weights` maps the terms of
        the model to `(names in the case, weight)`; `idle` are pairs of terms
        that change nothing, and are left out.
        """
        rtol = 1e-6 if self.dtype == torch.float64 else 1e-5
        assert set(losses) == set(weights)
        for term, (name, weight) in weights.items():
            names = [name] if isinstance(name, str) else name
            expected = sum(self[f'{prefix}{name}'] for name in names) * weight
            self._compare('losses', losses[term], expected, atol=1e-9, rtol=rtol)
        total = torch.stack(list(losses.values())).sum()
        expected = self[f'{prefix}loss_total']
        for name, weight in idle:
            expected = expected - weight * self[f'{prefix}{name}']
        self._compare('losses', total, expected, atol=1e-9, rtol=rtol)

    def assert_gradients(self, losses, parameters, prefix=''):
        r"""Compares gradients of the total loss. `parameters` maps names in the
        case to parameters; a tuple of names share the columns of one.
        """
        total = torch.stack(list(losses.values())).sum()
        tensors = list(parameters.values())
        gradients = torch.autograd.grad(total, tensors, allow_unused=True)
        for (name, tensor), gradient in zip(parameters.items(), gradients):
            gradient = torch.zeros_like(tensor) if gradient is None else gradient
            if isinstance(name, str):
                self.assert_gradient(gradient, name, prefix)
            else:
                for part, own in zip(gradient.chunk(len(name), dim=1), name):
                    self.assert_gradient(part, own, prefix)

    def assert_gradient(self, gradient, name, prefix=''):
        r"""Compares a gradient and its norm, whichever the case holds."""
        rtol, atol = (1e-5, 1e-8) if self.dtype == torch.float64 else (1e-4, 1e-7)
        whole, norm = f'{prefix}grad_{name}', f'{prefix}gradnorm_{name}'
        assert whole in self or norm in self, name
        if whole in self:
            limit = rtol * float(self[whole].abs().max())
            self._compare('gradients', gradient, self[whole], atol=limit, rtol=0)
        if norm in self:
            self._compare('gradients', gradient.norm(), self[norm], atol=atol, rtol=rtol)

    def _compare(self, kind, actual, expected, atol, rtol):
        actual = actual.detach()
        assert actual.dtype == expected.dtype and actual.shape == expected.shape
        scale = float(expected.abs().max())
        if scale > atol:  # Nothing but noise otherwise.
            key = self.name, str(self.dtype).removeprefix('torch.'), kind
            deviation = float((actual - expected).abs().max()) / scale
            DEVIATIONS[key] = max(DEVIATIONS.get(key, 0.0), deviation)
        torch.testing.assert_close(actual, expected, atol=atol, rtol=rtol)

    def load(self, parameters):
        r"""Copies arrays of the case into parameters."""
        with torch.no_grad():
            for name, parameter in parameters.items():
                parts = [self[part] for part in ([name] if isinstance(name, str) else name)]
                value = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
                assert parameter.shape == value.shape, name
                parameter.copy_(value)
        return parameters
