r"""Computes features of titles and pictures: :obj:`motor-geo features FOLDER`."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from motor_geo.utils.errors import run_command
from motor_geo.utils.memory import tune_process


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo features',
        description='Computes text_feat.npy and image_feat.npy for the items of a folder, in the '
        'order of items.tsv. After an interruption, the same command resumes.',
    )
    parser.add_argument(
        'folder', metavar='FOLDER', type=osp.expanduser, help='folder with items.tsv'
    )
    parser.add_argument('--text', metavar='COLUMNS', help='text columns, such as title,text')
    parser.add_argument(
        '--images', metavar='FOLDER', type=osp.expanduser, help='pictures, named by item id'
    )
    parser.add_argument(
        '--column',
        default='itemID',
        help='column with item ids or picture files (default: itemID)',
    )
    parser.add_argument(
        '--text-encoder',
        default='hashed',
        help='hashed (no pretrained weights), a model as NAME, NAME@REVISION or folder, or the '
        'import path of a function (default: hashed)',
    )
    parser.add_argument(
        '--image-encoder',
        help='statistics (no pretrained weights), a model as NAME, NAME@REVISION or folder, or '
        'the import path of a function (default: statistics)',
    )
    parser.add_argument(
        '--describe',
        metavar='MODEL',
        help='a language model, or the import path of a function, that describes the images; the '
        'text encoder then encodes the descriptions, without an image encoder',
    )
    parser.add_argument('--prompt', help='prompt for the language model')
    parser.add_argument(
        '--max-new-tokens',
        type=int,
        default=64,
        help='maximum number of tokens of a description (default: 64)',
    )
    parser.add_argument(
        '--precision',
        choices=('float32', 'bfloat16', 'float16'),
        help='data type of the model weights (default: that of the stored weights)',
    )
    parser.add_argument(
        '--pooling',
        choices=('mean', 'cls', 'max', 'lasttoken'),
        help='pooling method of the text encoder (default: that of the model)',
    )
    parser.add_argument(
        '--dim', type=int, default=256, help='width of the hashed text features (default: 256)'
    )
    parser.add_argument('--batch-size', type=int, default=64, help='items per batch (default: 64)')
    parser.add_argument(
        '--dtype',
        choices=('float16', 'float32'),
        default='float16',
        help='data type of the feature files (default: float16)',
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options), 'interrupted; run the same command to resume')


def command(options: argparse.Namespace) -> int:
    r"""Checks the options and computes the features.

    Raises:
        ValueError: If an option is invalid.
    """
    if options.text is None and options.images is None:
        raise ValueError('nothing to encode; expected --text COLUMNS or --images FOLDER')
    if options.describe is None and options.prompt is not None:
        raise ValueError('--prompt: expected a language model (--describe MODEL)')
    if options.describe is not None and options.images is None:
        raise ValueError('--describe: expected a folder of images (--images FOLDER)')
    if options.describe is not None and options.image_encoder is not None:
        raise ValueError(
            '--image-encoder: expected either an image encoder or --describe MODEL, not both; '
            '--text-encoder encodes the descriptions'
        )
    if options.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1 (got {options.batch_size})')
    if not osp.isdir(options.folder):
        raise ValueError(f"the folder '{options.folder}' does not exist")

    from motor_geo.data.describe import is_import_path
    from motor_geo.data.media import (
        HASHED,
        STATISTICS,
        Encoder,
        image_encoder,
        open_picture,
        read_paths,
        read_texts,
        text_encoder,
        write_features,
    )
    from motor_geo.utils.files import check_writable

    check_writable(options.folder)
    jobs: list[tuple[str, Sequence[Any], Encoder, Callable[[Any], Any] | None]] = []
    texts, paths = [], []
    if options.text is not None:
        texts = read_texts(options.folder, [name.strip() for name in options.text.split(',')])
    if options.images is not None:
        paths = read_paths(options.folder, options.images, options.column)
    # The language model is freed before the text encoder is loaded.
    described, described_by = _describe(options, paths)
    if texts or described:
        precision = options.precision
        if options.text_encoder == HASHED or is_import_path(options.text_encoder):
            precision = None if described else precision  # It applies to the language model.
        encoder = text_encoder(options.text_encoder, options.dim, precision, options.pooling)
        if texts:
            jobs.append(('text', texts, encoder, None))
        if described:
            source = {**encoder.source, 'described_by': described_by}
            jobs.append(('image', described, encoder._replace(source=source), None))
    if paths and not described:
        pictures = image_encoder(options.image_encoder or STATISTICS, options.precision)
        jobs.append(('image', paths, pictures, lambda path: open_picture(path, pictures.opens)))
    for modality, inputs, job, load in jobs:
        with _counter(modality, sum(map(bool, inputs))) as count:
            size, width = write_features(
                *(options.folder, modality, inputs, job),
                load=load,
                batch_size=options.batch_size,
                dtype=options.dtype,
                progress=count,
            )
        lack = len(inputs) - size
        print(
            f'{modality}: {size:,} items, {width} columns'
            + (f', {lack:,} items have none ({modality}_mask.npy)' if lack else '')
        )
    return 0


def _describe(
    options: argparse.Namespace, paths: Sequence[str | None]
) -> tuple[list[str], dict[str, Any]]:
    r"""Describes the images if a language model is given. Returns the descriptions
    and their source.
    """
    from motor_geo.data.describe import PROMPT, describe_pictures, picture_describer
    from motor_geo.data.media import open_picture

    if options.describe is None:
        return [], {}
    prompt = PROMPT if options.prompt is None else options.prompt
    describer = picture_describer(
        options.describe, prompt, options.max_new_tokens, options.precision
    )
    with _counter('descriptions', len({path for path in paths if path})) as count:
        texts = describe_pictures(
            *(options.folder, paths, describer),
            load=lambda path: open_picture(path, True),
            batch_size=options.batch_size,
            progress=count,
        )
    return texts, describer.source


@contextmanager
def _counter(name: str, total: int) -> Iterator[Callable[[int], None]]:
    r"""A progress bar, as a function that takes the number of finished items."""
    from tqdm import tqdm

    with tqdm(total=total, desc=name, unit='item', disable=not sys.stderr.isatty()) as bar:

        def count(done: int) -> None:
            bar.update(done - bar.n)

        yield count


if __name__ == '__main__':
    sys.exit(main())
