r"""Compares finished runs, with tests per user: :obj:`motor-geo compare`."""

from __future__ import annotations

import argparse
import json
import os.path as osp
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from motor_geo.pipeline.finished import FinishedRun, check_same, read_finished
from motor_geo.pipeline.flags import UNHASHED
from motor_geo.utils.errors import ConfigError, run_command, suggest
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.experiments.significance import Paired
    from motor_geo.report.document import Figure, Report, Table

#: Metrics to show in the table, if all runs have them.
SHOWN = ('recall@10', 'ndcg@10', 'recall@20', 'ndcg@20')
KINDS = ('.md', '.html', '.json')
SEEDS = ('seed', 'tokenizer.seed')
#: Runs that differ only in these options belong to the same method. A hash identifies the data.
FREE = {*UNHASHED, *SEEDS, 'trainer.progress'}


class Method(NamedTuple):
    r"""Runs that differ only in their seed."""

    label: str
    runs: list[FinishedRun]

    def test(self, metric: str) -> list[float]:
        r"""Returns a test metric of each run."""
        return [float(run.result['test'][metric]) for run in self.runs]

    def users(self, metric: str) -> np.ndarray:
        r"""Returns a test metric of every user, averaged over runs."""
        return np.stack([run.values[metric] for run in self.runs]).astype(np.float64).mean(axis=0)


class Comparison(NamedTuple):
    r"""Methods, and the tests of all others against the first one.

    Args:
        data: Name of the data set.
        metrics: The metrics to compare.
        methods: The methods, in the order of their runs.
        tests: Paired tests per user by label and metric, corrected together.
            There are no tests of metrics without values per user, such as
            coverage.
    """

    data: str
    metrics: list[str]
    methods: list[Method]
    tests: dict[tuple[str, str], Paired]


def read_run(folder: str) -> FinishedRun:
    r"""Reads the folder of a finished run with the metrics of every user.

    Raises:
        ConfigError: If the folder holds no finished run, or a file is missing
            or damaged.
    """
    run = read_finished(folder)
    if not run.values:
        path = osp.join(folder, 'per_user.npz')
        raise ConfigError(f"'{path}' is missing: expected the metrics of every user")
    return run


def methods_of(runs: Sequence[FinishedRun]) -> list[Method]:
    r"""Groups runs that differ only in their seed. If a seed occurs twice, the
    second run starts another method.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        names = [run.result[key] for key in ('model', 'items')]
        own = {k: v for k, v in run.options.items() if k not in FREE and k[:5] != 'data.'}
        taken = 0
        while True:
            key = json.dumps([names, own, taken], sort_keys=True, default=str)
            if all(_seeds(run) != _seeds(other) for other in groups.get(key, [])):
                break
            taken += 1
        groups.setdefault(key, []).append(run)
    members = list(groups.values())
    return [Method(label, own) for label, own in zip(_labels(members), members)]


def _seeds(run: FinishedRun) -> tuple[Any, ...]:
    return run.result['seed'], run.options.get('tokenizer.seed')


def _labels(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    r"""Labels methods by model, items and the options in which they differ. Adds
    the folder if labels are still equal.
    """
    from motor_geo.experiments.options import in_words, short

    heads = []
    for own in groups:
        names = [short(own[0].result[key]) for key in ('model', 'items')]
        heads.append(' '.join(name for name in names if name != 'none'))
    labels = []
    for head, own in zip(heads, groups):
        others = [g[0].options for h, g in zip(heads, groups) if h == head]
        keys = [k for k in own[0].options if k not in FREE and k[:5] != 'data.']
        differ = [k for k in keys if any(o.get(k) != own[0].options[k] for o in others)]
        words = in_words({key: own[0].options[key] for key in differ})
        labels.append(f'{head}, {words}' if words else head)
    return [
        f'{label} ({own[0].folder})' if labels.count(label) > 1 else label
        for label, own in zip(labels, groups)
    ]


def compare(folders: Sequence[str], metrics: Sequence[str] | None = None) -> Comparison:
    r"""Compares finished runs on the same data.

    Args:
        folders: The run folders.
        metrics: The metrics to compare, such as :obj:`'recall@20'`. (default:
            recall and NDCG at 10 and 20)

    Raises:
        ConfigError: If a folder occurs twice, holds no finished run, or holds
            a run on other data, or if a metric is missing.
    """
    from motor_geo.experiments.significance import paired_tests

    for folder in folders:
        if [osp.abspath(other) for other in folders].count(osp.abspath(folder)) > 1:
            raise ConfigError(f"'{folder}' occurs twice")
    runs = [read_run(folder) for folder in folders]
    for run in runs[1:]:
        check_same(runs[0], run)
    common = [key for key in runs[0].result['test'] if all(key in r.result['test'] for r in runs)]
    for metric in metrics or ():
        if metric not in common:
            raise ConfigError(f"--metric: not all runs have '{metric}'{suggest(metric, common)}")
    chosen = list(metrics or [key for key in SHOWN if key in common] or common[:4])
    methods = methods_of(runs)
    pairs = {
        (method.label, metric): (method.users(metric), methods[0].users(metric))
        for method in methods[1:]
        for metric in chosen
        if all(metric in run.values for run in runs)
    }
    return Comparison(runs[0].result['data'], chosen, methods, paired_tests(pairs))


def spread(values: Sequence[float]) -> float | None:
    r"""Returns the sample standard deviation of two or more values."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def text_table(found: Comparison) -> str:
    r"""Formats a comparison as text."""
    rows = [['method', 'seeds', *found.metrics]]
    for method in found.methods:
        row = [method.label, str(len(method.runs))]
        for metric in found.metrics:
            values = method.test(metric)
            std = spread(values)
            row.append(f'{np.mean(values):.4f}' + ('' if std is None else f' ± {std:.4f}'))
        rows.append(row)
    lines = [*_aligned(rows)]
    if found.tests:
        head = ['against the first', 'metric', 'difference', 'p (Wilcoxon)', 'p (t)', 'users']
        rows = [head]
        for (label, metric), test in found.tests.items():
            p, q = f'{test.corrected_wilcoxon:.3g}', f'{test.corrected_t:.3g}'
            rows.append([label, metric, f'{test.difference:+.4f}', p, q, f'{test.n:,}'])
        lines += ['', *_aligned(rows), NOTE]
    return '\n'.join(lines)


NOTE = (
    'Paired tests per user on means over seeds; p-values are corrected for all comparisons '
    '(Benjamini and Hochberg).'
)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def to_json(found: Comparison) -> dict[str, Any]:
    r"""Converts a comparison to plain values."""
    return {
        'data': found.data,
        'methods': [
            {
                'label': method.label,
                'runs': [run.folder for run in method.runs],
                'seeds': [run.result['seed'] for run in method.runs],
                'test': {
                    metric: {
                        'mean': float(np.mean(method.test(metric))),
                        'std': spread(method.test(metric)),
                        'runs': method.test(metric),
                    }
                    for metric in found.metrics
                },
                'tests': {
                    metric: found.tests[method.label, metric]._asdict()
                    for metric in found.metrics
                    if (method.label, metric) in found.tests
                },
            }
            for method in found.methods
        ],
    }


def to_table(found: Comparison) -> Table:
    r"""Converts a comparison to a table of a report."""
    from motor_geo.experiments.metrics import spelled
    from motor_geo.report.document import Column, Row, Table, Value

    rows = []
    for method in found.methods:
        cells: list[Value | str] = []
        for metric in found.metrics:
            values, test = method.test(metric), found.tests.get((method.label, metric))
            cells.append(
                Value(
                    float(np.mean(values)),
                    spread(values),
                    p=None if test is None else test.corrected_wilcoxon,
                    runs=tuple(run.folder for run in method.runs),
                )
            )
        rows.append(Row([method.label], cells))
    columns = [Column(spelled(metric)) for metric in found.metrics]
    notes = [f'Compared with {found.methods[0].label}. {NOTE}'] if found.tests else []
    return Table('comparison', found.data, ['method'], columns, rows, notes)


def to_figure(found: Comparison) -> Figure:
    r"""Converts a comparison to a bar chart."""
    from motor_geo.experiments.metrics import spelled
    from motor_geo.report.document import Figure, Series

    series = []
    for method in found.methods:
        values = [method.test(metric) for metric in found.metrics]
        std = [spread(entry) for entry in values]
        runs = tuple(run.folder for run in method.runs)
        series.append(Series(method.label, (), [float(np.mean(v)) for v in values], std, runs))
    names = [spelled(metric) for metric in found.metrics]
    return Figure('bars', found.data, 'bar', 'metric', 'mean over users', series, names)


def to_report(found: Comparison, command: str, figure: bool) -> Report:
    r"""Converts a comparison to a report."""
    from motor_geo.report.document import Block, Report, RunInfo

    runs = [run for method in found.methods for run in method.runs]
    blocks: list[Block] = [to_table(found)]
    if figure:
        blocks.append(to_figure(found))
    return Report(
        name='comparison',
        title=f'Runs on {found.data}',
        intro='Test metrics of the best epoch on validation, averaged over seeds.',
        command=command,
        machine=runs[0].result.get('versions', {}),
        blocks=blocks,
        runs={
            run.folder: RunInfo(
                run.folder,
                shlex.join(['motor-geo', 'run', '--config', osp.join(run.folder, 'config.yaml')])
                if run.options
                else '–',
                int(run.result['seed']),
                float(run.result['seconds']),
                int(run.result.get('best_epoch', 0)),
            )
            for run in runs
        },
    )


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog='motor-geo compare',
        description='Compares finished runs on the same data: test metrics averaged over seeds, '
        'and paired tests per user against the first method.',
        allow_abbrev=False,
    )
    out.add_argument(
        'runs', metavar='RUN', nargs='+', type=osp.expanduser, help='folders of finished runs'
    )
    out.add_argument(
        '--metric',
        nargs='+',
        help='metrics to compare, such as recall@20 (default: recall and ndcg at 10 and 20)',
    )
    out.add_argument(
        '--out',
        metavar='FILE',
        type=osp.expanduser,
        help='write the comparison as .md, .html or .json, by file extension',
    )
    out.add_argument(
        '--plot', metavar='FILE', type=osp.expanduser, help='plot the metrics as bars (.svg)'
    )
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    line = shlex.join(['motor-geo', 'compare', *arguments])
    return run_command(lambda: command(options, line))


def command(options: argparse.Namespace, line: str) -> int:
    r"""Compares runs, prints the table and writes the requested files.

    Raises:
        ConfigError: If a file extension is unknown, or runs cannot be compared.
    """
    for key, kinds in (('out', KINDS), ('plot', ('.svg',))):
        path = getattr(options, key)
        if path is not None and osp.splitext(path)[1] not in kinds:
            raise ConfigError(f"--{key}: expected a file {' or '.join(kinds)}, got '{path}'")
    found = compare(options.runs, options.metric)
    print(text_table(found))
    for path in write(found, line, options.out, options.plot):
        print(f"written: '{path}'")
    return 0


def write(found: Comparison, line: str, out: str | None, plot: str | None) -> list[str]:
    r"""Writes a comparison as a page or as JSON, and its figure.

    Args:
        found: The comparison.
        line: The command, for the page.
        out: The file of the page or the JSON, or :obj:`None`.
        plot: The file of the figure, or :obj:`None`.

    Returns:
        The paths of the files.
    """
    from motor_geo.report.plot import svg
    from motor_geo.report.write import render
    from motor_geo.utils.files import atomic_write, writing

    files = {}
    if plot is not None:
        files[plot] = svg(to_figure(found))
    if out is not None and out.endswith('.json'):
        files[out] = json.dumps(to_json(found), indent=1) + '\n'
    elif out is not None:
        kind = osp.splitext(out)[1][1:]
        page = to_report(found, line, figure=plot is not None and kind == 'html')
        files[out] = render(page, kind, None if plot is None else {'bars': files[plot]})
    for path, text in files.items():
        with writing(path), atomic_write(path) as temporary:
            with open(temporary, 'w', encoding='utf-8', newline='\n') as file:
                file.write(text)
    return list(files)


if __name__ == '__main__':
    sys.exit(main())
