r"""Top-k lists from a finished run: :obj:`python -m motor_geo.recommend RUN`."""

from __future__ import annotations

import argparse
import csv
import json
import os.path as osp
import sys
from typing import Dict, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from motor_geo.build import (
    add_tokens,
    build_dataset,
    build_device,
    build_item_graph,
    build_model,
    build_tokenizer,
    encode_items,
    run_fingerprint,
    tokenizer_fingerprint,
)
from motor_geo.checkpoint import load_checkpoint
from motor_geo.config import (
    Config,
    ConfigError,
    check_writable,
    one_line,
    plain_warnings,
    read_yaml,
    resolve,
    writing,
)
from motor_geo.data import OPQTokenizer, RecommendationDataset
from motor_geo.data.extend import add_items
from motor_geo.data.reader import read_table
from motor_geo.data.table import load_features
from motor_geo.files import atomic_write
from motor_geo.nn.models import Recommender
from motor_geo.ranking import top_k
from motor_geo.typing import ITEM, RATES


class Run(NamedTuple):
    r"""A finished run, loaded."""

    config: Config
    dataset: RecommendationDataset
    data: HeteroData
    tokenizer: Optional[OPQTokenizer]
    model: Recommender


class Recommendations(NamedTuple):
    r"""Lists of raw ids, best first. A list that ran out of items ends in the
    score :obj:`-inf`.
    """

    user: np.ndarray  # [U]
    item: np.ndarray  # [U, k]
    score: np.ndarray  # [U, k]


def load_run(folder: str, device: str = 'auto') -> Run:
    r"""Loads the best weights of a run, and the data they were trained on.

    Args:
        folder: The folder of the run.
        device: Where to put model and graph.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the data have changed since.
    """
    path = osp.join(folder, 'config.yaml')
    if not osp.isfile(path):
        raise FileNotFoundError(f"'{folder}' is not the folder of a run: it has no config.yaml")
    config = read_yaml(path)
    try:
        config = resolve(config)
    except ConfigError as error:
        raise ConfigError(f"'{path}': {error}") from error
    target = build_device(device)
    dataset = build_dataset(config)
    data = dataset.data
    tokenizer = build_tokenizer(config, data)
    if tokenizer is not None:
        tokenizer = load_tokenizer(folder, tokenizer)
        data = add_tokens(config, data, tokenizer)
    data = build_item_graph(config, data)
    model = build_model(config, data, tokenizer).to(target)
    state = load_checkpoint(
        osp.join(folder, 'best.pt'),
        model=type(model).__name__,
        fingerprint=run_fingerprint(config, dataset.fingerprint),
        map_location=target,
    )
    model.load_state_dict(state['model'])
    model.eval()
    return Run(config, dataset, data.to(target), tokenizer, model)


def load_tokenizer(folder: str, expected: OPQTokenizer) -> OPQTokenizer:
    r"""The tokenizer of a run, which has the settings of :obj:`expected` and
    the hash that the result names.
    """
    path = osp.join(folder, 'tokenizer.pt')
    tokenizer = OPQTokenizer.load(path)
    sizes = tokenizer.num_tokens_dict, tokenizer.codebook_size
    wanted = expected.num_tokens_dict, expected.codebook_size
    if sizes != wanted:
        raise ValueError(
            f"'{path}' belongs to another run: it has {sizes[0]} tokens of {sizes[1]} values, "
            f"'config.yaml' {wanted[0]} of {wanted[1]}"
        )
    try:
        with open(osp.join(folder, 'result.json')) as file:
            known = json.load(file)['hashes'].get('tokenizer')
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known = None  # Not finished yet: nothing to compare with.
    if known is not None and known != tokenizer_fingerprint(tokenizer):
        raise ValueError(f"'{path}' belongs to another run: expected the codebooks of training")
    return tokenizer


@torch.no_grad()
def recommend(
    run: Run,
    users: Optional[Sequence[str]] = None,
    k: int = 20,
    new_items: Optional[str] = None,
) -> Recommendations:
    r"""The best items of users, training items of a user excluded.

    Args:
        run: The run, from :func:`load_run`.
        users: Raw user ids; all users if :obj:`None`.
        k: Length of the lists.
        new_items: A folder with :obj:`<modality>_feat.npy` files of items
            that were not there in training, and optionally an
            :obj:`items.tsv` with their ids in a column :obj:`itemID`. Only
            these items are ranked then.

    Raises:
        ValueError: If a user is unknown, or new items cannot be scored.
    """
    dataset, data, item_ids = run.dataset, run.data, run.dataset.item_ids
    index = user_index(dataset, users)
    candidates = None
    if new_items is not None:
        data, new_ids = with_new_items(run, new_items)
        candidates = torch.arange(len(item_ids), len(item_ids) + len(new_ids))
        item_ids = np.concatenate([item_ids.astype(str), new_ids])
    embeddings = run.model(data)
    edge_index = data[RATES].edge_index
    score, item = top_k(embeddings, index, k, exclude=edge_index, candidates=candidates)
    return Recommendations(
        dataset.user_ids[index.numpy()], item_ids[item.cpu().numpy()], score.cpu().numpy()
    )


def user_index(dataset: RecommendationDataset, users: Optional[Sequence[str]]) -> Tensor:
    r"""Indices of raw user ids, all users if :obj:`None`."""
    if users is None:
        return torch.arange(dataset.num_users)
    known = {str(user): position for position, user in enumerate(dataset.user_ids)}
    for user in users:
        if str(user) not in known:
            raise ValueError(
                f"The user '{user}' is not in '{dataset.name}'; expected one of its raw ids, such "
                f"as '{dataset.user_ids[0]}'"
            )
    return torch.tensor([known[str(user)] for user in users], dtype=torch.long)


def with_new_items(run: Run, folder: str) -> tuple[HeteroData, np.ndarray]:
    r"""The graph with new items appended, and their raw ids."""
    if run.config['items']['name'] == 'id':
        raise ValueError(
            'A model with ID embeddings has no vector for an item that was not there in training; '
            'train with token-based items (--items specific) or --items features'
        )
    expected = run.dataset.modalities
    if not osp.isdir(folder):
        raise ValueError(
            f"--new-items: the folder '{folder}' does not exist; expected one with features of "
            f'{", ".join(expected)} (<modality>_feat.npy)'
        )
    arrays, masks = load_features(folder)
    features = {}
    for name in expected:
        path = osp.join(folder, f'{name}_feat.npy')
        if name not in arrays:
            raise ValueError(f"'{path}' is missing; expected features of {', '.join(expected)}")
        old = run.data[ITEM][f'x_{name}']
        if arrays[name].shape[1] != old.size(1) or len(arrays[name]) == 0:
            raise ValueError(
                f"'{path}': expected at least one row of {old.size(1)} columns as in training, got "
                f'{list(arrays[name].shape)}'
            )
        features[name] = torch.from_numpy(arrays[name].astype(np.float32))
        if name in masks:  # As in training: items that lack a modality have its mean.
            features[name][~torch.from_numpy(masks[name])] = old.double().mean(0).float().cpu()
    token_id = None
    if run.tokenizer is not None:
        present = {m: torch.from_numpy(mask) for m, mask in masks.items() if m in expected}
        token_id = encode_items(run.config, run.data, run.tokenizer, features, present)
    data = add_items(
        run.data, features, token_id, weighting=run.model.item_graph, k=run.config['graph']['k']
    )
    num_new = features[expected[0]].size(0)
    for name in ('items.tsv', 'items.csv', 'items.parquet'):
        path = osp.join(folder, name)
        if osp.exists(path):
            ids = read_table(path, ids=('itemID',)).ids['itemID']
            new_ids = np.asarray(ids.values)[ids.codes].astype(str)
            if len(new_ids) != num_new:
                raise ValueError(f"'{path}' has {len(new_ids)} rows, the features have {num_new}")
            return data, new_ids
    return data, np.array([f'new_{position}' for position in range(num_new)])


def write(recommendations: Recommendations, path: str) -> int:
    r"""Writes one row per user and rank (userID, rank, itemID, score) as
    :obj:`.csv`, :obj:`.tsv` or :obj:`.parquet`; returns the number of rows.

    Raises:
        ValueError: If the file has another ending.
    """
    valid = np.isfinite(recommendations.score)
    row, rank = valid.nonzero()
    user, item = recommendations.user[row], recommendations.item[valid]
    columns = {
        'userID': user,
        'rank': rank + 1,
        'itemID': item,
        'score': recommendations.score[valid],
    }
    ending = check_ending(path)
    with writing(path), atomic_write(path) as temporary:
        if ending == '.parquet':
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.table(columns), temporary)
        else:
            with open(temporary, 'w', newline='', encoding='utf-8') as file:
                delimiter = '\t' if ending == '.tsv' else ','
                writer = csv.writer(file, delimiter=delimiter, lineterminator='\n')
                writer.writerow(columns)
                writer.writerows(zip(*(column.tolist() for column in columns.values())))
    return len(row)


def check_ending(path: str) -> str:
    r"""The ending of an output file, if lists can be written to it."""
    ending = osp.splitext(path)[1]
    if ending not in ('.csv', '.tsv', '.parquet'):
        raise ValueError(f"'{path}' must end in .csv, .tsv or .parquet")
    if ending == '.parquet':
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ValueError("Writing .parquet needs 'pip install pyarrow'") from error
    return ending


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m motor_geo.recommend',
        description='Writes the best items of every user, from a finished run.',
    )
    parser.add_argument('run', metavar='RUN_DIR', help='folder of a run')
    parser.add_argument('--users', metavar='FILE', help='raw user ids, one per line')
    parser.add_argument('--k', type=int, default=20, help='length of the lists (default: 20)')
    parser.add_argument('--out', help='.csv, .tsv or .parquet (default: RUN_DIR/recs.csv)')
    parser.add_argument(
        '--new-items', metavar='FOLDER', help='rank new items instead, from their features'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    options = parser.parse_args(arguments)
    try:
        if options.k < 1:
            raise ValueError(f'--k must be at least 1 (got {options.k})')
        out = options.out or osp.join(options.run, 'recs.csv')
        check_ending(out)
        if not osp.isfile(osp.join(options.run, 'config.yaml')):
            raise ValueError(f"'{options.run}' is not the folder of a run: it has no config.yaml")
        check_writable(osp.dirname(osp.abspath(out)))
        users = None if options.users is None else read_users(options.users)
        with plain_warnings():
            run = load_run(options.run, options.device)
            if users is not None:
                check_users(users, run.dataset, options.users)
            result = recommend(
                run, None if users is None else list(users), options.k, options.new_items
            )
            rows = write(result, out)
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        return 2
    for user, items, scores in list(zip(result.user, result.item, result.score))[:3]:
        found = [(item, score) for item, score in zip(items, scores) if np.isfinite(score)]
        best = ', '.join(f'{item} ({score:.3f})' for item, score in found[:5])
        print(f'user {user}: {best}')
    print(f"{rows} rows for {len(result.user)} users written to '{out}'")
    return 0


def read_users(path: str) -> Dict[str, int]:
    r"""Distinct raw user ids of a file, one per line, and the first line of
    each.
    """
    users: Dict[str, int] = {}
    try:
        with open(path, encoding='utf-8-sig') as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    users.setdefault(text.strip(), line)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is not UTF-8 text'
        raise ValueError(f"--users: '{path}' cannot be read: {reason}") from error
    if not users:
        raise ValueError(f"--users: '{path}' is empty; expected one user id per line")
    return users


def check_users(users: Dict[str, int], dataset: RecommendationDataset, path: str) -> None:
    r"""Raises a :class:`ValueError` that names the line of an unknown user."""
    known = set(dataset.user_ids.astype(str))
    for user, line in users.items():
        if user not in known:
            raise ValueError(
                f"'{path}', line {line}: the user '{user}' is not in '{dataset.name}'; expected "
                f"raw ids such as '{dataset.user_ids[0]}'"
            )


if __name__ == '__main__':
    sys.exit(main())
