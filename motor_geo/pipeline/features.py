r"""Computes features of titles and pictures: :obj:`motor-geo features FOLDER`."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
from collections.abc import Callable, Sequence
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
        help='hashed (no pretrained weights), a model name or folder, or the import path of a '
        'function (default: hashed)',
    )
    parser.add_argument(
        '--image-encoder',
        default='statistics',
        help='statistics (no pretrained weights), a model name or folder, or the import path of '
        'a function (default: statistics)',
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
    if options.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1 (got {options.batch_size})')
    if not osp.isdir(options.folder):
        raise ValueError(f"the folder '{options.folder}' does not exist")

    from tqdm import tqdm

    from motor_geo.data.media import (
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
    if options.text is not None:
        texts = read_texts(options.folder, [name.strip() for name in options.text.split(',')])
        jobs.append(('text', texts, text_encoder(options.text_encoder, options.dim), None))
    if options.images is not None:
        paths = read_paths(options.folder, options.images, options.column)
        encoder = image_encoder(options.image_encoder)
        jobs.append(('image', paths, encoder, lambda path: open_picture(path, encoder.opens)))
    for modality, inputs, job, load in jobs:
        total = sum(map(bool, inputs))
        with tqdm(total=total, desc=modality, unit='item', disable=not sys.stderr.isatty()) as bar:

            def progress(count: int, bar: tqdm = bar) -> None:
                bar.update(count - bar.n)

            args = options.folder, modality, inputs, job
            size, width = write_features(
                *args,
                load=load,
                batch_size=options.batch_size,
                dtype=options.dtype,
                progress=progress,
            )
        lack = len(inputs) - size
        print(
            f'{modality}: {size:,} items, {width} columns'
            + (f', {lack:,} items have none ({modality}_mask.npy)' if lack else '')
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
