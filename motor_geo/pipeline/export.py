r"""Exports a finished run to other systems: :obj:`motor-geo export`."""

from __future__ import annotations

import argparse
import json
import os.path as osp
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from motor_geo.utils.errors import run_command
from motor_geo.utils.extras import needs
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from torch import Tensor

    from motor_geo.pipeline.folder import LoadedRun
    from motor_geo.utils.model_card import Training

#: File extensions of vectors, and the package that each of them requires.
ENDINGS = {'.parquet': 'pyarrow', '.safetensors': 'safetensors'}
#: Metrics in a model card, if a run has them. Otherwise, it has all of them.
CARD_METRICS = tuple(
    f'{name}@{k}'
    for name in ('recall', 'ndcg', 'warm_recall', 'unseen_recall', 'harmonic')
    for k in (10, 20)
)


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo export',
        description='Exports a search index, the vectors, or the item encoder of a finished run.',
    )
    parser.add_argument('run', metavar='RUN_DIR', type=osp.expanduser, help='run folder')
    parser.add_argument(
        '--index', metavar='FILE', type=osp.expanduser, help='write a FAISS index and FILE.json'
    )
    parser.add_argument(
        '--kind',
        choices=('flat', 'hnsw', 'ivf'),
        help='flat (exact), hnsw (neighbor graph) or ivf (cells); the default depends on the '
        'number of items',
    )
    parser.add_argument(
        '--append', metavar='FOLDER', help='append the new items of a folder to the index'
    )
    for name in ('item', 'user'):
        parser.add_argument(
            f'--{name}-vectors',
            metavar='FILE',
            type=osp.expanduser,
            help=f'write {name} vectors and ids as .parquet or .safetensors',
        )
    parser.add_argument(
        '--onnx',
        metavar='FILE',
        type=osp.expanduser,
        help='write the item encoder, which maps tokens to vectors, as ONNX',
    )
    parser.add_argument(
        '--pretrained',
        metavar='FOLDER',
        type=osp.expanduser,
        help='write the item encoder and the tokenizer for from_pretrained and the Hugging Face '
        'Hub',
    )
    parser.add_argument('--data', metavar='FOLDER', help='location of the data, if they have moved')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    options = parser.parse_args(arguments)
    return run_command(lambda: command(options))


def command(options: argparse.Namespace) -> int:
    r"""Checks the options and writes the exports.

    Raises:
        ValueError: If an option is invalid.
    """
    wanted = {
        name: path
        for name in ('index', 'item_vectors', 'user_vectors', 'onnx', 'pretrained')
        if (path := getattr(options, name)) is not None
    }
    if not wanted:
        raise ValueError(
            'nothing to export; expected --index FILE, --item-vectors FILE, --user-vectors FILE, '
            '--onnx FILE or --pretrained FOLDER'
        )
    if options.append is not None and options.index is None:
        raise ValueError('--append: expected the index to append to (--index FILE)')
    for name, path in wanted.items():
        if name.endswith('vectors'):
            check_vectors(path)

    import torch

    from motor_geo.pipeline.folder import load_run
    from motor_geo.pipeline.index import append, build_index, read_index, settle, write_index
    from motor_geo.pipeline.new_items import with_new_items
    from motor_geo.pipeline.recommend import served_items, served_users
    from motor_geo.utils.files import check_writable

    for path in wanted.values():
        check_writable(osp.dirname(osp.abspath(path)))
    run = load_run(options.run, options.device, options.data)
    if options.onnx is not None:
        write_onnx(run, options.onnx)
        print(f"item encoder written to '{options.onnx}'")
    if options.pretrained is not None:
        write_pretrained(run, options.pretrained, options.run)
        print(f"item encoder and tokenizer written to '{options.pretrained}'")
    if wanted.keys() <= {'onnx', 'pretrained'}:
        return 0
    user, item = vectors(run)
    rows, people = served_items(run), served_users(run)
    ids = run.dataset.item_ids[rows.numpy()].astype(str)
    fingerprint = hash_of(options.run)
    with torch.no_grad():
        if options.append is not None:
            index = read_index(options.index)
            if index.run != fingerprint:
                raise ValueError(f"'{options.index}' is an index of another run; export it again")
            data, new_ids = with_new_items(run, options.append)
            new = run.model(data).item[-len(new_ids) :]
            try:
                index = append(index, new, new_ids)
            except ValueError:
                settle(options.index)
                raise
            write_index(index, options.index)
            print(
                f"{len(new_ids)} items appended to '{options.index}' ({len(index.ids):,} in total)"
            )
        elif options.index is not None:
            index = build_index(user[people], item[rows], ids, options.kind, run=fingerprint)
            write_index(index, options.index)
            print(
                f"{len(ids):,} items written to '{options.index}' ({index.kind}, recalls "
                f'{index.recall:.1%} of the exact top 20)'
            )
    for name, path in wanted.items():
        if name == 'item_vectors':
            write_vectors(item[rows], ids, path, 'itemID')
        elif name == 'user_vectors':
            names = run.dataset.user_ids[people.numpy()].astype(str)
            write_vectors(user[people], names, path, 'userID')
        else:
            continue
        print(f"vectors of {name.partition('_')[0]}s written to '{path}'")
    return 0


def vectors(run: LoadedRun) -> tuple[Tensor, Tensor]:
    r"""Returns the vectors of users and items. Their inner products are scores.

    Raises:
        ValueError: If the model scores without vectors.
    """
    import torch

    from motor_geo.typing import Embeddings

    with torch.no_grad():
        emb = run.model(run.data)
    if not isinstance(emb, Embeddings):
        raise ValueError(
            f'{run.config.model["name"]} scores without vectors, so there is nothing to export'
        )
    return emb.user.detach().cpu().float(), emb.item.detach().cpu().float()


def hash_of(folder: str) -> str:
    r"""Returns a hash of a run, its best epoch and its weights.

    Raises:
        ValueError: If the result of the run is damaged.
    """
    from motor_geo.utils.cache import fingerprint
    from motor_geo.utils.files import crc_of, read_json

    path = osp.join(folder, 'result.json')
    try:
        result = read_json(path)
        found = result['hashes']['run'], result['best_epoch']
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged: expected the result of a run") from error
    return fingerprint(*found, crc_of(osp.join(folder, 'best.pt')))


def check_vectors(path: str) -> None:
    r"""Checks that vectors can be written to a file.

    Raises:
        ValueError: If the file extension is unknown, or a package is missing.
    """
    from importlib.util import find_spec

    ending = osp.splitext(path)[1]
    if ending not in ENDINGS:
        raise ValueError(f"'{path}' must end in {' or '.join(ENDINGS)}")
    if find_spec(ENDINGS[ending]) is None:
        raise ValueError(needs(f'Writing {ending}', ENDINGS[ending], extra='serving'))


def write_vectors(x: Tensor, ids: np.ndarray, path: str, column: str) -> None:
    r"""Writes vectors with their ids. A Parquet file has the columns
    :obj:`itemID` (or :obj:`userID`) and :obj:`vector`. A safetensors file has
    the tensor :obj:`vector`, and the ids as JSON in its metadata.

    Args:
        x: The vectors, **[n, d]**.
        ids: The raw ids, **[n]**.
        path: The file, :obj:`.parquet` or :obj:`.safetensors`.
        column: Name of the id column.

    Raises:
        ValueError: If the file extension is unknown, or a package is missing.
    """
    from motor_geo.utils.files import atomic_write, writing

    check_vectors(path)
    with writing(path), atomic_write(path) as temporary:
        if path.endswith('.parquet'):
            import pyarrow
            import pyarrow.parquet

            flat = pyarrow.array(x.contiguous().view(-1).numpy())
            rows = pyarrow.FixedSizeListArray.from_arrays(flat, x.size(1))
            table = pyarrow.table({column: pyarrow.array(ids.astype(str)), 'vector': rows})
            pyarrow.parquet.write_table(table, temporary)
        else:
            from safetensors.torch import save_file

            metadata = {column: json.dumps(ids.astype(str).tolist())}
            save_file({'vector': x.contiguous()}, temporary, metadata)


def write_onnx(run: LoadedRun, path: str) -> None:
    r"""Writes the item encoder as ONNX. Its input are tokens **[n, T]**, its
    output are the vectors that enter the backbone.

    Args:
        run: The run.
        path: The file.

    Raises:
        ValueError: If the items have no tokens, or a package is missing.
    """
    from importlib.util import find_spec

    import torch

    from motor_geo.typing import ITEM
    from motor_geo.utils.files import atomic_write

    if run.tokenizer is None:
        raise ValueError(f'--onnx: --items {run.config.items["name"]} has no tokens')
    missing = [name for name in ('onnx', 'onnxscript') if find_spec(name) is None]
    if missing:
        raise ValueError(needs('--onnx', *missing, extra='onnx'))
    encoder = run.model.item_encoder
    assert isinstance(encoder, torch.nn.Module)
    with atomic_write(path) as temporary:
        torch.onnx.export(
            encoder.eval().cpu(),
            (run.data[ITEM].token_id.cpu()[:2],),
            temporary,
            dynamo=True,
            input_names=['token_id'],
            output_names=['x'],
            dynamic_shapes={'token_id': {0: torch.export.Dim('rows')}},
            external_data=False,
        )


def write_pretrained(run: LoadedRun, folder: str, source: str) -> None:
    r"""Writes the item encoder and the tokenizer of a run with
    :meth:`~motor_geo.utils.hub.HubMixin.save_pretrained`. The model card also
    describes the data, the split, the metrics and the versions of the run.

    Args:
        run: The run.
        folder: The folder to write to.
        source: The run folder, for its :obj:`result.json`.

    Raises:
        ConfigError: If the run has no :obj:`result.json`, or it is damaged.
        ImportError: If :obj:`safetensors` is missing.
        ValueError: If the run has no tokens.
    """
    from motor_geo.nn import TokenCrossEncoder
    from motor_geo.utils.hub import CARD, write_text
    from motor_geo.utils.model_card import model_card

    encoder = getattr(run.model, 'item_encoder', None)
    if run.tokenizer is None or not isinstance(encoder, TokenCrossEncoder):
        raise ValueError(f'--pretrained: --items {run.config.items["name"]} has no token encoder')
    run.tokenizer.save_pretrained(folder)
    encoder.save_pretrained(folder)
    path = osp.join(folder, CARD)
    with open(path, encoding='utf-8') as file:
        before = file.read()
    write_text(path, model_card(osp.basename(osp.abspath(folder)), training(run, source), before))


def training(run: LoadedRun, source: str) -> Training:
    r"""Returns the section of a model card on a run. It contains no paths.

    Args:
        run: The run.
        source: The run folder.

    Raises:
        ConfigError: If :obj:`result.json` is missing or damaged.
    """
    import inspect

    from motor_geo.pipeline.finished import read_finished
    from motor_geo.pipeline.folder import PLACES
    from motor_geo.utils.model_card import Training

    result, sizes, config = read_finished(source).result, run.dataset.summary(), run.config
    split = inspect.signature(type(run.dataset)).parameters.get('split')
    given = {} if split is None or split.default is None else {'split': split.default}
    given |= {key: value for key, value in config.data.items() if key not in ('name', *PLACES)}
    widths = [f'{name} ({width} columns)' for name, width in sizes['modalities'].items()]
    counts = ', '.join(f'{sizes[key]:,} {key}' for key in ('train', 'val', 'test'))
    data = {
        'name': str(result['data']),
        'sizes': f'{sizes["users"]:,} users, {sizes["items"]:,} items',
        'features': ', '.join(widths) or 'none',
        'split': f'{counts} interactions',
        'settings': ', '.join(
            f'{key}: {value}'
            for key, value in given.items()
            if value is not None and not (isinstance(value, str) and osp.isabs(value))
        )
        or 'none',
        'hash': str(run.dataset.fingerprint),
    }
    names = {'model': 'backbone', 'items': 'items', 'loss': 'loss', 'seed': 'seed'}
    settings = {name: str(result[key]) for key, name in names.items() if key in result}
    settings['epochs'] = f'{result["epochs"]} (the weights of epoch {result["best_epoch"]})'
    unseen = result.get('unseen') or {}
    metrics = {
        'validation': result['val'],
        'test': result['test'],
        'test, popularity ranking': result.get('popularity', {}),
        'test, new items among themselves': unseen.get('test', {}),
        'test, new items among all': unseen.get('all', {}),
    }
    shown = {*CARD_METRICS, config.trainer.get('metric')}
    metrics = {
        caption: {name: value for name, value in values.items() if name in shown} or dict(values)
        for caption, values in metrics.items()
    }
    return Training(data, settings, metrics, result.get('versions', {}))


if __name__ == '__main__':
    sys.exit(main())
