r"""Converts item features to item tokens."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.data.data import BaseData
from torch_geometric.transforms import BaseTransform
from torch_geometric.typing import EdgeType
from tqdm import tqdm

from motor_geo.data.transforms.features import (
    MAX_ROWS,
    Matrix,
    arguments,
    as_array,
    as_int,
    check_matrix,
    device_of,
    edge_type_of,
    item_features,
    item_mask,
    modality_names,
    needed_modalities,
)
from motor_geo.data.transforms.fit_quantizer import (
    INITS,
    LEARNED,
    METHODS,
    check_kwargs,
    check_sizes,
    fit_own,
    fit_quantizer,
    import_faiss,
    quantizer_class,
)
from motor_geo.data.transforms.interaction_svd import InteractionSVD
from motor_geo.data.transforms.quantizer import Quantizer
from motor_geo.data.transforms.token_report import format_report, token_report
from motor_geo.typing import (
    ITEM,
    RATES,
    edge_blocks,
    edge_types,
    feature_key,
    find_edges,
    listing,
    node_store,
    num_nodes,
)
from motor_geo.utils.arrays import check_single
from motor_geo.utils.cache import cached, fingerprint
from motor_geo.utils.hub import HubMixin, building
from motor_geo.utils.saved import load, save

FORMAT = 'motor_geo.OPQTokenizer.1'
CACHE = 'motor_geo.OPQTokenizer.3'  # To be changed if the same features give different results.
CACHE_LEARNED = 1
USUAL = (
    *(('node_type', ITEM), ('edge_type', RATES)),
    *(('balance', None), ('num_near', 1), ('method_kwargs', None), ('max_rows', MAX_ROWS)),
)
BEHAVIOR = 32  # Width of the behavior vectors that a method reads.

#: Stands for the modalities that a mapping does not name.
OTHERS = '*'


class OPQTokenizer(BaseTransform, HubMixin):
    r"""Converts item features to discrete tokens with optimized product
    quantization from the `"Optimized Product Quantization for Approximate
    Nearest Neighbor Search" <https://ieeexplore.ieee.org/document/6619223>`_
    paper.

    For each modality, it fits an orthonormal rotation :math:`\mathbf{A}` and
    :math:`D` codebooks of :math:`K` centroids each that minimize the squared
    error of

    .. math::
        t_{i,x} = \underset{c \in \{1, \ldots, K\}}{\arg\min} \left\|
        (\mathbf{A} \mathbf{f}_i)_x - \mathbf{c}_{x,c} \right\|^2

    where :math:`(\mathbf{A} \mathbf{f}_i)_x` is the :math:`x`-th of
    :math:`D` blocks of the rotated feature vector. If :math:`D` does not divide
    the width, zeros pad the vector before the rotation.

    The transform adds :obj:`data['item'].token_id` with the concatenated tokens
    of all modalities, sorted by modality name. Features in
    :obj:`data['item'].x` are the modality :obj:`"x"`. The first call fits the
    codebooks (duplicate rows count as often as they occur). All later calls use
    the same codebooks, so identical features get identical tokens. Fitting
    requires :obj:`faiss`, encoding does not.

    Args:
        num_tokens: Number of tokens :math:`D` per modality, or a mapping from
            modalities to numbers, in which :obj:`"*"` stands for all others.
        codebook_size: Number of centroids :math:`K` per token, a power of two
            from 2 to 65536.
        method: :obj:`"opq"`, :obj:`"pq"` (no rotation), :obj:`"rq"`
            (each token quantizes the residual of the tokens before it),
            :obj:`"rqvae"` or :obj:`"letter"` (the same on the latent vectors of
            an autoencoder, see
            :class:`~motor_geo.data.transforms.rq_vae.RQVAEQuantizer` and
            :class:`~motor_geo.data.transforms.letter.LETTERQuantizer`), or
            the import path of a subclass of
            :class:`~motor_geo.data.transforms.quantizer.Quantizer`. Its class
            method :obj:`fit(x, num_tokens, codebook_size, **settings)` gets a
            matrix **[n, d_m]** and the settings below by name. Its results are
            not cached.
        modalities: The modalities to tokenize. (default: all of the graph)
        center: If set to :obj:`True`, subtracts the mean of the fitted rows.
        normalize: If set to :obj:`True`, scales rows to unit length (after
            centering). Zero rows stay zero. Otherwise, items with a large norm
            dominate the squared error.
        whiten: If set to :obj:`True`, scales principal axes to unit variance,
            so that directions with a small variance count as much as the
            others. Leaves out axes whose variance is below a millionth of the
            largest one.
        num_iters: Number of alternations between rotation and codebooks
            (:obj:`"opq"` only).
        init: Initial rotation: :obj:`"pca"` (principal axes, distributed over
            blocks with equal products of variances) or :obj:`"random"` (the
            default of :obj:`faiss`, which needs more iterations to reach the
            same error).
        max_dim: Reduces wider features to this many principal axes first.
            :meth:`report` includes the variance that they keep. :obj:`None`
            never reduces features.
        seed: Seed of k-means.
        fit_on: :obj:`"train"` fits to items with at least one training
            interaction (or to all items if the graph has no interactions under
            any name), and :obj:`"all"` fits to all items. Neither fits to items
            that lack the modality, for which
            :obj:`data['item'].mask_<modality>` is :obj:`False`. Such a row may
            contain NaN, and then gets the tokens of the mean of the fitted
            rows.
        cache: If set to :obj:`True`, caches codebooks and tokens on disk, keyed
            by the features and all settings that affect them.
        verbose: If set to :obj:`False`, shows no progress bar.
        node_type: Node type of items.
        edge_type: Edge type of interactions. Items must be at one of its ends.
        balance: If given, the last iterations of k-means assign about the same
            number of rows to each centroid, and all rows, including new ones,
            are encoded in the same way. The assignment is an entropic optimal
            transport, whose entropy has this share of the mean squared distance
            as its weight. Values from 0.003 to 0.05 work, and small ones give
            the most even assignment.
        num_near: If larger than one, the transform also adds the
            :obj:`num_near` nearest codes of every token
            (:obj:`data['item'].token_near`) and their distances
            (:obj:`data['item'].token_distance`) for
            :class:`~motor_geo.nn.SoftTokenEncoder`.
        method_kwargs: Further settings of the method, by name.
        max_rows: Fits to a random sample (of the same :obj:`seed`) of so many
            rows if there are more. :obj:`None` always fits to all rows.

    Shapes:
        - **output:** :obj:`token_id` :math:`(N, T)`; with :obj:`num_near`,
          :obj:`token_near` and :obj:`token_distance`
          :math:`(N, T, \textrm{num\_near})`

    Raises:
        ValueError: If a setting is out of range.
    """

    #: Differ from the file names of an encoder, so that both can share a folder.
    hub_files = ('tokenizer_config.json', 'tokenizer.safetensors')

    def __init__(
        self,
        num_tokens: int | Mapping[str, int] = 4,
        codebook_size: int = 256,
        method: str = 'opq',
        modalities: Sequence[str] | None = None,
        center: bool = False,
        normalize: bool = False,
        whiten: bool = False,
        num_iters: int = 10,
        init: str = 'pca',
        max_dim: int | None = 512,
        seed: int = 0,
        fit_on: str = 'train',
        cache: bool = True,
        verbose: bool = True,
        node_type: str = ITEM,
        edge_type: EdgeType = RATES,
        balance: float | None = None,
        num_near: int = 1,
        method_kwargs: dict[str, Any] | None = None,
        max_rows: int | None = MAX_ROWS,
    ) -> None:
        if isinstance(num_tokens, Mapping):
            num_tokens = {str(m): as_int('num_tokens', n) for m, n in num_tokens.items()}
        else:
            num_tokens = as_int('num_tokens', num_tokens)
        codebook_size = as_int('codebook_size', codebook_size)
        num_iters, seed = as_int('num_iters', num_iters), as_int('seed', seed)
        max_dim = None if max_dim is None else as_int('max_dim', max_dim)
        for value in num_tokens.values() if isinstance(num_tokens, dict) else [num_tokens]:
            if value < 1:
                raise ValueError(f'num_tokens must be at least 1 per modality, got {value}.')
        if not 2 <= codebook_size <= 65_536 or codebook_size & (codebook_size - 1):
            raise ValueError(
                f'codebook_size must be a power of two between 2 and 65536, got {codebook_size}.'
            )
        for key, choice, choices in [
            ('init', init, INITS),
            ('fit_on', fit_on, ('train', 'all')),
        ]:
            if choice not in choices:
                raise ValueError(f"{key} must be one of {', '.join(choices)}, got '{choice}'.")
        quantizer_class(method)
        check_kwargs(method, method_kwargs or {})
        if balance is not None and not (isinstance(balance, Real) and 0 < balance <= 1):
            raise ValueError(f'balance must be above 0 and at most 1, or None, got {balance!r}.')
        num_near = as_int('num_near', num_near)
        if not 1 <= num_near <= codebook_size:
            raise ValueError(
                f'num_near must be at least 1 and at most codebook_size={codebook_size}, got '
                f'{num_near}.'
            )
        if num_iters < (0 if init == 'pca' else 1):
            raise ValueError(f"num_iters={num_iters} is too small for init='{init}'.")
        if max_dim is not None and max_dim < 1:
            raise ValueError(f'max_dim must be at least 1 or None, got {max_dim}.')
        max_rows = None if max_rows is None else as_int('max_rows', max_rows)
        if max_rows is not None and max_rows < codebook_size:
            raise ValueError(
                f'max_rows must be at least codebook_size={codebook_size}, or None, got {max_rows}.'
            )
        self.num_tokens = num_tokens
        self.codebook_size = codebook_size
        self.method = method
        self.modalities = modality_names(modalities)
        self.center = center
        self.normalize = normalize
        self.whiten = whiten
        self.num_iters = num_iters
        self.init = init
        self.max_dim = max_dim
        self.seed = seed
        self.fit_on = fit_on
        self.cache = cache
        self.verbose = verbose
        self.node_type = node_type
        self.edge_type = edge_type_of(edge_type)
        self.balance = balance
        self.num_near = num_near
        self.method_kwargs = method_kwargs
        self.max_rows = max_rows
        self.quantizers: dict[str, Quantizer] = {}

    @property
    def is_fitted(self) -> bool:
        return len(self.quantizers) > 0

    @property
    def num_tokens_dict(self) -> dict[str, int]:
        r"""The number of tokens per modality, in the order of the columns.

        Raises:
            RuntimeError: If the modalities are not known yet.
        """
        modalities = self.modalities or sorted(self.quantizers) or self._named
        if not modalities:
            raise RuntimeError('The modalities are not known before the tokenizer is fitted.')
        return {m: self._num_tokens_of(m) for m in modalities}

    @property
    def _named(self) -> list[str] | None:
        r"""The modalities in :obj:`num_tokens`, if it names all of them."""
        if isinstance(self.num_tokens, int) or OTHERS in self.num_tokens:
            return None
        return sorted(self.num_tokens)

    def _num_tokens_of(self, modality: str) -> int:
        if isinstance(self.num_tokens, int):
            return self.num_tokens
        if modality not in self.num_tokens and OTHERS in self.num_tokens:
            return self.num_tokens[OTHERS]
        if modality not in self.num_tokens:
            raise ValueError(
                f"num_tokens has no entry for the modality '{modality}' (given: "
                f'{sorted(self.num_tokens)}); pass modalities=[...] to leave it out.'
            )
        return self.num_tokens[modality]

    @property
    def dtype(self) -> torch.dtype:
        r"""The smallest integer type for all token ids."""
        if self.codebook_size <= 256:
            return torch.uint8
        return torch.int16 if self.codebook_size <= 2**15 else torch.int32

    @torch.inference_mode(False)
    @torch.no_grad()
    def fit(
        self,
        data: HeteroData | Mapping[str, Matrix] | Matrix,
        mask: Mapping[str, Tensor] | None = None,
    ) -> OPQTokenizer:
        r"""Fits the codebooks.

        Args:
            data: A graph, the feature matrix of each modality **[N, d_m]**, or
                a single matrix. Without a graph, fits to all rows.
            mask: Which rows have a modality, **[N]**, for some modalities. A
                graph has its own masks. (default: all rows have all modalities)

        Raises:
            ImportError: If :obj:`faiss` is not installed or cannot be loaded.
            ValueError: If a modality is missing, contains NaN or infinite
                values, or has fewer rows than centroids, or if the graph has
                interactions, but none of type :obj:`edge_type`.
        """
        if not isinstance(data, BaseData):
            data = self._graph(data, mask)
        elif mask is not None:
            raise ValueError(
                f"A graph has its own masks, data['{self.node_type}'].mask_<modality>."
            )
        modalities = needed_modalities(data, self.modalities, self.node_type)
        features = self._features(data, modalities)
        _check_rows(features)
        named = self.num_tokens if isinstance(self.num_tokens, dict) else {}
        unknown = sorted(named.keys() - {OTHERS, *modalities})
        if unknown:
            raise ValueError(f'num_tokens names {unknown}, expected only {sorted(modalities)}.')
        rows = {m: self._rows(data, m, features[m].shape[0]) for m in sorted(modalities)}
        for m in rows:
            check_sizes(m, rows[m].size, features[m].shape[1], **self._fit_settings(m))
        behavior = self._behavior(data) if quantizer_class(self.method).reads_behavior else None
        bar = tqdm(rows, desc='Fitting tokens', disable=not self.verbose)
        self.quantizers = {m: self._fit_one(m, features[m], rows[m], behavior) for m in bar}
        return self

    def _graph(
        self, features: Mapping[str, Matrix] | Matrix, mask: Mapping[str, Tensor] | None
    ) -> HeteroData:
        r"""Creates a graph that contains only features."""
        if not isinstance(features, Mapping):
            names = self.modalities or self._named
            if names is not None and len(names) != 1:
                raise ValueError(f'Got a single matrix, expected one for each of {names}.')
            features = {'x' if names is None else names[0]: features}
        unknown = sorted(set(mask or {}) - set(features))
        if unknown:
            raise ValueError(f'The masks name {unknown}, expected only {sorted(features)}.')
        graph = HeteroData()
        for prefix, values in (('x', features), ('mask', mask or {})):
            for m, value in values.items():
                graph[self.node_type][f'{prefix}_{m}'] = as_array(value)
        return graph

    def _features(self, data: HeteroData, modalities: Sequence[str]) -> dict[str, np.ndarray]:
        features = {}
        for m in modalities:
            fitted = self.quantizers.get(m)
            fill = None if fitted is None else fitted.mean
            features[m] = item_features(data, m, self.node_type, fill)
            self._check_width(m, features[m], f"data['{self.node_type}'].x_{m}")
            check_single(features[m], f"data['{self.node_type}'].x_{m}")
        return features

    def _check_width(self, modality: str, x: np.ndarray | Tensor, name: str) -> None:
        fitted = self.quantizers.get(modality)
        if fitted is not None and x.shape[1] != fitted.width:
            raise ValueError(
                f'{name} has {x.shape[1]} columns, expected {fitted.width}, as in the features '
                f"that the tokenizer was fitted to for the modality '{modality}'."
            )

    def _rows(self, data: HeteroData, modality: str, num_items: int) -> np.ndarray:
        keep = np.zeros(num_items, dtype=bool)
        for item in self._interactions(data) if self.fit_on == 'train' else ():
            if item.max(initial=-1) >= num_items:
                raise ValueError(
                    f'The interactions {self.edge_type} hold item {item.max()}, but there are '
                    f"{num_items} rows of features for the modality '{modality}'."
                )
            keep[item] = True
        if not keep.any():
            keep[:] = True
        mask = item_mask(data, modality, self.node_type)
        rows = np.flatnonzero(keep if mask is None else keep & mask)
        if self.max_rows is None or rows.size <= self.max_rows:
            return rows
        rng = np.random.default_rng(self.seed % 2**64)
        return np.sort(rng.choice(rows, self.max_rows, replace=False, shuffle=False))

    def _interactions(self, data: HeteroData) -> Iterable[np.ndarray]:
        r"""Returns the items of the interactions in blocks. There are none if the
        graph has no interactions.
        """
        ends = [self.edge_type[2], self.edge_type[0]]
        known = edge_types(data)
        if self.node_type in ends and self.edge_type in known:
            side = 1 - ends.index(self.node_type)
            return (x.cpu().numpy() for x in edge_blocks(data, self.edge_type, side))
        others = [e for e in known if e[0] != e[2] and self.node_type in e[::2]]
        if others:
            raise ValueError(
                f"fit_on='train' fits to items with interactions, but the graph has no edges "
                f"{self.edge_type} of '{self.node_type}', it has {listing(others)}: name the "
                f"interactions with edge_type, or choose fit_on='all'."
            )
        return []

    def _behavior(self, data: HeteroData) -> Tensor:
        r"""Computes behavior vectors from interactions alone, with zeros for
        items without interactions.
        """
        found, graph = self.edge_type in edge_types(data), HeteroData()
        edge_index = find_edges(data, self.edge_type) if found else torch.empty(2, 0)
        limit = min(side.unique().numel() for side in edge_index) - 1
        if limit < 1 or self.edge_type[2] != self.node_type:
            raise ValueError(
                f"method='{self.method}' aligns tokens with the users of items: expected "
                f"interactions {self.edge_type} of several users with several '{self.node_type}' "
                f'nodes, got {edge_index.size(1)}.'
            )
        for name in (self.edge_type[0], self.node_type):
            graph[name].num_nodes = num_nodes(data, name)
        graph[self.edge_type].edge_index = edge_index
        svd = InteractionSVD(
            min(BEHAVIOR, limit), cold='zero', cache=self.cache, edge_type=self.edge_type
        )
        return svd(graph)[self.node_type].x_behavior.cpu()

    def _fit_settings(self, modality: str) -> dict[str, Any]:
        names = ('codebook_size', 'method', 'init', 'center', 'normalize', 'whiten')
        settings = {name: getattr(self, name) for name in (*names, 'num_iters', 'max_dim', 'seed')}
        if self.balance is not None:
            settings['balance'] = self.balance
        return {'num_tokens': self._num_tokens_of(modality), **settings, **self._kwargs}

    @property
    def _kwargs(self) -> dict[str, Any]:
        return dict(self.method_kwargs or {})

    def _fit_one(
        self, modality: str, x: np.ndarray, rows: np.ndarray, behavior: Tensor | None
    ) -> Quantizer:
        if rows.size < x.shape[0]:
            x = x[rows]
            behavior = None if behavior is None else behavior[rows]
        settings, kind = self._fit_settings(modality), quantizer_class(self.method)
        own = {key: value for key, value in settings.items() if key != 'method'}
        own.update({} if behavior is None else {'behavior': behavior})
        if self.method not in (*METHODS, *LEARNED):
            return fit_own(kind, x, **own)

        def compute() -> dict[str, Tensor]:
            if self.method in LEARNED:
                return fit_own(kind, x, **own, name=modality, verbose=self.verbose).state_dict()
            return fit_quantizer(x, **settings, name=modality).state_dict()

        def fits(state: dict[str, Tensor]) -> bool:
            found = self._quantizer(state)
            sizes = found.num_tokens, found.codebook_size, found.width
            return sizes == (settings['num_tokens'], self.codebook_size, x.shape[1])

        if self.cache:
            key = fingerprint(CACHE, x, settings, _faiss_version())
            if self.method in LEARNED:
                key = fingerprint(key, CACHE_LEARNED, behavior, torch.__version__)
            state = cached('tokens', key, compute, fits)
        else:
            state = compute()
        return self._quantizer(state)

    def _quantizer(self, state: dict[str, Tensor]) -> Quantizer:
        kind = quantizer_class(self.method)
        residual = self.method == 'rq' or kind.residual
        return kind.from_state_dict(state, self.center, self.normalize, residual)

    @torch.inference_mode(False)
    @torch.no_grad()
    def forward(self, data: HeteroData) -> HeteroData:
        store = node_store(data, self.node_type)
        if not self.is_fitted:
            self.fit(data)
        features = self._features(data, sorted(self.quantizers))
        device = device_of(store[feature_key(store, next(iter(features)))])

        def compute() -> dict[str, Tensor]:
            return self._tokens(features)

        def fits(state: dict[str, Tensor]) -> bool:
            size = len(next(iter(features.values()))), sum(self.num_tokens_dict.values())
            shapes: dict[str, tuple[int, ...]] = {'token_id': size}
            if self.num_near > 1:
                wide = (*size, self.num_near)
                shapes.update({'token_near': wide, 'token_distance': wide})
            found = {key: tuple(value.shape) for key, value in state.items()}
            return found == shapes and state['token_id'].dtype == self.dtype

        if self.cache and self.method in (*METHODS, *LEARNED):
            states = {m: quantizer.state_dict() for m, quantizer in self.quantizers.items()}
            settings: list[Any] = [self.center, self.normalize, self.method]
            settings += [self.num_near] if self.num_near > 1 else []
            key = fingerprint(CACHE, features, states, settings)
            tokens = cached('codes', key, compute, fits)
        else:
            tokens = compute()
        for name, value in tokens.items():
            store[name] = value.to(device)
        return data

    def _tokens(self, features: dict[str, np.ndarray]) -> dict[str, Tensor]:
        r"""Computes the tensors that the transform adds to a graph."""
        if self.num_near == 1:
            return {'token_id': self._encode(features)}
        near, distance = self._encode_near(features)
        return {'token_id': near[:, :, 0].clone(), 'token_near': near, 'token_distance': distance}

    @torch.inference_mode(False)
    @torch.no_grad()
    def encode(
        self,
        features: HeteroData | Mapping[str, Matrix] | Matrix,
        mask: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        r"""Computes the tokens of new items.

        Args:
            features: The feature matrix of each fitted modality **[n, d_m]**, a
                single matrix if there is one modality, or a graph. May omit
                modalities that all items lack according to :obj:`mask`.
            mask: Which items have a modality, **[n]**, for some modalities.
                The mean of the fitted rows replaces the rows of other items. In a
                graph, it replaces only those with NaN or infinite values.
                (default: all items have all modalities)

        Returns:
            The tokens, **[n, T]**.

        Raises:
            RuntimeError: If the tokenizer is not fitted yet.
            ValueError: If a modality is missing or unknown, has the wrong
                width or number of rows, or contains NaN or infinite values.
        """
        return self._encode(self._arrays(features, mask))

    @torch.inference_mode(False)
    @torch.no_grad()
    def encode_tokens(
        self,
        features: HeteroData | Mapping[str, Matrix] | Matrix,
        mask: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        r"""Computes everything that the transform adds to a graph, for new
        items: :obj:`token_id` as in :meth:`encode` and, with :obj:`num_near`,
        :obj:`token_near` and :obj:`token_distance`. A distance is the squared
        distance to a centroid minus the one to the nearest centroid, divided by
        the mean squared distance between adjacent centroids.

        Args:
            features: As in :meth:`encode`.
            mask: As in :meth:`encode`.

        Returns:
            The tensors by name, **[n, T]** and **[n, T, num_near]**.

        Raises:
            RuntimeError: As in :meth:`encode`.
            ValueError: As in :meth:`encode`.
        """
        return self._tokens(self._arrays(features, mask))

    def _arrays(
        self,
        features: HeteroData | Mapping[str, Matrix] | Matrix,
        mask: Mapping[str, Tensor] | None,
    ) -> dict[str, np.ndarray]:
        if not self.is_fitted:
            raise RuntimeError('The tokenizer is not fitted yet: call it on a graph first.')
        names = sorted(self.quantizers)
        if isinstance(features, BaseData):
            if mask is not None:
                raise ValueError(
                    f"A graph has its own masks, data['{self.node_type}'].mask_<modality>."
                )
            return self._features(features, names)
        if not isinstance(features, Mapping):
            if len(names) > 1:
                raise ValueError(f'Got a single matrix, expected one for each of {names}.')
            features = {names[0]: features}
        mask = {} if mask is None else mask
        for m in (*features, *mask):
            if m not in self.quantizers:
                raise ValueError(
                    f"The modality '{m}' is unknown: the tokenizer was fitted to {names}."
                )
        return {m: self._new_rows(m, features.get(m), mask.get(m)) for m in self.quantizers}

    def _new_rows(self, m: str, x: Matrix | None, mask: Tensor | None) -> np.ndarray:
        mean = self.quantizers[m].mean
        present = None if mask is None else torch.as_tensor(mask).bool().cpu()
        if x is None:
            if present is None or bool(present.any()):
                raise ValueError(
                    f"The features of the modality '{m}' are missing: expected "
                    f'{sorted(self.quantizers)} (pass a mask for items that lack one).'
                )
            return mean.expand(present.numel(), -1).numpy()
        name = f"The feature matrix of the modality '{m}'"
        if present is not None:
            num_rows = len(x)
            if present.dim() != 1 or present.numel() != num_rows:
                raise ValueError(
                    f"The mask of the modality '{m}' has shape {list(present.shape)}, "
                    f'expected [{num_rows}].'
                )
            rows = torch.tensor(as_array(x), dtype=torch.float)
            if not bool(present.all()):
                self._check_width(m, rows, name)
                rows[~present] = mean
            x = rows
        array = check_matrix(x, name)
        check_single(array, name)
        self._check_width(m, array, name)
        return array

    def _encode(self, features: dict[str, np.ndarray]) -> Tensor:
        _check_rows(features)
        codes = [self.quantizers[m].encode(features[m]) for m in sorted(self.quantizers)]
        return torch.cat(codes, dim=1).to(self.dtype)

    def _encode_near(self, features: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        _check_rows(features)
        names = sorted(self.quantizers)
        pairs = [self.quantizers[m].encode_near(features[m], self.num_near) for m in names]
        codes, distances = (torch.cat(parts, dim=1) for parts in zip(*pairs))
        return codes.to(self.dtype), distances.float()

    def save(self, path: str) -> None:
        r"""Writes settings and codebooks to a file.

        Args:
            path: The file.

        Raises:
            RuntimeError: If the tokenizer is not fitted yet.
            OSError: If the file cannot be written.
        """
        if not self.is_fitted:
            raise RuntimeError('The tokenizer is not fitted yet: there is nothing to save.')
        content = {
            'format': FORMAT,
            'settings': self._settings(),
            'state': {m: quantizer.state_dict() for m, quantizer in self.quantizers.items()},
        }
        save(content, path)

    def _settings(self) -> dict[str, Any]:
        return {
            key: getattr(self, key)
            for key in inspect.signature(type(self)).parameters
            # Settings that were added later are only written if they differ from USUAL.
            if (key, getattr(self, key)) not in USUAL
        }

    @classmethod
    def load(cls, path: str) -> OPQTokenizer:
        r"""Reads a tokenizer that :meth:`save` wrote.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: If the file is missing.
            ValueError: If the file is truncated or is not a saved tokenizer.
        """
        content = load(path, 'a saved tokenizer')
        try:
            if not isinstance(content, dict) or content['format'] != FORMAT:
                raise KeyError('format')
            tokenizer = cls(**content['settings'])
            for m, state in sorted(content['state'].items()):
                tokenizer.quantizers[m] = tokenizer._quantizer(state)
        except Exception as error:
            raise ValueError(
                f"'{path}' is not a saved tokenizer, or is damaged: expected a file written by "
                f'{cls.__name__}.save.'
            ) from error
        return tokenizer

    def _hub_settings(self) -> dict[str, Any]:
        if not self.is_fitted:
            raise RuntimeError('The tokenizer is not fitted yet: there is nothing to save.')
        return self._settings()

    def _hub_tensors(self) -> dict[str, Tensor]:
        return {
            f'{m}/{name}': value
            for m, quantizer in sorted(self.quantizers.items())
            for name, value in quantizer.state_dict().items()
        }

    @classmethod
    def _hub_check(cls, path: str, settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        method = settings.get('method', 'opq')
        if 'method' not in given and method not in (*METHODS, *LEARNED):
            raise ValueError(
                f"'{path}': the method {method!r} is code outside motor_geo; pass "
                f'method={method!r} to import it'
            )

    @classmethod
    def _from_hub(
        cls, path: str, weights: str, settings: dict[str, Any], tensors: dict[str, Tensor]
    ) -> OPQTokenizer:
        with building(cls, path):
            tokenizer = cls(**settings)
        states: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            m, _, key = name.rpartition('/')
            states.setdefault(m, {})[key] = value
        with building(cls, weights):
            for m, state in sorted(states.items()):
                quantizer = tokenizer._quantizer(state)
                expected = tokenizer._num_tokens_of(m), tokenizer.codebook_size
                if (quantizer.num_tokens, quantizer.codebook_size) != expected:
                    raise ValueError(f"'{m}': expected {expected} tokens and codes, as in '{path}'")
                tokenizer.quantizers[m] = quantizer
            if sorted(tokenizer.num_tokens_dict) != sorted(states) or not states:
                raise ValueError(f'modalities {sorted(states)} do not match those of {path!r}')
        return tokenizer

    def _hub_usage(self, repo: str) -> str:
        names = ', '.join(sorted(self.quantizers))
        return (
            'from motor_geo import OPQTokenizer\n\n'
            f"tokenizer = OPQTokenizer.from_pretrained('{repo}')\n"
            f'token_id = tokenizer.encode(features)  # A dictionary with {names}.'
        )

    def report(self, data: HeteroData, k: int = 10, num_samples: int = 1000) -> dict[str, Any]:
        r"""Measures how well the tokens distinguish the items of the graph. Fits
        the tokenizer first if necessary.

        Args:
            data: The graph.
            k: Number of nearest neighbors to compare.
            num_samples: Number of items to sample for :obj:`neighbors`.

        Returns:
            :obj:`num_items`, :obj:`collisions` (the number of items that share
            all their tokens with another item), and for each of
            :obj:`modalities`: :obj:`num_tokens`, :obj:`perplexity` and
            :obj:`used` codes of each token, :obj:`collisions`,
            :obj:`duplicates` (the number of items whose features equal those of
            another item, which must collide), :obj:`error` (the squared error
            relative to the variance of the prepared features),
            :obj:`kept_variance`, and :obj:`neighbors` (the share of the
            :obj:`k` nearest neighbors of sampled items by cosine similarity
            that remain when tokens replace the features of all other items).
        """
        if k < 1 or num_samples < 1:
            raise ValueError(f'k and num_samples must be at least 1, got {k} and {num_samples}.')
        if not self.is_fitted:
            self.fit(data)
        features = self._features(data, sorted(self.quantizers))
        return token_report(self.quantizers, features, k, num_samples, self.seed)

    def report_table(self, data: HeteroData, k: int = 10, num_samples: int = 1000) -> str:
        r"""Formats the :meth:`report` as text.

        Args:
            data: As in :meth:`report`.
            k: As in :meth:`report`.
            num_samples: As in :meth:`report`.
        """
        return format_report(self.report(data, k, num_samples))

    def __repr__(self) -> str:
        # Omits fitted values, because PyG compares transforms by their `repr`.
        words = arguments(self, ('num_tokens', 'codebook_size', 'method'))
        return f'{self.__class__.__name__}({words})'


def _check_rows(features: dict[str, np.ndarray]) -> None:
    num_rows = {m: x.shape[0] for m, x in features.items()}
    if len(set(num_rows.values())) > 1:
        raise ValueError(f'The modalities differ in their number of rows: {num_rows}.')


def _faiss_version() -> str:
    try:
        return version('faiss-cpu')  # Faster than importing.
    except PackageNotFoundError:
        pass
    try:
        return import_faiss().__version__
    except ImportError:
        return 'none'
