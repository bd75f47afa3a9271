r"""Who competes in the experiments, and what is tried for each on validation."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from motor_geo.nn.models import MODELS

Options = dict[str, Any]
MOTOR = ('BPR', 'LightGCN', 'LayerGCN', 'VBPR', 'GRCN', 'SLMRec', 'BM3', 'FREEDOM', 'MGCN')
LIRDREC = ('BPR', 'LightGCN', 'VBPR', 'GRCN', 'LATTICE', 'SLMRec', 'MICRO', 'BM3', 'FREEDOM') + (
    'LGMRec',
    'LIRDRec',
)
#: What runs have in common unless the call says otherwise.
BASE: Options = {'tokenizer.center': True, 'tokenizer.normalize': True}
SHARES = (1.0, 0.5, 0.25, 0.1)
MISSING = (0.0, 0.25, 0.5, 0.75)
EPOCHS = 60


def product(**choices: Sequence[Any]) -> list[Options]:
    r"""All combinations of dotted options, whose dots are spelled as two
    underscores.
    """
    keys = [key.replace('__', '.') for key in choices]
    return [dict(zip(keys, values)) for values in itertools.product(*choices.values())]


#: What is tried of a backbone, whatever its items: its most sensitive option. The
#: first value is that of contenders for which nothing is tried. Tokens, which items
#: share, ask for a stronger regulariser than the grids of the papers hold.
TRIED: dict[str, list[Options]] = {
    'BPR': product(model__reg_weight=[1e-1, 1.0, 1e-2]),
    'LightGCN': product(model__reg_weight=[1e-4, 1e-1, 5e-1]),
    'LayerGCN': product(model__reg_weight=[1e-3, 1e-2, 1e-4]),
    'VBPR': product(model__reg_weight=[1e-1, 1.0, 1e-2]),
    'GRCN': product(model__reg_weight=[1e-3, 1e-2, 1e-4]),
    'SLMRec': product(model__ssl_weight=[0.1, 0.01, 1.0]),
    'BM3': product(model__reg_weight=[1e-1, 10.0, 1.0]),
    'FREEDOM': product(model__reg_weight=[1e-3, 1e-4, 0.0]),
    'MGCN': product(model__reg_weight=[1e-4, 1e-2, 1e-1]),
    'LIRDRec': product(model__reg_weight=[1e-3, 1e-2, 1e-4]),
    'LATTICE': product(model__reg_weight=[1e-4, 1e-3, 1e-5]),
    'MICRO': product(model__reg_weight=[1e-4, 1e-3, 1e-5]),
    'LGMRec': product(model__alpha=[0.3, 0.1, 0.6]),
    'MMGCN': product(trainer__lr=[1e-3, 1e-2, 1e-4]),
}
#: Tokens per modality with which a mean has as many parameters as a token network
#: with four: a slot has K d of its table and, with an MLP, d^2 of its part of that.
EQUAL: Options = {'tokenizer.num_tokens': 5}
#: Without the high-order part.
TWO_ORDERS: Options = {'items.num_layers': 0}
#: As in configs/items/recommended.yaml.
RECOMMENDED: Options = {'behavior': True, **TWO_ORDERS, 'items.weight_init': 1.0}
#: What the paper leaves open of the token network, tried on validation.
OPEN: list[Options] = [
    TWO_ORDERS,
    {**TWO_ORDERS, 'items.weight_init': 1.0},
    {'items.dropout': 0.5},
    {'items.mlp_gain': 0.1, 'items.dropout': 0.5},
    {**TWO_ORDERS, 'tokenizer.whiten': True},
]


def in_words(setting: Mapping[str, Any]) -> str:
    r"""A setting in words."""
    return ', '.join(f'{key.split(".")[-1]} {value}' for key, value in setting.items())


class Contender(NamedTuple):
    r"""Who competes.

    Args:
        label: Data set, backbone and so on: the first columns of a table.
        options: Options of its runs, by dotted name.
        settings: Further options that are tried on validation with the first
            seed; the best ones are trained with every seed.
    """

    label: tuple[str, ...]
    options: Options
    settings: list[Options]


class Setup(NamedTuple):
    r"""What an experiment is carried out on.

    Args:
        data: Folders of data sets by name.
        modalities: Modalities of each data set.
        models: Backbones; :obj:`None` are those of the paper.
        effort: Settings that are tried for every contender, at most.
        options: Options of all runs, by dotted name.
        sizes: Users and items of each data set.
        grid: What is tried of every backbone in place of :obj:`TRIED`.
    """

    data: dict[str, str]
    modalities: dict[str, list[str]]
    models: tuple[str, ...] | None = None
    effort: int = 3
    options: Options = {}
    sizes: dict[str, tuple[int, int]] = {}
    grid: tuple[Options, ...] = ()

    @property
    def content(self) -> dict[str, list[str]]:
        r"""Modalities of the data sets that have any."""
        return {data: names for data, names in self.modalities.items() if names}

    def tried(self, model: str) -> list[Options]:
        r"""What is tried of a backbone."""
        return list(self.grid) or TRIED[model]

    def choose(self, models: Sequence[str], data: str) -> list[str]:
        r"""The backbones that can be trained on a data set."""
        count = len(self.modalities[data])
        wanted = self.models or models
        return [name for name in wanted if MODELS[name].min_modalities <= count]

    def contender(
        self,
        label: Iterable[str],
        model: str,
        items: str,
        options: Options | None = None,
        settings: list[Options] | None = None,
    ) -> Contender:
        label = tuple(label)
        tried = self.tried(model)
        settings = tried if settings is None else settings
        fixed = {'data': self.data[label[0]], 'model': model, 'items': items, **BASE}
        fixed.update(tried[0])
        fixed.update(options or {})
        return Contender(label, {**fixed, **self.options}, settings[: max(1, self.effort)])


def backbones(models: Sequence[str], items: Sequence[str]) -> Callable[[Setup], list[Contender]]:
    r"""Every backbone with every form of items."""

    def contenders(setup: Setup) -> list[Contender]:
        return [
            setup.contender((data, model, form), model, form)
            for data in setup.data
            for model in setup.choose(models, data)
            for form in items
            if form == 'id' or setup.modalities[data]
        ]

    return contenders


def parts(setup: Setup) -> list[Contender]:
    r"""IDs, tokens of single modalities, and plainer decoders."""
    out = []
    for data in setup.content:
        for model in setup.choose(('LightGCN', 'VBPR', 'SLMRec'), data):
            out.append(setup.contender((data, model, 'id'), model, 'id'))
            names = setup.modalities[data]
            for name in names if len(names) > 1 else []:
                options = {'tokenizer.modalities': [name]}
                out.append(setup.contender((data, model, name), model, 'specific', options))
            for form in ('mean', 'linear', 'specific'):
                out.append(setup.contender((data, model, form), model, form))
    return out


def token_counts(setup: Setup) -> list[Contender]:
    out = []
    for data in setup.content:
        for model in setup.choose(('LightGCN', 'VBPR', 'SLMRec', 'FREEDOM'), data):
            out.append(setup.contender((data, model, 'id'), model, 'id'))
            for count in (2, 4, 8, 16):
                options = {'tokenizer.num_tokens': count}
                label = (data, model, str(count))
                out.append(setup.contender(label, model, 'specific', options))
    return out


def lirdrec_parts(setup: Setup) -> list[Contender]:
    variants: dict[str, Options] = {
        'no_pwc': {'model.pwc': False},
        'no_dct': {'model.dct': 'none'},
        'full': {},
    }
    return [
        setup.contender((data, 'LIRDRec', name), 'LIRDRec', 'id', options)
        for data in setup.content
        for name, options in variants.items()
    ]


def lirdrec_modalities(setup: Setup) -> list[Contender]:
    out = []
    for data, names in setup.content.items():
        for name in names if len(names) > 1 else []:
            options = {'data.modalities': [name]}
            out.append(setup.contender((data, 'LIRDRec', name), 'LIRDRec', 'id', options))
        out.append(setup.contender((data, 'LIRDRec', 'full'), 'LIRDRec', 'id'))
    return out


def quick_start(setup: Setup) -> list[Contender]:
    options = {'trainer.epochs': EPOCHS, 'trainer.patience': EPOCHS}
    out = []
    for data in setup.content:
        for model in setup.choose(('LATTICE', 'BM3', 'FREEDOM', 'LIRDRec'), data):
            out.append(setup.contender((data, model, 'id'), model, 'id', options, [{}]))
        for model in setup.choose(('FREEDOM',), data):
            label = (data, model, 'specific')
            out.append(setup.contender(label, model, 'specific', options, [{}]))
    return out


def cold_start(setup: Setup) -> list[Contender]:
    options = {'data.split': 'cold_item'}
    out = []
    for data in setup.content:
        for model in setup.choose(('VBPR', 'LATTICE', 'FREEDOM', 'LIRDRec'), data):
            out.append(setup.contender((data, model, 'id'), model, 'id', options, [{}]))
        for model in setup.choose(('LightGCN', 'FREEDOM'), data):
            for form in ('features', 'mean', 'specific'):
                out.append(setup.contender((data, model, form), model, form, options, [{}]))
            label, more = (data, model, 'recommended'), {**options, **RECOMMENDED}
            out.append(setup.contender(label, model, 'specific', more, [{}]))
    return out


def sensitivity(setup: Setup) -> list[Contender]:
    return [
        setup.contender(
            (data, f'{weight:g}', f'{decay:g}'),
            'LIRDRec',
            'id',
            {'model.reg_weight': weight, 'model.decay_weight': decay},
            [{}],
        )
        for data in setup.content
        for weight in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
        for decay in (0.7, 0.8, 0.9, 0.95, 0.99)
    ]


def layers(setup: Setup) -> list[Contender]:
    return [
        setup.contender(
            (data, 'LIRDRec', str(count)), 'LIRDRec', 'id', {'model.num_layers': count}, [{}]
        )
        for data in setup.content
        for count in (1, 2, 3, 4)
    ]


def quantizers(setup: Setup) -> list[Contender]:
    out = []
    for data in setup.content:
        for model in setup.choose(('LightGCN',), data):
            for form in ('specific', 'mean'):
                for method in ('opq', 'pq', 'rq'):
                    options = {'tokenizer.method': method}
                    label = (data, model, form, method)
                    out.append(setup.contender(label, model, form, options))
    return out


def missing(setup: Setup) -> list[Contender]:
    return [
        setup.contender(
            (data, model, form, f'{share:g}'), model, form, {'data.missing_share': share}, [{}]
        )
        for data in setup.content
        for model in setup.choose(('LightGCN',), data)
        for form in ('id', 'features', 'mean', 'specific')
        for share in MISSING
        if form != 'id' or share == 0  # Which does not read them.
    ]


def sparsity(setup: Setup) -> list[Contender]:
    r"""Less and less training interactions, and what moves the share at which
    tokens and IDs are level: their number, and the modalities.
    """
    out = []
    for data, names in setup.modalities.items():
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
        for model in setup.choose(('LightGCN',), data):
            for (form, items, own), share in itertools.product(forms, SHARES):
                options = {**own, 'data.train_share': share}
                label = (data, model, form, f'{share:g}')
                out.append(setup.contender(label, model, items, options))
    return out


def controls(setup: Setup) -> list[Contender]:
    r"""What content adds, and what the token network adds: as many settings
    for everyone, and so many tokens for a mean that it has the parameters of a
    full network.
    """
    out = []
    for data in setup.data:
        content = bool(setup.modalities[data])
        for model in setup.choose(('LightGCN',), data):
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
                out.append(setup.contender((data, model, name), model, items, options))
    return out


def recommended(setup: Setup) -> list[Contender]:
    r"""The token network that the controls speak for, against plain ones: up to
    six settings for everyone.
    """
    out = []
    for data in setup.data:
        for model in setup.choose(('LightGCN',), data):
            deep = 'num_layers' in inspect.signature(MODELS[model]).parameters
            deeper: Options = {'model.num_layers': 3} if deep else {'trainer.lr': 3e-3}
            tried, whiten = setup.tried(model), {'tokenizer.whiten': True}
            plain = [*tried, *({**setting, **deeper} for setting in tried)]
            tokens = [*tried, whiten, deeper, {**whiten, 'tokenizer.num_tokens': 2}]
            forms = [
                ('id', 'id', {}, plain),
                ('recommended', 'specific', RECOMMENDED, tokens),
                ('mean + behavior', 'mean', {'behavior': True, **EQUAL}, tokens),
            ]
            if setup.modalities[data]:
                forms += [
                    ('specific', 'specific', {}, tokens),
                    ('mean', 'mean', EQUAL, tokens),
                    ('features', 'features', {}, plain),
                ]
            for name, items, options, settings in forms:
                label = (data, model, name)
                out.append(setup.contender(label, model, items, options, settings))
    return out


def nothing(setup: Setup) -> list[Contender]:
    return []
