r"""Measures the tokens of a data set before any training: :obj:`motor-geo tokens`."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from motor_geo.pipeline.flags import Config, entry, parse_flags, read_config
from motor_geo.utils.errors import ConfigError, run_command
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.pipeline.config import RunConfig

#: Columns of the table, with their descriptions.
COLUMNS = {
    'tokens': 'number of tokens per item',
    'used': 'codes that occur, out of all codes of a codebook',
    'perplexity': 'effective number of codes, the exponential of their entropy',
    'collisions': 'items that share all tokens of the modality with another item',
    'duplicates': 'items with the same features as another item, which must collide',
    'error': 'share of the feature variance that the tokens lose',
    'kept': 'share of the feature variance kept by the reduction to tokenizer.max_dim axes',
    'neighbors': 'share of the nearest neighbors of an item that the tokens preserve',
}


def usage() -> str:
    r"""Returns the text of :obj:`--help`."""
    lines = [
        'usage: motor-geo tokens [--data FOLDER] [--option value ...]',
        '',
        'Fits the tokens of a data set as a run would, and measures them. Only the cache is',
        'written, and a run with the same options reads the tokens from there.',
        '',
        entry('--data', 'A data set by name, or a folder with NAME.inter', 'synthetic'),
        entry('--behavior', 'Add tokens of behavior (who interacted with an item in training)'),
        entry('--k', 'Number of nearest neighbors to compare', 10),
        entry('--samples', 'Number of items whose neighbors to compare', 1000),
        entry('--config', 'A file with options, or the name of one that comes with the package'),
        entry('--tokenizer.KEY', 'Any option of the tokenizer (motor-geo run --tokenizer.help)'),
        '',
        'Columns of the table (used and perplexity are means over slots):',
        *(f'  {name:12s}{text}' for name, text in COLUMNS.items()),
    ]
    return '\n'.join(lines)


def measure(config: RunConfig | Config, k: int = 10, num_samples: int = 1000) -> dict[str, Any]:
    r"""Fits the tokens of a configuration and measures them. See
    :meth:`motor_geo.data.OPQTokenizer.report`.

    Args:
        config: The configuration.
        k: Number of nearest neighbors to compare. (default: :obj:`10`)
        num_samples: Number of items whose neighbors to compare.
            (default: :obj:`1000`)

    Raises:
        ConfigError: If a setting is invalid, or the items have no tokens.
    """
    from motor_geo.pipeline.assemble import (
        build_behavior,
        build_dataset,
        build_tokenizer,
        check_features,
        named,
    )
    from motor_geo.pipeline.config import RunConfig

    config = RunConfig.of(config)
    if not config.reads_tokens:
        raise ConfigError(
            f'--items {config.items["name"]}: expected items with tokens, such as --items specific'
        )
    data = copy.copy(build_dataset(config).data)
    check_features(config, data)
    tokenizer = build_tokenizer(config, data)
    assert tokenizer is not None
    if config.behavior:
        with named('svd'):
            data = build_behavior(config, data)(data)
    with named('tokenizer'):
        return tokenizer.report(data, k, num_samples)


def table(report: dict[str, Any], size: int) -> str:
    r"""Formats a report as text.

    Args:
        report: The report of :func:`measure`.
        size: Size of the codebooks.
    """
    rows = [['modality', *COLUMNS]]
    for name, row in report['modalities'].items():
        used, perplexity = (sum(row[key]) / len(row[key]) for key in ('used', 'perplexity'))
        rows.append(
            [
                *(name, str(row['num_tokens']), f'{used:.1f}/{size}', f'{perplexity:.1f}'),
                *(f'{row[key]:,}' for key in ('collisions', 'duplicates')),
                *(f'{row[key]:.3f}' for key in ('error', 'kept_variance', 'neighbors')),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    count, total = report['collisions'], report['num_items']
    lines.append(
        f'{count:,} of {total:,} items ({count / total:.1%}) share all tokens with another item'
    )
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    if '-h' in arguments or '--help' in arguments:
        print(usage())
        return 0
    return run_command(lambda: command(arguments))


def command(arguments: Sequence[str]) -> int:
    r"""Parses the arguments, fits the tokens and prints the table."""
    flags = parse_flags(arguments)
    numbers = {}
    for key, default in (('k', 10), ('samples', 1000)):
        text = str(flags.pop(key, default))
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"--{key}: expected a positive integer, got '{text}'")
        numbers[key] = int(text)

    from motor_geo.pipeline.config import RunConfig

    config = RunConfig.of(read_config(flags))
    report = measure(config, numbers['k'], numbers['samples'])
    print(table(report, config.tokenizer['codebook_size']))
    return 0


if __name__ == '__main__':
    sys.exit(main())
