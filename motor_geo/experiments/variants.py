r"""The variants of the experiments."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence

from motor_geo.experiments.options import (
    ExperimentOptions,
    Options,
    Variant,
    backbone,
    in_words,
)

MOTOR = ('BPR', 'LightGCN', 'LayerGCN', 'VBPR', 'GRCN', 'SLMRec', 'BM3', 'FREEDOM', 'MGCN')
LIRDREC = ('BPR', 'LightGCN', 'VBPR', 'GRCN', 'LATTICE', 'SLMRec', 'MICRO', 'BM3', 'FREEDOM') + (
    'LGMRec',
    'LIRDRec',
)
SHARES = (1.0, 0.5, 0.25, 0.1)
MISSING = (0.0, 0.25, 0.5, 0.75)
CODEBOOK_SIZES = (16, 64, 256, 1024)
EPOCHS = 60
#: With five tokens per modality, a mean has as many parameters as a token network with four. Each
#: slot has K d parameters in its table and, with an MLP, d^2 parameters in its part of the MLP.
EQUAL: Options = {'tokenizer.num_tokens': 5}
#: Without the high-order part.
TWO_ORDERS: Options = {'items.num_layers': 0}
#: Tokenizers, all with the same number of tokens.
QUANTIZERS: dict[str, Options] = {
    'opq': {'tokenizer.method': 'opq'},
    'pq': {'tokenizer.method': 'pq'},
    'rq': {'tokenizer.method': 'rq'},
    'balanced opq': {'tokenizer.method': 'opq', 'tokenizer.balance': 0.01},
    'balanced rq': {'tokenizer.method': 'rq', 'tokenizer.balance': 0.01},
    'rqvae': {'tokenizer.method': 'rqvae'},
    'letter': {'tokenizer.method': 'letter'},
}
SOFT = 'motor_geo.nn.SoftTokenEncoder'
INTERACTION = 'motor_geo.nn.TokenInteractionEncoder'
#: Token networks, with options that give each of them the number of parameters of the network of
#: the paper for two modalities, to within a tenth.
INTERACTIONS: dict[str, tuple[str, Options]] = {
    'specific': ('specific', {}),
    'mean': ('mean', EQUAL),
    'two orders': ('specific', {**EQUAL, **TWO_ORDERS}),
    'cross': (INTERACTION, {**EQUAL, 'items.mode': 'cross'}),
    'low rank': (INTERACTION, {'items.mode': 'low_rank', 'items.num_layers': 1, 'items.rank': 8}),
    'attention': (INTERACTION, {**EQUAL, 'items.mode': 'attention'}),
    'self-attention': (INTERACTION, {**EQUAL, 'items.mode': 'self_attention'}),
    'product': (INTERACTION, {**EQUAL, 'items.mode': 'product'}),
}
#: The options of configs/items/two-orders.yaml. Reports call this variant "recommended".
RECOMMENDED: Options = {'behavior': True, **TWO_ORDERS, 'items.weight_init': 1.0}
#: Choices that the paper leaves open for the token network, tried on validation.
OPEN: list[Options] = [
    TWO_ORDERS,
    {**TWO_ORDERS, 'items.weight_init': 1.0},
    {'items.dropout': 0.5},
    {'items.mlp_gain': 0.1, 'items.dropout': 0.5},
    {**TWO_ORDERS, 'tokenizer.whiten': True},
]


def backbones(
    models: Sequence[str] | None, items: Sequence[str], baselines: Sequence[str] | None = ()
) -> Callable[[ExperimentOptions], list[Variant]]:
    r"""Every backbone with every item representation, and baselines.

    Args:
        models: The backbones. :obj:`None` stands for all of them.
        items: The item representations.
        baselines: The baselines. :obj:`None` stands for all of them.
            (default: :obj:`()`)
    """

    def variants(on: ExperimentOptions) -> list[Variant]:
        from motor_geo.pipeline.config import NO_ITEMS

        out = []
        for data in on.data:
            for model in on.baselines(baselines):
                out.append(on.variant((data, model, NO_ITEMS), model, NO_ITEMS))
            for model in on.choose(models, data):
                for form in items:
                    if form == 'id' or on.modalities[data]:
                        out.append(on.variant((data, model, form), model, form))
        return out

    return variants


def parts(on: ExperimentOptions) -> list[Variant]:
    r"""IDs, tokens of single modalities, and simpler item encoders."""
    out = []
    for data in on.content:
        for model in on.choose(('LightGCN', 'VBPR', 'SLMRec'), data):
            out.append(on.variant((data, model, 'id'), model, 'id'))
            names = on.modalities[data]
            for name in names if len(names) > 1 else []:
                options = {'tokenizer.modalities': [name]}
                out.append(on.variant((data, model, name), model, 'specific', options))
            for form in ('mean', 'linear', 'specific'):
                out.append(on.variant((data, model, form), model, form))
    return out


def token_counts(on: ExperimentOptions) -> list[Variant]:
    out = []
    for data in on.content:
        for model in on.choose(('LightGCN', 'VBPR', 'SLMRec', 'FREEDOM'), data):
            out.append(on.variant((data, model, 'id'), model, 'id'))
            for count in (2, 4, 8, 16):
                options = {'tokenizer.num_tokens': count}
                label = (data, model, str(count))
                out.append(on.variant(label, model, 'specific', options))
    return out


def codebooks(on: ExperimentOptions) -> list[Variant]:
    r"""Tokens with codebooks of several sizes. IDs are the same for all sizes."""
    out = []
    for data in on.content:
        for model in on.choose(('LightGCN', 'VBPR', 'SLMRec'), data):
            for size in CODEBOOK_SIZES:
                out.append(on.variant((data, model, 'id', str(size)), model, 'id'))
            for count, size in itertools.product((2, 4, 8), CODEBOOK_SIZES):
                options = {'tokenizer.num_tokens': count, 'tokenizer.codebook_size': size}
                label = (data, model, f'{count} tokens', str(size))
                out.append(on.variant(label, model, 'specific', options))
    return out


def lirdrec_parts(on: ExperimentOptions) -> list[Variant]:
    variants: dict[str, Options] = {
        'no_pwc': {'model.pwc': False},
        'no_dct': {'model.dct': 'none'},
        'full': {},
    }
    return [
        on.variant((data, 'LIRDRec', name), 'LIRDRec', 'id', options)
        for data in on.content
        for name, options in variants.items()
    ]


def lirdrec_modalities(on: ExperimentOptions) -> list[Variant]:
    out = []
    for data, names in on.content.items():
        for name in names if len(names) > 1 else []:
            options = {'data.modalities': [name]}
            out.append(on.variant((data, 'LIRDRec', name), 'LIRDRec', 'id', options))
        out.append(on.variant((data, 'LIRDRec', 'full'), 'LIRDRec', 'id'))
    return out


def quick_start(on: ExperimentOptions) -> list[Variant]:
    options = {'trainer.epochs': EPOCHS, 'trainer.patience': EPOCHS}
    out = []
    for data in on.content:
        for model in on.choose(('LATTICE', 'BM3', 'FREEDOM', 'LIRDRec'), data):
            out.append(on.variant((data, model, 'id'), model, 'id', options, [{}]))
        for model in on.choose(('FREEDOM',), data):
            label = (data, model, 'specific')
            out.append(on.variant(label, model, 'specific', options, [{}]))
    return out


def cold_start(on: ExperimentOptions) -> list[Variant]:
    options = {'data.split': 'cold_item'}
    out = []
    for data in on.content:
        for model in on.choose(('VBPR', 'LATTICE', 'FREEDOM', 'LIRDRec'), data):
            out.append(on.variant((data, model, 'id'), model, 'id', options, [{}]))
        for model in on.choose(('LightGCN', 'FREEDOM'), data):
            for form in ('features', 'mean', 'specific'):
                out.append(on.variant((data, model, form), model, form, options, [{}]))
            label, more = (data, model, 'recommended'), {**options, **RECOMMENDED}
            out.append(on.variant(label, model, 'specific', more, [{}]))
    return out


def sensitivity(on: ExperimentOptions) -> list[Variant]:
    return [
        on.variant(
            (data, f'{weight:g}', f'{decay:g}'),
            'LIRDRec',
            'id',
            {'model.reg_weight': weight, 'model.decay_weight': decay},
            [{}],
        )
        for data in on.content
        for weight in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
        for decay in (0.7, 0.8, 0.9, 0.95, 0.99)
    ]


def layers(on: ExperimentOptions) -> list[Variant]:
    return [
        on.variant(
            (data, 'LIRDRec', str(count)), 'LIRDRec', 'id', {'model.num_layers': count}, [{}]
        )
        for data in on.content
        for count in (1, 2, 3, 4)
    ]


def quantizers(on: ExperimentOptions) -> list[Variant]:
    r"""Tokenizers with equal numbers of tokens and codes."""
    out = []
    for data in on.content:
        for model in on.choose(('LightGCN',), data):
            for form in ('specific', 'mean'):
                for name, options in QUANTIZERS.items():
                    label = (data, model, form, name)
                    out.append(on.variant(label, model, form, options))
                options = {'tokenizer.num_near': 4, 'items.mode': form}
                label = (data, model, form, 'soft opq')
                out.append(on.variant(label, model, SOFT, options))
    return out


def interactions(on: ExperimentOptions) -> list[Variant]:
    r"""Token networks with similar numbers of item parameters."""
    out = []
    for data in on.content:
        for model in on.choose(('LightGCN',), data):
            out.append(on.variant((data, model, 'id'), model, 'id'))
            for name, (items, options) in INTERACTIONS.items():
                out.append(on.variant((data, model, name), model, items, options))
    return out


def missing(on: ExperimentOptions) -> list[Variant]:
    return [
        on.variant(
            (data, model, form, f'{share:g}'), model, form, {'data.missing_share': share}, [{}]
        )
        for data in on.content
        for model in on.choose(('LightGCN',), data)
        for form in ('id', 'features', 'mean', 'specific')
        for share in MISSING
        if form != 'id' or share == 0  # IDs do not read features.
    ]


def sparsity(on: ExperimentOptions) -> list[Variant]:
    r"""Decreasing shares of training interactions. Variants with other numbers
    of tokens or with single modalities show what shifts the share at which
    tokens and IDs are level.
    """
    out = []
    for data, names in on.modalities.items():
        forms: list[tuple[str, str, Options]] = [('id', 'id', {})]
        if names:
            forms += [(form, form, {}) for form in ('features', 'mean', 'specific', 'agnostic')]
        forms.append(('mean + behavior', 'mean', {'behavior': True}))
        forms.append(('recommended', 'specific', RECOMMENDED))
        if names:
            forms += [
                (f'specific, {count} tokens', 'specific', {'tokenizer.num_tokens': count})
                for count in (2, 16)
            ]
        forms += [
            (f'specific, {name}', 'specific', {'tokenizer.modalities': [name]})
            for name in (names if len(names) > 1 else ())
        ]
        for model in on.choose(('LightGCN',), data):
            for (form, items, own), share in itertools.product(forms, SHARES):
                options = {**own, 'data.train_share': share}
                label = (data, model, form, f'{share:g}')
                out.append(on.variant(label, model, items, options))
    return out


def controls(on: ExperimentOptions) -> list[Variant]:
    r"""Contributions of content and of the token network. All variants have the
    same number of settings. A mean has so many tokens that its number of
    parameters matches that of the full network.
    """
    out = []
    for data in on.data:
        content = bool(on.modalities[data])
        for model in on.choose(('LightGCN',), data):
            forms: list[tuple[str, str, Options]] = [('id', 'id', {})]
            if content:
                forms += [
                    ('features', 'features', {}),
                    ('mean', 'mean', EQUAL),
                    ('full', 'specific', {}),
                ]
                forms += [(f'full, {in_words(options)}', 'specific', options) for options in OPEN]
                forms.append(('two orders, agnostic', 'agnostic', {**EQUAL, **TWO_ORDERS}))
            more = {'behavior': True}
            forms += [
                ('mean + behavior', 'mean', {**more, **EQUAL}),
                ('full + behavior', 'specific', more),
            ]
            forms += [
                (f'full + behavior, {in_words(options)}', 'specific', {**more, **options})
                for options in OPEN
            ]
            two = {**more, **EQUAL, **TWO_ORDERS}
            forms.append(('two orders + behavior, agnostic', 'agnostic', two))
            for name, items, options in forms:
                out.append(on.variant((data, model, name), model, items, options))
    return out


def recommended(on: ExperimentOptions) -> list[Variant]:
    r"""The token network that was best in :func:`controls`, compared with simpler
    item encoders. All variants have up to six settings.
    """
    out = []
    for data in on.data:
        for model in on.choose(('LightGCN',), data):
            deep = 'num_layers' in inspect.signature(backbone(model)).parameters
            deeper: Options = {'model.num_layers': 3} if deep else {'trainer.lr': 3e-3}
            own, whiten = on.settings(model), {'tokenizer.whiten': True}
            plain = [*own, *({**setting, **deeper} for setting in own)]
            tokens = [*own, whiten, deeper, {**whiten, 'tokenizer.num_tokens': 2}]
            forms = [
                ('id', 'id', {}, plain),
                ('recommended', 'specific', RECOMMENDED, tokens),
                ('mean + behavior', 'mean', {'behavior': True, **EQUAL}, tokens),
            ]
            if on.modalities[data]:
                forms += [
                    ('specific', 'specific', {}, tokens),
                    ('mean', 'mean', EQUAL, tokens),
                    ('features', 'features', {}, plain),
                ]
            for name, items, options, settings in forms:
                label = (data, model, name)
                out.append(on.variant(label, model, items, options, settings))
    return out


#: The baselines of :func:`recipe`.
BASELINES = ('Popularity', 'ItemKNN', 'RP3beta', 'EASE', 'IALS')


def recipe(on: ExperimentOptions) -> list[Variant]:
    r"""Tokens, features and IDs in closed form, and baselines. The baselines have
    the same number of settings as TokenALS.
    """
    from motor_geo.pipeline.config import NO_ITEMS

    out = []
    for data in on.data:
        settings = on.settings('TokenALS')
        solved = on.models is None or 'TokenALS' in on.models
        for name in ('id', 'recommended') if solved else ():
            out.append(on.variant((data, name), 'TokenALS', name, {}, settings))
            usual = [{'model.unobserved': 3.0, 'model.reg_weight': None}]
            out.append(on.variant((data, f'{name}, untuned'), 'TokenALS', name, {}, usual))
        for name in on.baselines(BASELINES):
            out.append(on.variant((data, name), name, NO_ITEMS, {}, on.settings(name)))
        if solved and on.modalities[data]:
            out.append(on.variant((data, 'features'), 'TokenALS', 'features', {}, settings))
    return out


def whole(on: ExperimentOptions) -> list[Variant]:
    r"""Graph backbones with least squares over all pairs. The usual weight comes
    first, followed by the settings that suit most data sets.
    """
    settings: list[Options] = [
        {'loss.unobserved': unobserved, 'loss.reg_weight': weight}
        for unobserved, weight in (
            *((3.0, None), (1.0, 0.03), (1.0, 0.1), (10.0, 0.03), (3.0, 0.03), (3.0, 0.01)),
            *((10.0, 0.01), (3.0, 0.1), (1.0, 0.01), (10.0, 0.1)),
        )
    ]
    out = []
    for data in on.data:
        for model in on.choose(('LightGCN',), data):
            for items in ('id', 'recommended', *(('features',) if on.modalities[data] else ())):
                options: Options = {'loss': 'whole', 'trainer.lr': 0.01, 'trainer.batch_size': 8192}
                out.append(on.variant((data, model, items), model, items, options, settings))
    return out


def nothing(on: ExperimentOptions) -> list[Variant]:
    return []
