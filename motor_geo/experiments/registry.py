r"""The experiments of the papers, and additional ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from motor_geo.experiments.options import ExperimentOptions, Variant
from motor_geo.experiments.variants import (
    EPOCHS,
    LIRDREC,
    MOTOR,
    backbones,
    codebooks,
    cold_start,
    controls,
    interactions,
    layers,
    lirdrec_modalities,
    lirdrec_parts,
    missing,
    nothing,
    parts,
    quantizers,
    quick_start,
    recipe,
    recommended,
    sensitivity,
    sparsity,
    token_counts,
    whole,
)


class Experiment(NamedTuple):
    r"""An experiment.

    Args:
        name: Name of the experiment.
        title: Title of the report.
        variants: Builds the variants from the options of the experiment.
        view: Name of the view in :mod:`motor_geo.experiments.views` that
            builds the report.
        reference: Index of the label in which a variant and its reference
            differ, and the label of the reference.
            (default: :obj:`None`, for experiments without tests)
        paper: Key of the paper in the file of published numbers.
            (default: :obj:`None`)
        head: Names of the labels.
            (default: :obj:`('data', 'backbone', 'items')`)
        note: A note for the introduction of the report. (default: :obj:`''`)
    """

    name: str
    title: str
    variants: Callable[[ExperimentOptions], list[Variant]]
    view: str
    reference: tuple[int, str] | None = None
    paper: str | None = None
    head: tuple[str, ...] = ('data', 'backbone', 'items')
    note: str = ''


AGAINST_IDS = (2, 'id')
_ALL = [
    Experiment('table1', 'Statistics of the data sets', nothing, 'statistics', paper='motor'),
    Experiment(
        'table2',
        'Backbones with IDs and with tokens',
        backbones(MOTOR, ('id', 'specific', 'agnostic', 'recommended')),
        'comparison',
        AGAINST_IDS,
        'motor',
    ),
    Experiment(
        'table3',
        'Items by their number of training interactions',
        backbones(('LightGCN', 'VBPR', 'SLMRec', 'FREEDOM'), ('id', 'specific')),
        'buckets',
        AGAINST_IDS,
        'motor',
    ),
    Experiment(
        'table4',
        'Single modalities and simpler item encoders',
        parts,
        'comparison',
        AGAINST_IDS,
        'motor',
    ),
    Experiment(
        'figure4',
        'Parameters and accuracy by the number of tokens per modality',
        token_counts,
        'counts',
        AGAINST_IDS,
        'motor',
        ('data', 'backbone', 'tokens'),
    ),
    Experiment(
        'codebooks',
        'Accuracy by the sizes of codebooks',
        codebooks,
        'sizes',
        AGAINST_IDS,
        head=('data', 'backbone', 'items', 'codes per token'),
    ),
    Experiment('figure5', 'Items that share the most tokens', nothing, 'neighbors', paper='motor'),
    Experiment('labels', 'Labels of items that share the most tokens', nothing, 'labels'),
    Experiment('figure6', 'Frequencies of tokens', nothing, 'tokens', paper='motor'),
    Experiment(
        'lirdrec-table2',
        'LIRDRec and other backbones',
        backbones(LIRDREC, ('id',)),
        'comparison',
        (1, 'LIRDRec'),
        'lirdrec',
    ),
    Experiment(
        'lirdrec-table3',
        'LIRDRec without its parts',
        lirdrec_parts,
        'comparison',
        (2, 'full'),
        'lirdrec',
        ('data', 'backbone', 'variant'),
    ),
    Experiment(
        'lirdrec-table4',
        'LIRDRec with single modalities',
        lirdrec_modalities,
        'comparison',
        (2, 'full'),
        'lirdrec',
        ('data', 'backbone', 'features'),
    ),
    Experiment(
        'lirdrec-figure3',
        f'The first {EPOCHS} epochs',
        quick_start,
        'epochs',
        note='Every epoch is followed by an evaluation on validation.',
    ),
    Experiment('lirdrec-figure4', 'Items without interactions', cold_start, 'cold'),
    Experiment(
        'lirdrec-figure5',
        'LIRDRec by weight of the regularizer and decay',
        sensitivity,
        'heat',
        head=('data', 'reg_weight', 'decay_weight'),
    ),
    Experiment(
        'lirdrec-figure6',
        'LIRDRec by the number of hops',
        layers,
        'lines',
        head=('data', 'backbone', 'hops on the user-item graph'),
    ),
    Experiment(
        'backbones',
        'All backbones with IDs and with tokens, and baselines without parameters',
        backbones(None, ('id', 'specific', 'recommended'), None),
        'comparison',
        AGAINST_IDS,
        'motor',
    ),
    Experiment(
        'quantizers',
        'Tokenizers with equal numbers of tokens and codes',
        quantizers,
        'quantizers',
        (3, 'opq'),
        head=('data', 'backbone', 'items', 'quantizer'),
    ),
    Experiment(
        'interactions',
        'Token networks with similar numbers of parameters',
        interactions,
        'comparison',
        (2, 'specific'),
        head=('data', 'backbone', 'items'),
    ),
    Experiment(
        'missing',
        'Items that lack a modality',
        missing,
        'lines',
        head=('data', 'backbone', 'items', 'share of items that lack a modality'),
    ),
    Experiment(
        'controls',
        'Contributions of content and of the token network',
        controls,
        'comparison',
        AGAINST_IDS,
    ),
    Experiment(
        'recommended',
        'The recommended tokens against IDs, features and plain means',
        recommended,
        'comparison',
        (2, 'recommended'),
    ),
    Experiment(
        'recipe',
        'Tokens in closed form and baselines',
        recipe,
        'comparison',
        (1, 'recommended'),
        head=('data', 'method'),
        note='Run this with --effort 12: every method except popularity has twelve settings.',
    ),
    Experiment(
        'whole',
        'Graph backbones under least squares over all pairs',
        whole,
        'comparison',
        AGAINST_IDS,
    ),
    Experiment(
        'sparsity',
        'Fewer training interactions',
        sparsity,
        'shares',
        head=('data', 'backbone', 'items', 'share of training interactions'),
    ),
]
EXPERIMENTS = {entry.name: entry for entry in _ALL}
#: Other names of an experiment.
ALIASES = {'figure3': 'table3'}
