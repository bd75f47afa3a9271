r"""Fits vector quantizers with :obj:`faiss`."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from motor_geo.data.transforms.features import as_array, as_block, as_int, unique_rows
from motor_geo.data.transforms.quantizer import Quantizer, prepare
from motor_geo.data.transforms.sinkhorn import assign_rows, balanced_codebook
from motor_geo.utils.extras import needs
from motor_geo.utils.plugin import import_class
from motor_geo.utils.threads import one_thread

METHODS = ('opq', 'pq', 'rq')
#: Quantizers of this package that are trained with gradients.
LEARNED = {
    'rqvae': 'motor_geo.data.transforms.rq_vae.RQVAEQuantizer',
    'letter': 'motor_geo.data.transforms.letter.LETTERQuantizer',
}
INITS = ('pca', 'random')
EXACT_WIDTH = 2048  # Wider features get their leading principal axes by iteration.
LARGE = 2.0**32  # Squares of numbers from 1 / LARGE to LARGE are well within the float32 range.
OUTLIER = 2.0**24  # A value this much larger than usual makes float32 unable to separate the rest.


def check_sizes(
    name: str,
    num_rows: int,
    width: int,
    num_tokens: int,
    codebook_size: int,
    method: str,
    max_dim: int | None = None,
    **kwargs: Any,
) -> None:
    r"""Checks that there are enough rows and columns for fitting.

    Args:
        name: Name of the modality, for messages.
        num_rows: Number of rows to fit to.
        width: Number of columns.
        num_tokens: Number of tokens.
        codebook_size: Number of centroids per token.
        method: The method, as in :class:`~motor_geo.data.OPQTokenizer`.
        max_dim: Maximum number of principal axes.
        **kwargs: Other settings, which are ignored.

    Raises:
        ValueError: If there are fewer rows than centroids, or fewer columns
            than tokens.
    """
    if num_rows < 2:
        raise ValueError(
            f"The modality '{name}' has {num_rows} row{'' if num_rows == 1 else 's'} to fit to; "
            'expected at least 2 items that have it.'
        )
    if num_rows < codebook_size:
        smaller = 2 ** (int(num_rows).bit_length() - 1)
        raise ValueError(
            f"The modality '{name}' has {num_rows} rows to fit {codebook_size} centroids per "
            f'token; expected at least as many rows as centroids, for instance '
            f'codebook_size={smaller}.'
        )
    if method in ('opq', 'pq') and num_tokens > min(width, max_dim or width):
        raise ValueError(
            f"The modality '{name}' has {min(width, max_dim or width)} columns to cut into "
            f"{num_tokens} tokens; expected at least as many columns as tokens (or method='rq')."
        )


def quantizer_class(method: str) -> type[Quantizer]:
    r"""Returns the class that a method of
    :class:`~motor_geo.data.OPQTokenizer` fits: :class:`Quantizer`, one of the
    learned quantizers, or a user-defined subclass with a class method
    :obj:`fit`.

    Args:
        method: Name of the method, or the import path of a subclass of
            :class:`Quantizer`.

    Raises:
        ValueError: If there is no such method.
    """
    if not isinstance(method, str):
        raise ValueError(f'method must be a name, got {method!r}.')
    if method in METHODS:
        return Quantizer
    if method in LEARNED:
        return cast(type[Quantizer], import_class(LEARNED[method], Quantizer))
    if '.' not in method:
        known = ', '.join((*METHODS, *LEARNED))
        raise ValueError(f"method must be one of {known}, or an import path, got '{method}'.")
    try:
        kind = import_class(method, Quantizer)
    except ValueError as error:
        raise ValueError(f"method: '{method}' {error}") from error
    if not callable(getattr(kind, 'fit', None)):
        raise ValueError(f"method: '{method}' has no class method fit(x, num_tokens, ...)")
    return kind


#: Names of the keyword arguments that the tokenizer passes to :obj:`fit`.
SETTINGS = (
    *('num_tokens', 'codebook_size', 'init', 'center', 'normalize', 'whiten', 'num_iters'),
    *('max_dim', 'seed', 'balance', 'name', 'verbose', 'behavior'),
)


def check_kwargs(method: str, kwargs: Mapping[str, Any]) -> None:
    r"""Checks the :obj:`method_kwargs` of :class:`~motor_geo.data.OPQTokenizer`.

    Args:
        method: The method.
        kwargs: Its further settings.

    Raises:
        ValueError: If the method has no such setting, or a setting is of another type.
    """
    if not isinstance(kwargs, Mapping):
        raise ValueError(f'method_kwargs must map settings to values, got {kwargs!r}.')
    if not kwargs:
        return
    known: list[str] = []
    if method not in METHODS:
        own = inspect.signature(cast(Any, quantizer_class(method)).fit).parameters
        if any(p.kind is p.VAR_KEYWORD for p in own.values()) and method not in LEARNED:
            return
        keyword = [key for key, p in own.items() if p.kind is not p.VAR_KEYWORD]
        known = [key for key in keyword if key != 'x' and key not in SETTINGS]
    for key in kwargs:
        if key not in known:
            raise ValueError(
                f"method_kwargs: the method '{method}' has no setting '{key}'; expected "
                f'{"some of " + ", ".join(known) if known else "none"}.'
            )
        if method in LEARNED:
            _check_type(key, kwargs[key], own[key].default)


def _check_type(key: str, value: Any, default: Any) -> None:
    r"""Checks that a setting is of the type of its default."""
    if isinstance(default, int):
        as_int(key, value)
    elif isinstance(default, float) and not isinstance(value, (int, float)):
        raise ValueError(f'{key} must be a number, got {value!r}.')
    elif isinstance(default, tuple):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(f'{key} must be a list of integers, got {value!r}.')
        for entry in value:
            as_int(f'{key}: every width', entry)


def fit_own(
    kind: Any, x: Tensor | np.ndarray, num_tokens: int, codebook_size: int, **settings: Any
) -> Quantizer:
    r"""Fits a learned or a user-defined quantizer and checks its sizes.

    Args:
        kind: The class of the quantizer.
        x: Features, **[n, d]**.
        num_tokens: Number of tokens.
        codebook_size: Number of centroids per token.
        **settings: Further arguments of its class method :obj:`fit`.

    Raises:
        ValueError: If :obj:`fit` returns anything else than a quantizer of
            these sizes.
    """
    array = as_array(x)
    out = kind.fit(array, num_tokens=num_tokens, codebook_size=codebook_size, **settings)
    found = (out.num_tokens, out.codebook_size, out.width) if isinstance(out, kind) else type(out)
    expected = num_tokens, codebook_size, array.shape[1]
    if found != expected:
        raise ValueError(
            f'{kind.__name__}.fit must return a {kind.__name__} of (tokens, codebook size, width) '
            f'= {expected}, got {found}.'
        )
    return out


def fit_quantizer(
    x: Tensor | np.ndarray,
    num_tokens: int,
    codebook_size: int = 256,
    method: str = 'opq',
    init: str = 'pca',
    center: bool = False,
    normalize: bool = False,
    whiten: bool = False,
    num_iters: int = 10,
    max_dim: int | None = 512,
    seed: int = 0,
    name: str = 'features',
    balance: float | None = None,
) -> Quantizer:
    r"""Fits a :class:`~motor_geo.data.transforms.quantizer.Quantizer` to the
    rows of :obj:`x`, **[n, d]**. Duplicate rows count as often as they occur.
    The result does not depend on the number of threads or the scale of the
    features. The arguments are those of
    :class:`~motor_geo.data.OPQTokenizer`; :obj:`name` appears in messages.

    Raises:
        ImportError: If :obj:`faiss` is not installed or cannot be loaded.
        ValueError: If there are fewer rows than centroids, or fewer columns
            than tokens.
    """
    array = as_array(x)
    num_rows, width = array.shape
    check_sizes(name, num_rows, width, num_tokens, codebook_size, method, max_dim=max_dim)
    warn_of_few(array, codebook_size, name)
    with one_thread_faiss() as faiss:
        ready = prepare_rows(array, center, normalize, whiten, max_dim, name)
        return _fit(faiss, ready, num_tokens, codebook_size, method, init, num_iters, seed, balance)


def warn_of_few(array: np.ndarray, codebook_size: int, name: str) -> None:
    r"""Warns if there are fewer distinct rows than centroids.

    Args:
        array: Features, **[n, d]**.
        codebook_size: Number of centroids per token.
        name: Name of the modality, for messages.
    """
    num_distinct = unique_rows(array)[0].size
    if num_distinct < codebook_size:
        warnings.warn(
            f"The modality '{name}' has only {num_distinct} distinct rows for {codebook_size} "
            f'centroids per token: some tokens stay unused.',
            stacklevel=3,
        )


class PreparedRows(NamedTuple):
    r"""Prepared rows :obj:`z`, **[n, p]**, and the parameters that prepare them,
    which are arguments of
    :class:`~motor_geo.data.transforms.quantizer.Quantizer`.
    """

    z: np.ndarray
    mean: Tensor
    projection: Tensor | None
    scale: Tensor | None
    kept_variance: float
    center: bool
    normalize: bool
    unit: float

    @property
    def arguments(self) -> dict[str, Any]:
        r"""All fields except the rows, by name."""
        return {key: value for key, value in self._asdict().items() if key != 'z'}


def prepare_rows(
    array: np.ndarray,
    center: bool,
    normalize: bool,
    whiten: bool,
    max_dim: int | None,
    name: str,
) -> PreparedRows:
    r"""Optionally centers, normalizes, projects and whitens rows.

    Args:
        array: Features, **[n, d]**.
        center: As in :class:`~motor_geo.data.OPQTokenizer`.
        normalize: As in :class:`~motor_geo.data.OPQTokenizer`.
        whiten: As in :class:`~motor_geo.data.OPQTokenizer`.
        max_dim: As in :class:`~motor_geo.data.OPQTokenizer`.
        name: Name of the modality, for messages.
    """
    num_rows, width = array.shape
    step = max(1, 2**22 // width)
    total = torch.zeros(width, dtype=torch.double)
    for start in range(0, num_rows, step):
        total += as_block(array, start, start + step, torch.double).sum(dim=0)
    mean = (total / num_rows).float()
    unit = _unit(array, step, name)

    def blocks() -> Iterator[Tensor]:
        for start in range(0, num_rows, step):
            block = as_block(array, start, start + step, torch.double)
            yield prepare(block, mean, center, normalize, unit)

    projection, scale, kept_variance = None, None, 1.0
    num_axes = width if max_dim is None else min(width, max_dim)
    if whiten or num_axes < width:
        projection, variance, kept_variance = _principal_axes(blocks(), num_axes)
        axes = projection.double().t()
        if whiten:
            small = variance <= 1e-6 * variance.max()  # Such axes may be rounding errors.
            scale = variance.rsqrt().masked_fill(small, 0).float()
            axes = axes * scale.double()
        z = torch.cat([(block @ axes).float() for block in blocks()]).numpy()
    else:
        z = torch.cat([block.float() for block in blocks()]).numpy()
    return PreparedRows(z, mean, projection, scale, kept_variance, center, normalize, unit)


def _fit(
    faiss: Any,
    ready: PreparedRows,
    num_tokens: int,
    codebook_size: int,
    method: str,
    init: str,
    num_iters: int,
    seed: int,
    balance: float | None,
) -> Quantizer:
    z, rotation, offset = ready.z, None, None
    residual = method == 'rq'
    if residual:
        centroids, offset = train_residual(faiss, z, num_tokens, codebook_size, seed, balance)
    else:
        columns = z.shape[1]
        if columns % num_tokens:
            z = np.pad(z, ((0, 0), (0, -columns % num_tokens)))
        if method == 'opq':
            matrix = _train_rotation(faiss, z, num_tokens, codebook_size, init, num_iters, seed)
            z = np.ascontiguousarray(z @ matrix.T)
            rotation = torch.from_numpy(matrix[:, :columns].copy())
        pq = _product_quantizer(faiss, z.shape[1], num_tokens, codebook_size, seed)
        pq.train(z)
        flat = torch.from_numpy(faiss.vector_to_array(pq.centroids).copy())
        centroids = flat.view(num_tokens, codebook_size, -1)
        if balance is not None:
            blocks = torch.from_numpy(z).split(centroids.size(2), dim=1)
            pairs = [balanced_codebook(*pair, balance) for pair in zip(blocks, centroids)]
            centroids, offset = (torch.stack(parts) for parts in zip(*pairs))
    return Quantizer(
        centroids=centroids,
        rotation=rotation,
        residual=residual,
        offset=offset,
        **ready.arguments,
    )


def _unit(x: np.ndarray, step: int, name: str) -> float:
    r"""Returns the power of two that scales the largest magnitude close to one
    if its square would leave the range of single precision, and one otherwise.
    Warns about outliers.
    """
    peak = np.concatenate(
        [np.abs(x[i : i + step].astype(np.float64)).max(axis=1) for i in range(0, len(x), step)]
    )
    largest, usual = float(peak.max()), float(np.median(peak[peak > 0])) if peak.any() else 0.0
    if largest > OUTLIER * usual:
        warnings.warn(
            f"The modality '{name}': a row holds the value {largest:.3g}, and half of the rows "
            f'hold none above {usual:.3g}; next to such an outlier, single precision can hardly '
            f'tell them apart.',
            stacklevel=3,
        )
    if largest == 0 or 1 / LARGE <= largest <= LARGE:
        return 1.0
    return 2.0 ** -int(np.frexp(largest)[1])


def _principal_axes(blocks: Iterator[Tensor], num_axes: int) -> tuple[Tensor, Tensor, float]:
    r"""Returns principal axes, the variance along each of them, and their share
    of the total variance.
    """
    num_rows, total, square = 0, torch.zeros(1).double(), torch.zeros(1).double()
    for block in blocks:
        num_rows += block.size(0)
        total = total + block.sum(dim=0)
        if block.size(1) > EXACT_WIDTH:  # Saves time; sums of blocks stay in double precision.
            block = block.float()
        square = square + block.t() @ block
    mean = total / num_rows
    matrix = square / num_rows - torch.outer(mean, mean)
    if matrix.size(0) <= EXACT_WIDTH or matrix.size(0) < 4 * num_axes:
        value, axis = _eigh(matrix)
        kept = value[:num_axes].sum() / value.sum().clamp(min=1e-300)
    else:
        axis = _leading_axes(matrix, num_axes)
        value = ((axis @ matrix) * axis).sum(dim=1)
        kept = value.sum() / matrix.trace().clamp(min=1e-300)
    return axis[:num_axes].float(), value[:num_axes], float(kept)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns eigenvalues in descending order, and eigenvectors as rows."""
    value, vector = torch.linalg.eigh(matrix)
    return value.flip(0).clamp(min=0), _with_signs(vector.t().flip(0))


def _leading_axes(matrix: Tensor, num_axes: int) -> Tensor:
    r"""Computes the leading eigenvectors of a covariance matrix, as rows, by
    subspace iteration. The last ones may mix with the eigenvectors that follow,
    which have about the same variance.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vector = torch.svd_lowrank(matrix, q=num_axes + num_axes // 2, niter=4)[2]
    return _with_signs(vector[:, :num_axes].t())


def _with_signs(vector: Tensor) -> Tensor:
    r"""Flips signs so that the entry of largest magnitude in each row is
    positive.
    """
    peak = vector.gather(1, vector.abs().argmax(dim=1, keepdim=True))
    return vector * torch.where(peak < 0, -1.0, 1.0)


def import_faiss() -> Any:
    r"""Imports :obj:`faiss` so that waiting threads sleep. Its threads
    synchronize after each of the many short steps of k-means. If another
    process uses a core, spinning on a delayed thread makes fitting several
    times slower.
    """
    policy = os.environ.get('OMP_WAIT_POLICY')
    os.environ['OMP_WAIT_POLICY'] = policy or 'PASSIVE'  # OpenMP reads it on the first import.
    try:
        import faiss
    finally:
        if policy is None:
            del os.environ['OMP_WAIT_POLICY']
    return faiss


@contextmanager
def one_thread_faiss() -> Iterator[Any]:
    r"""Yields :obj:`faiss`, restricted to a single thread. Several threads would
    sum in a different order, and would synchronize after each of the many short
    steps of k-means.

    Raises:
        ImportError: If :obj:`faiss` is not installed or cannot be loaded.
    """
    try:
        faiss = import_faiss()
    except ModuleNotFoundError as error:
        raise ImportError(needs('Fitting tokens (unlike encoding)', 'faiss-cpu')) from error
    except ImportError as error:
        raise ImportError(f'Fitting tokens needs faiss, which cannot be loaded: {error}') from error
    num_threads = faiss.omp_get_max_threads()
    with one_thread():
        faiss.omp_set_num_threads(1)
        try:
            yield faiss
        finally:
            faiss.omp_set_num_threads(num_threads)


def short_seed(seed: int) -> int:
    r"""Reduces a seed to 32 bits."""
    if -(2**31) <= seed < 2**31:
        return seed
    return int(np.random.SeedSequence(seed % 2**64).generate_state(1)[0] >> 1)


def _product_quantizer(faiss: Any, width: int, num_tokens: int, size: int, seed: int) -> Any:
    pq = faiss.ProductQuantizer(width, num_tokens, size.bit_length() - 1)
    pq.cp.seed = short_seed(seed)
    pq.cp.min_points_per_centroid = 1  # With fewer than 39, faiss warns at every iteration.
    return pq


def _train_rotation(
    faiss: Any, z: np.ndarray, num_tokens: int, size: int, init: str, num_iters: int, seed: int
) -> np.ndarray:
    width = z.shape[1]
    opq = faiss.OPQMatrix(width, num_tokens, width)
    opq.niter = num_iters
    pq = _product_quantizer(faiss, width, num_tokens, size, seed)
    opq.pq = pq  # `opq` does not own it, so `pq` must stay alive.
    if init == 'pca':
        start = _balanced_axes(z, num_tokens)
        if num_iters == 0:
            return start
        faiss.copy_array_to_vector(start.ravel(), opq.A)
    if z.shape[0] < width:
        # With fewer rows than columns, faiss 1.15 writes a width x width matrix
        # into a buffer of rows x width. Repeating all rows leaves the optimum unchanged.
        z = np.tile(z, (-(-width // z.shape[0]), 1))
    opq.train(z)
    return faiss.vector_to_array(opq.A).reshape(width, width).copy()


def _balanced_axes(z: np.ndarray, num_tokens: int) -> np.ndarray:
    r"""Distributes principal axes over blocks so that the product of the
    eigenvalues is about the same in each block, which is optimal for Gaussian
    data.
    """
    x = z.astype(np.float64).T  # Computes numpy.cov with a single copy.
    x -= x.mean(axis=1, keepdims=True)
    value, axis = _eigh(torch.from_numpy(np.dot(x, x.T) * (1 / (x.shape[1] - 1))))
    log = (value / value.max().clamp(min=1e-300)).clamp(min=1e-12).log() - np.log(1e-12)
    blocks: list[list[int]] = [[] for _ in range(num_tokens)]
    load = [0.0] * num_tokens
    for i in range(z.shape[1]):
        free = [t for t in range(num_tokens) if len(blocks[t]) < z.shape[1] // num_tokens]
        target = min(free, key=lambda t: load[t])
        blocks[target].append(i)
        load[target] += float(log[i])
    return axis[torch.tensor(blocks).flatten()].float().contiguous().numpy()


def train_residual(
    faiss: Any, z: np.ndarray, num_tokens: int, size: int, seed: int, balance: float | None = None
) -> tuple[Tensor, Tensor | None]:
    r"""Fits the codebooks of a residual quantizer with k-means, level by level.

    Args:
        faiss: The module.
        z: Prepared rows, **[n, p]**.
        num_tokens: Number of levels.
        size: Number of centroids per level.
        seed: Random seed.
        balance: As in :class:`~motor_geo.data.OPQTokenizer`.

    Returns:
        The centroids, **[D, K, p]**, and their offsets if they are balanced,
        **[D, K]**.
    """
    residual = torch.from_numpy(z.copy())
    centroids, offsets = [], []
    for _ in range(num_tokens):
        means = faiss.Kmeans(
            z.shape[1], size, niter=25, seed=short_seed(seed), min_points_per_centroid=1
        )
        means.train(residual.numpy())
        centroid, offset = torch.from_numpy(means.centroids.copy()), None
        if balance is not None:
            centroid, offset = balanced_codebook(residual, centroid, balance)
            offsets.append(offset)
        centroids.append(centroid)
        residual -= centroid[assign_rows(residual, centroid, offset)]
    return torch.stack(centroids), torch.stack(offsets) if offsets else None
