r"""Generates the page that says when tokens beat IDs, and its figure, from the reports, by
:obj:`python -m benchmarks.when`.
"""

from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.findings import DOCS, Reports
from benchmarks.text import markdown
from motor_geo.report.document import Figure, Series
from motor_geo.report.plot import svg
from motor_geo.utils.files import atomic_write

FIGURE = osp.join('_static', 'when-tokens.svg')


class Source(NamedTuple):
    r"""A data set, and the reports with LightGCN and with baselines on it."""

    name: str
    per_user: float
    report: str
    data: str
    baselines: str


SOURCES = (
    Source('lastfm, thinned', 3.2, 'table2-thin-lastfm', 'lastfm', 'recipe-thin-lastfm'),
    Source('ml1m, thinned', 3.2, 'table2-thin-ml1m', 'ml1m', 'recipe-thin-ml1m'),
    Source('tiktok', 7, 'recommended-tiktok', 'tiktok', 'recipe-tiktok'),
    Source('sports', 8, 'recommended-sports', 'sports', 'recipe-sports'),
    Source('lastfm', 30, 'recommended', 'lastfm', 'recipe-lastfm'),
    Source('ml1m', 165, 'recommended-ml1m', 'ml1m', 'recipe-ml1m'),
)
#: The item representations that are compared with IDs.
ITEMS = {'content': 'specific', 'content and behavior': 'recommended'}
#: Methods without tokens, which anything else has to beat.
BASELINES = {'popularity': 'Popularity', 'IALS': 'IALS', 'features in closed form': 'features'}
PAGE = """# When tokens win

![Gain over IDs by interactions per user]({figure})

LightGCN with its published loss. "Content" is the network of the paper over content tokens,
"content and behavior" adds tokens of behavior (`--items recommended`, on full data its older form
with two orders). The thinned data sets have 3.2 interactions per user, as those of the MOTOR paper
(`--data.per_user 3.2 --data.core 1 --data.split random`).

## The rule

| your data | use | because |
|---|---|---|
| about 3 interactions per user | tokens in a graph backbone | IDs have too little to learn from |
| about 8 | tokens of content *and* behavior | content alone is level or a little better |
| 30 and more, no new items | either | the accuracy is level; tokens are smaller |
| new items every day | tokens or features | IDs of new items are random |
| no features | IDs, or tokens of behavior | there is no content to share |

Train [with least squares over all pairs](losses.rst) first: it gains more than the choice of items
on data with seven or more interactions per user, for IDs and for tokens. Weak features (tiktok)
are still worth tokens, but no linear map. A backbone that reads features itself gains less
from tokens than one that does not. Then measure on your own validation data
([how](compare.rst)).

## The numbers

{table}
Test Recall@20. A gain is relative to IDs. The last three columns need neither tokens nor a graph:
`--model Popularity`, `--model IALS`, and `--model TokenALS --items features`, with tuned settings.

**With three interactions per user, compare with popularity.** On both thinned data sets, it is
ahead of LightGCN with IDs, and on ml1m ahead of every backbone. On lastfm, LightGCN and FREEDOM
with tokens gain on popular items alone, and a linear map of the features in closed form is the best
of all.

Reports: {links}. [Findings](findings.md) has the other claims.
"""


def mean(runs: list[Mapping[str, Any]], label: list[str]) -> float:
    r"""The mean test Recall@20 of the runs with a label."""
    found = [run['test']['recall@20'] for run in runs if run['label'] == label]
    if not found:
        raise ValueError(f'no run has the label {label}')
    return float(np.mean(found))


class Found(NamedTuple):
    r"""The recall of IDs, the relative gain of tokens, and the recall of baselines."""

    source: Source
    own: float
    gain: dict[str, float]
    baselines: dict[str, float]


def gains(reports: Mapping[str, Any]) -> list[Found]:
    r"""The numbers of every data set."""
    out = []
    for source in SOURCES:
        runs = reports[source.report]
        own = mean(runs, [source.data, 'LightGCN', 'id'])
        gain = {
            name: mean(runs, [source.data, 'LightGCN', items]) / own - 1
            for name, items in ITEMS.items()
        }
        rest = reports[source.baselines]
        baselines = {name: mean(rest, [source.data, label]) for name, label in BASELINES.items()}
        out.append(Found(source, own, gain, baselines))
    return out


def figure(found: list[Found]) -> Figure:
    names = [f'{source.per_user:g} ({source.data})' for source, *_ in found]
    x = [float(i) for i in range(len(found))]
    series = [Series(name, x, [100 * entry.gain[name] for entry in found]) for name in ITEMS]
    title = 'Gain over IDs by interactions per user'
    y = 'gain over IDs, percent'
    return Figure('when', title, 'bar', 'interactions per user', y, series, names)


def page(found: list[Found]) -> str:
    lines = [
        [
            source.name,
            f'{source.per_user:g}',
            f'{own:.4f}',
            *(f'{gain[name]:+.1%}' for name in ITEMS),
            *(f'{baselines[name]:.4f}' for name in BASELINES),
        ]
        for source, own, gain, baselines in found
    ]
    names = dict.fromkeys(name for s, *_ in found for name in (s.report, s.baselines))
    links = ', '.join(f'[{name}](reproduction/{name}.jsonl)' for name in names)
    table = markdown(['data', 'interactions per user', 'IDs', *ITEMS, *BASELINES], lines)
    return PAGE.format(figure=FIGURE, table=table, links=links)


def main() -> None:
    found = gains(Reports())
    for path, text in (('when_tokens.md', page(found)), (FIGURE, svg(figure(found)))):
        with atomic_write(osp.join(DOCS, path)) as temporary, open(temporary, 'w') as file:
            file.write(text)


if __name__ == '__main__':
    main()
