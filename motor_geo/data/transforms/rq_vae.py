r"""Tokens of a residual-quantized autoencoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from motor_geo.data.transforms.features import as_array
from motor_geo.data.transforms.fit_quantizer import (
    PreparedRows,
    check_sizes,
    one_thread_faiss,
    prepare_rows,
    train_residual,
    warn_of_few,
)
from motor_geo.data.transforms.quantizer import Quantizer
from motor_geo.data.transforms.sinkhorn import assign_rows, balancing_offset

#: A function that returns additional loss terms, given the step, the rows of the batch, their
#: quantized latent vectors, their codes by level, and the codebooks.
Term = Callable[[int, Tensor, Tensor, list[Tensor], Sequence[Tensor]], Tensor]


R = TypeVar('R', bound='RQVAEQuantizer')


#: Largest learning rate and weight of a term.
LARGEST = 10**6
#: Reconstruction error of rows of unit variance that no training ends with.
DIVERGED = 10**6


@dataclass(frozen=True)
class RQVAEQuantizer(Quantizer):
    r"""The residual-quantized variational autoencoder (RQ-VAE) from the
    `"Recommender Systems with Generative Retrieval"
    <https://arxiv.org/abs/2305.05065>`_ (TIGER) paper. An encoder maps features
    to latent vectors :math:`\mathbf{r}_1 = \textrm{MLP}(\mathbf{f})` and
    quantizes their residuals level by level,

    .. math::
        t_l = \underset{c}{\arg\min} \left\| \mathbf{r}_l - \mathbf{e}_{l,c}
        \right\|^2 , \qquad \mathbf{r}_{l+1} = \mathbf{r}_l - \mathbf{e}_{l,t_l},

    and a decoder reconstructs the features from
    :math:`\sum_l \mathbf{e}_{l,t_l}`. With the stop-gradient operator
    :math:`\textrm{sg}`, the loss is

    .. math::
        \left\| \mathbf{f} - \hat{\mathbf{f}} \right\|^2 + \frac{1}{L} \sum_l
        \left( \left\| \textrm{sg}(\mathbf{r}_l) - \mathbf{e}_{l,t_l} \right\|^2 +
        \mu \left\| \mathbf{r}_l - \textrm{sg}(\mathbf{e}_{l,t_l}) \right\|^2
        \right) ,

    where each norm is a mean over rows and columns.

    The first level is the coarsest one. Unlike the slots of a product
    quantizer, levels are not interchangeable.
    :class:`~motor_geo.data.OPQTokenizer` uses this class for
    :obj:`method='rqvae'`, and its :obj:`method_kwargs` are the settings of
    :meth:`fit`.

    Args:
        encoder: Weights and biases of the encoder, alternating.
        decoder: Weights and biases of the decoder, alternating.
        **kwargs: Arguments of
            :class:`~motor_geo.data.transforms.quantizer.Quantizer`.
    """

    residual: bool = True
    encoder: tuple[Tensor, ...] = ()
    decoder: tuple[Tensor, ...] = ()

    def transform(self, x: Tensor) -> Tensor:
        r"""Computes the latent vectors of prepared rows, **[n, d]** to
        **[n, c]**.
        """
        return mlp(self.project(x), [p.double() for p in self.encoder])

    def compare(self, x: Tensor, z: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        restored = mlp(self.decode(codes), [p.double() for p in self.decoder])
        projected = self.project(x.double()).to(x.dtype)
        return self.straighten(projected), self.straighten(restored.to(x.dtype))

    def state_dict(self) -> dict[str, Tensor]:
        state = super().state_dict()
        for part in ('encoder', 'decoder'):
            state.update({f'{part}.{i}': value for i, value in enumerate(getattr(self, part))})
        return state

    @classmethod
    def from_state_dict(
        cls: type[R], state: dict[str, Tensor], center: bool, normalize: bool, residual: bool
    ) -> R:
        plain = {key: value for key, value in state.items() if '.' not in key}
        out = super().from_state_dict(plain, center, normalize, residual)

        def layers(part: str) -> tuple[Tensor, ...]:
            size = sum(key.startswith(f'{part}.') for key in state)
            return tuple(state[f'{part}.{i}'] for i in range(size))

        return replace(out, encoder=layers('encoder'), decoder=layers('decoder'))

    @classmethod
    def fit(
        cls,
        x: Tensor | np.ndarray,
        num_tokens: int,
        codebook_size: int,
        hidden: Sequence[int] = (256, 128),
        latent: int = 32,
        num_steps: int = 2000,
        warmup: float = 0.1,
        batch_size: int = 1024,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        commitment: float = 0.25,
        **settings: Any,
    ) -> RQVAEQuantizer:
        r"""Trains the autoencoder.

        Args:
            x: Features, **[n, d]**.
            num_tokens: Number of levels.
            codebook_size: Number of centroids per level.
            hidden: Widths of the hidden layers between features and latent
                vectors.
            latent: Width of the latent vectors.
            num_steps: Number of training steps.
            warmup: Share of the steps that run without quantization. Afterwards,
                k-means on the latent vectors initializes the codebooks.
                Otherwise, many codes would remain unused.
            batch_size: Number of rows per step.
            lr: Learning rate of AdamW.
            weight_decay: Weight decay of AdamW.
            commitment: Weight :math:`\mu` of the commitment term.
            **settings: Settings of :class:`~motor_geo.data.OPQTokenizer`.

        Raises:
            ImportError: If :obj:`faiss` is not installed or cannot be loaded.
            ValueError: If a setting is out of range, there are fewer rows than
                centroids, or training diverges.
        """
        return cls._fit(
            x,
            num_tokens,
            codebook_size,
            Schedule(
                tuple(hidden), latent, num_steps, warmup, batch_size, lr, weight_decay, commitment
            ),
            None,
            **settings,
        )

    @classmethod
    def _fit(
        cls: type[R],
        x: Tensor | np.ndarray,
        num_tokens: int,
        codebook_size: int,
        schedule: Schedule,
        term: Term | None = None,
        center: bool = False,
        normalize: bool = False,
        whiten: bool = False,
        max_dim: int | None = 512,
        seed: int = 0,
        balance: float | None = None,
        name: str = 'features',
        verbose: bool = False,
        **unused: Any,
    ) -> R:
        array = as_array(x)
        check_sizes(name, array.shape[0], array.shape[1], num_tokens, codebook_size, 'rqvae')
        warn_of_few(array, codebook_size, name)
        with one_thread_faiss() as faiss, torch.enable_grad():
            ready = prepare_rows(array, center, normalize, whiten, max_dim, name)
            network = _Network(ready, schedule, num_tokens, codebook_size, seed, balance, name)
            network.train(faiss, term, verbose)
            return cls(**ready.arguments, **network.state())


@dataclass(frozen=True)
class Schedule:
    r"""The training settings of the autoencoder, see
    :meth:`RQVAEQuantizer.fit`.
    """

    hidden: tuple[int, ...] = (256, 128)
    latent: int = 32
    num_steps: int = 2000
    warmup: float = 0.1
    batch_size: int = 1024
    lr: float = 1e-3
    weight_decay: float = 1e-4
    commitment: float = 0.25

    def __post_init__(self) -> None:
        for key in ('latent', 'num_steps', 'batch_size'):
            if getattr(self, key) < 1:
                raise ValueError(f'{key} must be at least 1, got {getattr(self, key)}.')
        if any(width < 1 for width in self.hidden):
            raise ValueError(f'hidden must be positive widths, got {list(self.hidden)}.')
        if not 0 <= self.warmup < 1:
            raise ValueError(f'warmup must be at least 0 and below 1, got {self.warmup}.')
        for key in ('lr', 'weight_decay', 'commitment'):
            if not 0 <= getattr(self, key) <= LARGEST:
                raise ValueError(f'{key} must lie in 0..{LARGEST}, got {getattr(self, key)}.')


class _Network:
    r"""An autoencoder during training."""

    def __init__(
        self,
        ready: PreparedRows,
        schedule: Schedule,
        num_tokens: int,
        codebook_size: int,
        seed: int,
        balance: float | None,
        name: str,
    ):
        self.schedule, self.balance, self.seed, self.name = schedule, balance, seed, name
        self.sizes = num_tokens, codebook_size, schedule.latent
        self.generator = torch.Generator().manual_seed(seed % 2**63)
        z = torch.from_numpy(ready.z)
        self.shift = z.double().mean(dim=0)
        spread = float((z.double() - self.shift).square().mean().sqrt())
        self.spread = spread if spread > 0 else 1.0
        self.x = ((z.double() - self.shift) / self.spread).float()
        widths = [z.size(1), *schedule.hidden, schedule.latent]
        self.encoder = self._layers(widths)
        self.decoder = self._layers(widths[::-1])
        self.centroids: list[Tensor] = []
        self.offsets: list[Tensor | None] = [None] * num_tokens

    def _layers(self, widths: Sequence[int]) -> list[Tensor]:
        layers = []
        for before, after in zip(widths[:-1], widths[1:]):
            bound = (6 / (before + after)) ** 0.5
            weight = torch.rand(after, before, generator=self.generator) * 2 * bound - bound
            layers += [weight.requires_grad_(), torch.zeros(after, requires_grad=True)]
        return layers

    def train(self, faiss: Any, term: Term | None, verbose: bool) -> None:
        r"""Trains encoder, decoder and codebooks."""
        own = self.schedule
        num_rows = self.x.size(0)
        first = int(own.warmup * own.num_steps)
        # Balances codebooks only in the second half, since they move too much before.
        balanced = range((first + own.num_steps) // 2, own.num_steps, max(1, own.num_steps // 10))
        parameters = [*self.encoder, *self.decoder]
        optimizer = torch.optim.AdamW(parameters, lr=own.lr, weight_decay=own.weight_decay)
        title = f"RQ-VAE of '{self.name}'"
        bar = tqdm(range(own.num_steps), title, leave=False, disable=not verbose)
        order = torch.empty(0, dtype=torch.long)
        for step in bar:
            if step == first:
                self._start(faiss)
                optimizer.add_param_group({'params': self.centroids})
            if self.balance is not None and step in balanced:
                self._rebalance()
            if order.numel() == 0:
                order = torch.randperm(num_rows, generator=self.generator)
            rows, order = order[: own.batch_size], order[own.batch_size :]
            loss = self.loss(step, rows, term)
            self._check(step, loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if verbose and step % 50 == 0:
                bar.set_postfix_str(f'loss {loss.item():.4f}')
        with torch.no_grad():  # The last step may have diverged.
            x = self.x[rows]
            error = F.mse_loss(mlp(mlp(x, self.encoder), self.decoder), x)
            self._check(step, error, DIVERGED)
        if self.balance is not None:
            self._rebalance()

    def _check(self, step: int, loss: Tensor, bound: float = math.inf) -> None:
        if not bool(loss < bound):
            raise ValueError(
                f"The modality '{self.name}': training diverged at step {step + 1} (loss "
                f'{loss.item()}); try a lower lr in method_kwargs than {self.schedule.lr}.'
            )

    @torch.no_grad()
    def _start(self, faiss: Any) -> None:
        z = mlp(self.x, self.encoder)
        centroids, _ = train_residual(faiss, z.numpy(), *self.sizes[:2], self.seed)
        self.centroids = [centroid.clone().requires_grad_() for centroid in centroids]

    @torch.no_grad()
    def _rebalance(self) -> None:
        assert self.balance is not None
        rest = mlp(self.x, self.encoder)
        for level, centroid in enumerate(self.centroids):
            offset = balancing_offset(rest, centroid, self.balance).float()
            self.offsets[level] = offset
            rest = rest - centroid[assign_rows(rest, centroid, offset)]

    def loss(self, step: int, rows: Tensor, term: Term | None) -> Tensor:
        r"""Computes the loss of a batch."""
        x = self.x[rows]
        z = mlp(x, self.encoder)
        if not self.centroids:
            return F.mse_loss(mlp(z, self.decoder), x)
        quantized, codes, terms = quantize(
            z, self.centroids, self.offsets, self.schedule.commitment
        )
        loss = F.mse_loss(mlp(quantized, self.decoder), x) + terms
        return loss if term is None else loss + term(step, rows, quantized, codes, self.centroids)

    @torch.no_grad()
    def state(self) -> dict[str, Any]:
        r"""Returns the arguments of the quantizer. The first and the last layer
        absorb the shift and the scale of the rows.
        """
        encoder = [value.detach().double() for value in self.encoder]
        decoder = [value.detach().double() for value in self.decoder]
        encoder[0] = encoder[0] / self.spread
        encoder[1] = encoder[1] - encoder[0] @ self.shift
        decoder[-2] = decoder[-2] * self.spread
        decoder[-1] = decoder[-1] * self.spread + self.shift
        offset = None
        if self.balance is not None:
            offset = torch.stack([offset for offset in self.offsets if offset is not None])
        return {
            'centroids': torch.stack(self.centroids).detach(),
            'offset': offset,
            'encoder': tuple(value.float() for value in encoder),
            'decoder': tuple(value.float() for value in decoder),
        }


def mlp(x: Tensor, layers: Sequence[Tensor]) -> Tensor:
    r"""Applies a multilayer perceptron with ReLU activations between its layers.

    Args:
        x: Input, **[n, d]**.
        layers: Weights and biases, alternating.

    Returns:
        The output, **[n, c]**.
    """
    for i in range(0, len(layers), 2):
        x = F.linear(x if i == 0 else torch.relu(x), layers[i], layers[i + 1])
    return x


def quantize(
    z: Tensor,
    centroids: Sequence[Tensor],
    offsets: Sequence[Tensor | None],
    commitment: float = 0.25,
) -> tuple[Tensor, list[Tensor], Tensor]:
    r"""Quantizes residuals with straight-through gradients.

    Args:
        z: Latent vectors.
        centroids: The codebook of every level.
        offsets: The offsets to subtract from the squared distances at every
            level; :obj:`None` for none.
        commitment: Weight :math:`\mu` of the commitment term.

    Shapes:
        - **input:** latent vectors :math:`(n, c)`, codebooks :math:`(K, c)`,
          offsets :math:`(K)`
        - **output:** quantized latent vectors :math:`(n, c)`, which pass
          gradients on to :obj:`z`; codes :math:`(n)` of every level; and the
          scalar loss term that trains the codebooks
    """
    rest, total = z, torch.zeros_like(z)
    codes, terms = [], []
    for centroid, offset in zip(centroids, offsets):
        with torch.no_grad():
            code = assign_rows(rest, centroid, offset)
        chosen = F.embedding(code, centroid)
        terms.append(F.mse_loss(chosen, rest.detach()))
        terms.append(commitment * F.mse_loss(rest, chosen.detach()))
        # The residual carries gradients to the encoder, but not to the codebook.
        rest, total = rest - chosen.detach(), total + chosen
        codes.append(code)
    return z + (total - z).detach(), codes, torch.stack(terms).sum() / len(codes)
