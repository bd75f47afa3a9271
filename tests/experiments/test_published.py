import math
from pathlib import Path

import pytest
import yaml

import motor_geo
from benchmarks.backbones import CODEBOOK_SIZE, MUSIC, NUM_TOKENS, num_parameters
from motor_geo.nn.models import MODELS

PAPERS = ('motor', 'lirdrec', 'mmrec')
CHECKS = {'sparsity', 'percentage', 'repeated', 'ndcg_gain', 'other_runs', 'claim'}


@pytest.fixture(scope='module')
def published():
    folder = Path(motor_geo.__file__).with_name('experiments')
    return yaml.safe_load((folder / 'published.yaml').read_text())


@pytest.fixture(scope='module')
def known(published):
    r"""Entries that do not fit, by check and place."""

    def find(check):
        found = [entry for entry in published['inconsistencies'] if entry['check'] == check]
        return {tuple(entry['where']): entry for entry in found}

    return find


def rows(table):
    r"""Data set, backbone, item form and values."""
    for dataset, models in table['results'].items():
        for model, forms in models.items():
            for form, values in forms.items() if isinstance(forms, dict) else [('', forms)]:
                if values is not None:
                    yield dataset, model, form, dict(zip(table['columns'], values))


def gain(new, old):
    return 100 * (new / old - 1)


def test_form_of_inconsistencies(published):
    for entry in published['inconsistencies']:
        assert entry['check'] in CHECKS and entry['where'][0] in PAPERS
        assert {'check', 'where', 'printed', 'recomputed'} <= set(entry)
        assert set(entry) <= {'check', 'where', 'printed', 'recomputed', 'note'}


@pytest.mark.parametrize('paper', PAPERS)
def test_tables_are_whole(published, paper):
    table = published[paper]['table2']
    seen = {}
    for dataset, model, form, values in rows(table):
        seen.setdefault(dataset, set()).add((model, form))
        assert len(values) == len(table['columns'])
        assert 0 < values['ndcg@20'] < values['recall@20'] < 1
        for metric in ('recall', 'ndcg'):
            cuts = [values[key] for key in table['columns'] if key.startswith(metric)]
            assert cuts == sorted(cuts)
    sizes = {len(entries) for entries in seen.values()}
    assert sizes == {'motor': {27}, 'lirdrec': {12, 10}, 'mmrec': {11, 10}}[paper]
    assert set(seen) <= set(published[paper]['table1']['datasets'])
    unknown = {model for models in seen.values() for model, _ in models} - set(MODELS)
    assert unknown <= {'LIRDRec_MLLM', 'DualGNN', 'ADDVAE'}


def test_sparsity(published, known):
    wrong = {}
    for paper in PAPERS:
        table = published[paper]['table1']
        for name, row in table['datasets'].items():
            value = 100 * (1 - row['interactions'] / (row['users'] * row['items']))
            value = round(value, table['sparsity_digits'])
            if value != row['sparsity']:
                wrong[paper, 'table1', name] = (row['sparsity'], value)
    assert wrong == {
        place: (entry['printed'], entry['recomputed']) for place, entry in known('sparsity').items()
    }


def test_improvement(published):
    table = published['motor']['table2']
    for dataset, models in table['improvement'].items():
        for model, forms in models.items():
            old = table['results'][dataset][model]['id'][1]
            for form, printed in forms.items():
                new = table['results'][dataset][model][form][1]
                assert gain(new, old) == pytest.approx(printed, abs=0.00501), (dataset, model, form)


def test_ndcg_gain(published, known):
    r"""A hit at rank r adds 1 / log2(r + 1) / IDCG to NDCG, and 1 / n to
    Recall, where IDCG is at most n and does not grow from 10 to 20 for users
    with at most ten test items.
    """
    wrong = {}
    for paper in PAPERS:
        for dataset, model, form, values in rows(published[paper]['table2']):
            growth = values['ndcg@20'] - values['ndcg@10']
            least = (values['recall@20'] - values['recall@10']) / math.log2(21)
            if growth + 1e-4 < least - 1e-4 / math.log2(21):  # Four values are rounded.
                wrong[paper, 'table2', dataset, model, form] = (round(growth, 4), round(least, 4))
    assert wrong == {
        place: (entry['printed'], entry['recomputed'])
        for place, entry in known('ndcg_gain').items()
    }


def test_buckets(published, known):
    table = published['motor']['table3']
    num_items = published['motor']['table1']['datasets']['Baby']['items']
    assert sum(table['items']) == num_items
    wrong = {}
    for name, count, printed in zip(table['buckets'], table['items'], table['percentage']):
        if (share := round(100 * count / num_items, 2)) != printed:
            wrong['motor', 'table3', name] = (printed, share)
    assert wrong == {
        place: (entry['printed'], entry['recomputed'])
        for place, entry in known('percentage').items()
    }


def test_tables_2_and_4_of_motor_agree(published, known):
    tables = published['motor']
    wrong = {}
    for dataset, model, form, values in rows(tables['table4']):
        if form in ('id', 'specific'):
            _, recall, _, ndcg = tables['table2']['results'][dataset][model][form]
            if (recall, ndcg) != tuple(values.values()):
                place = ('motor', 'table4', dataset, model, form)
                wrong[place] = (list(values.values()), [recall, ndcg])
    found = {place: entry for place, entry in known('repeated').items() if place[0] == 'motor'}
    assert wrong == {
        place: (entry['printed'], entry['recomputed']) for place, entry in found.items()
    }
    layer = tables['table2']['results']['Office']['LayerGCN']['id']
    assert [layer[1], layer[3]] == next(iter(wrong.values()))[0]


def test_parameters_saved(published):
    figure = published['motor']['figure4']
    sizes = published['motor']['table1']['datasets'][figure['dataset']]
    assert MUSIC == (sizes['users'], sizes['items'], published['motor']['setup']['features'])
    assert NUM_TOKENS == figure['num_tokens']
    assert CODEBOOK_SIZE == published['motor']['setup']['codebook_size']
    for model, printed in figure['parameters_saved'].items():
        saved = 100 * (1 - num_parameters(model, 'specific') / num_parameters(model, 'id'))
        assert round(saved, 1) == printed, model


def test_token_rows_per_item(published, known):
    entry = known('claim')['motor', 'section 3.7.2', 'item parameters']
    inside = set()
    for dataset, shares in entry['recomputed'].items():
        num_items = published['motor']['table1']['datasets'][dataset]['items']
        for num_tokens, share in shares.items():
            assert share == round(100 * 2 * num_tokens * CODEBOOK_SIZE / num_items, 1)
        inside.add(tuple(num_tokens for num_tokens, share in shares.items() if 10 <= share <= 20))
    assert inside == {(8,)}


def test_gains_of_figure_4(published):
    r"""The best number of tokens is four in one row of table 2 at most."""
    figure, table = published['motor']['figure4'], published['motor']['table2']
    best = {}
    for model in figure['improvement']:
        forms = table['results'][figure['dataset']][model]
        best[model] = round(gain(forms['specific'][1], forms['id'][1]), 1)
    assert best.pop('LightGCN') == figure['improvement']['LightGCN']
    assert all(value > figure['improvement'][model] for model, value in best.items())


def test_mean_gains_of_lirdrec(published):
    table = published['lirdrec']['table2']
    ndcg = {}
    for dataset, model, _, values in rows(table):
        ndcg.setdefault(dataset, {})[model] = values['ndcg@20']
    for entry in table['ndcg@20_gain']:
        gains = []
        for values in ndcg.values():
            baselines = [v for m, v in values.items() if not m.startswith('LIRDRec')]
            old = values.get(entry['over'], max(baselines))
            gains.append(gain(values[entry['model']], old))
        assert round(sum(gains) / len(gains), 2) == entry['printed']

    table = published['lirdrec']['table3']
    entry = table['ndcg@20_gain']
    gains = [gain(r[entry['model']][1], r[entry['over']][1]) for r in table['results'].values()]
    assert round(sum(gains) / len(gains), 2) == entry['printed']


def test_ablations_of_lirdrec_repeat_the_full_model(published):
    paper = published['lirdrec']
    for table in ('table3', 'table4'):
        for dataset, row in paper[table]['results'].items():
            _, recall, _, ndcg = paper['table2']['results'][dataset]['LIRDRec']
            assert row['full'] == [recall, ndcg]


def test_repeated_row_of_lirdrec(published, known):
    results = published['lirdrec']['table2']['results']
    assert results['Clothing']['SLMRec'][1:] == results['Baby']['SLMRec'][1:]
    assert (
        results['Clothing']['SLMRec'][1:]
        == (known('repeated')['lirdrec', 'table2', 'Clothing', 'SLMRec']['printed'])
    )


def test_rows_that_lirdrec_shares_with_the_framework(published, known):
    framework = {(d, m): v for d, m, _, v in rows(published['mmrec']['table2'])}
    differs = [
        [dataset, model]
        for dataset, model, _, values in rows(published['lirdrec']['table2'])
        if (dataset, model) in framework
        and any(framework[dataset, model][key] != value for key, value in values.items())
    ]
    assert differs == known('other_runs')['lirdrec', 'table2']['printed']
    entry = known('other_runs')['lirdrec', 'table2', 'LGMRec']
    (logs,) = [row['results'] for row in published['others'] if row['model'] == 'LGMRec']
    table = published['lirdrec']['table2']['results']
    assert entry['printed'] == {dataset: table[dataset]['LGMRec'][1] for dataset in logs}
    assert entry['recomputed'] == {dataset: values[1] for dataset, values in logs.items()}


def test_claims(published):
    motor = published['motor']
    recall = {}
    for dataset, model, form, values in rows(motor['table2']):
        recall[dataset, model, form] = values['recall@20']
    improvement = motor['table2']['improvement']

    def least(model, dataset):
        return min(improvement[dataset][model].values())

    assert least('BPR', 'Office') > 100 > least('BPR', 'Music')
    for model in ('LightGCN', 'LayerGCN'):
        assert least(model, 'Music') > 50 and least(model, 'Office') > 50
        assert max(improvement['Baby'][model].values()) < 50
    for dataset in motor['table1']['datasets']:
        for model, better in [
            *dict.fromkeys(('BPR', 'MGCN'), 'agnostic').items(),
            *dict.fromkeys(('GRCN', 'SLMRec', 'FREEDOM'), 'specific').items(),
        ]:
            pair = {form: recall[dataset, model, form] for form in ('specific', 'agnostic')}
            assert max(pair, key=pair.get) == better, (dataset, model)

    worse = [
        (dataset, model, form)
        for dataset, models in motor['table4']['results'].items()
        for model, forms in models.items()
        for form, values in forms.items()
        if form != 'id' and any(new <= old for new, old in zip(values, forms['id']))
    ]
    assert worse == [('Office', 'LightGCN', 'image')]

    lirdrec = published['lirdrec']
    for dataset, row in lirdrec['table4']['results'].items():
        other = lirdrec['table3']['results'][dataset]['no_dct']
        assert row['text'][0] > other[0]
        assert (row['text'][1] > other[1]) == (dataset != 'Baby')
