r"""Users who come after training, against the same users in training:

    python -m benchmarks.new_users --data FOLDER [FOLDER ...] [--model TokenALS]

A tenth of the users with held-out interactions of the test split is left out of training. They
get lists by folding in, and the same users are trained in a second run. Every option of
:obj:`motor_geo.run` may follow, such as :obj:`--users items`.
"""

from __future__ import annotations

import argparse
import os
import os.path as osp
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from motor_geo import run as command
from motor_geo.pipeline.folder import load_run
from motor_geo.pipeline.recommend import recommend


def read(path: str) -> tuple[list[str], np.ndarray]:
    r"""Lines of a table of interactions and, for each, user, item and split **[n, 3]**."""
    with open(path) as stream:
        head, *lines = stream.read().splitlines()
    names = head.split('\t')
    columns = [names.index(name) for name in ('userID', 'itemID', 'x_label')]
    rows = [[int(line.split('\t')[i]) for i in columns] for line in lines]
    return [head, *lines], np.array(rows)


def leave_out(source: str, target: str, seed: int) -> np.ndarray:
    r"""A copy of a data set without the training interactions of a tenth of the users.

    Returns:
        The users left out.
    """
    name = osp.basename(osp.normpath(source))
    lines, rows = read(osp.join(source, f'{name}.inter'))
    users = np.unique(rows[rows[:, 2] == 2, 0])
    users = np.intersect1d(users, rows[rows[:, 2] == 0, 0])
    users = np.random.default_rng(seed).permutation(users)[: len(users) // 10]
    os.makedirs(target)
    gone = np.isin(rows[:, 0], users)
    with open(osp.join(target, f'{name}.inter'), 'w') as stream:
        kept = [line for line, out in zip(lines[1:], gone.tolist()) if not out]
        stream.write('\n'.join([lines[0], *kept]) + '\n')
    for file in os.listdir(source):
        if not file.endswith('.inter'):
            os.symlink(osp.abspath(osp.join(source, file)), osp.join(target, file))
    return users


def recall(folder: str, rows: np.ndarray, users: np.ndarray, k: int, new: bool) -> float:
    r"""Recall@k of some users on their test items."""
    run = load_run(folder)
    ids = list(map(str, users.tolist()))
    own = rows[np.isin(rows[:, 0], users)]
    if new:
        train = own[own[:, 2] == 0]
        lists = recommend(run, interactions=[(str(u), str(i)) for u, i, _ in train], k=k)
    else:
        lists = recommend(run, ids, k=k, exclude='train')
    found = {str(user): set(map(str, items)) for user, items in zip(lists.user, lists.item)}
    values = []
    for user in ids:
        test = {str(i) for u, i, split in own if split == 2 and str(u) == user}
        values.append(len(test & found.get(user, set())) / len(test))
    return float(np.mean(values))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks.new_users')
    parser.add_argument('--data', nargs='+', required=True, metavar='FOLDER')
    parser.add_argument('--seed', default=0, type=int)
    parser.add_argument('--k', default=20, type=int)
    given, options = parser.parse_known_args(arguments)
    print(f'{"data":10s} users  trained  folded in   (Recall@{given.k})')
    for source in given.data:
        name = osp.basename(osp.normpath(source))
        with tempfile.TemporaryDirectory() as folder:
            less = osp.join(folder, name)
            users = leave_out(source, less, given.seed)
            _, rows = read(osp.join(source, f'{name}.inter'))
            values = []
            for data, new in ((source, False), (less, True)):
                out = osp.join(folder, f'run-{new}')
                flags = ['--data', data, '--out', out, '--seed', str(given.seed), *options]
                flags += [
                    '--data.reindex',
                    'true',
                    '--report',
                    'false',
                    '--trainer.progress',
                    'false',
                ]
                stdout, sys.stdout = sys.stdout, sys.stderr
                try:
                    code = command.main(flags)
                finally:
                    sys.stdout = stdout
                if code != 0:
                    return code
                values.append(recall(out, rows, users, given.k, new))
        print(f'{name:10s} {len(users):5d}  {values[0]:.4f}   {values[1]:.4f}', flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
