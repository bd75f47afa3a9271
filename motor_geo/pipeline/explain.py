r"""Explains a recommendation: :obj:`motor-geo explain RUN USER ITEM`."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from motor_geo.utils.errors import run_command
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.pipeline.folder import LoadedRun
    from motor_geo.pipeline.reasons import Reason


class Explanation(NamedTuple):
    r"""An explanation of why an item is recommended to a user.

    Args:
        user: Raw id of the user.
        item: Raw id of the item.
        title: Title of the item.
        score: Score of the item.
        rank: Rank of the item, from 1, among all items without a known
            interaction of the user.
        reasons: Items of the user, by their share of the score.
    """

    user: str
    item: str
    title: str
    score: float
    rank: int
    reasons: list[Reason]

    def __str__(self) -> str:
        lines = [
            f'{self.title} for user {self.user}: rank {self.rank}, score {self.score:.3f}',
            'because of',
        ]
        for reason in self.reasons:
            words = ', '.join(reason.shared) or 'no token in common'
            lines.append(f'  {reason.share:6.1%}  {reason.title}  ({words})')
        return '\n'.join(lines)


def explain(run: LoadedRun, user: str | int, item: str | int, size: int = 5) -> Explanation:
    r"""Explains why an item is recommended to a user.

    Args:
        run: The run, from :func:`~motor_geo.pipeline.folder.load_run`.
        user: Raw id of the user.
        item: Raw id of the item.
        size: Maximum number of reasons. (default: :obj:`5`)

    Raises:
        ValueError: If the user or the item is unknown, or the user has no
            other training interaction.
    """
    import torch

    from motor_geo.pipeline.catalog import read_catalog
    from motor_geo.pipeline.reasons import Explainer
    from motor_geo.pipeline.recommend import excluded_pairs, user_index
    from motor_geo.typing import RATES, Embeddings

    dataset, edge_index = run.dataset, run.data[RATES].edge_index.cpu()
    row = int(user_index(dataset, user)[0])
    known = dataset.known_items.nonzero().view(-1).tolist()
    place = {str(dataset.item_ids[i]): i for i in known}
    if str(item) not in place:
        raise ValueError(
            f"The item '{item}' is not in '{dataset.name}'; expected one of its raw ids, such as "
            f"'{next(iter(place))}'"
        )
    column = place[str(item)]
    history = edge_index[1][edge_index[0] == row]
    history = history[history != column]
    if len(history) == 0:
        raise ValueError(
            f"The user '{user}' has no other training interaction that could explain the item"
        )
    with torch.no_grad():
        emb = run.model(run.data)
        titles = read_catalog(dataset, run.config.data.get('item')).titles
        explainer = Explainer(run, emb, run.data, titles, dataset.item_ids)
        share = explainer.shares(history, torch.tensor([column]))[0]
        if isinstance(emb, Embeddings):
            scores = (emb.item @ emb.user[row]).cpu()
        else:
            scores = emb(torch.tensor([row]))[0].cpu()
    pairs = excluded_pairs(run, 'all').cpu()
    others = torch.ones(dataset.num_items, dtype=torch.bool)
    others[pairs[1][pairs[0] == row]] = False
    others &= dataset.known_items
    return Explanation(
        str(user),
        str(item),
        titles[column],
        float(scores[column]),
        1 + int((scores[others] > scores[column]).sum()),
        explainer.reasons(history, column, share, size),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo explain',
        description='Shows which items of a user explain the score of another item, and how many '
        'tokens they share with it.',
    )
    parser.add_argument('run', metavar='RUN_DIR', type=osp.expanduser, help='run folder')
    parser.add_argument('user', metavar='USER', help='raw id of the user')
    parser.add_argument('item', metavar='ITEM', help='raw id of the item')
    parser.add_argument('--k', type=int, default=5, help='number of reasons (default: 5)')
    parser.add_argument('--data', metavar='FOLDER', help='location of the data, if they have moved')
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    options = parser.parse_args(arguments)

    def command() -> int:
        if options.k < 1:
            raise ValueError(f'--k must be at least 1 (got {options.k})')
        from motor_geo.pipeline.folder import load_run

        run = load_run(options.run, options.device, options.data)
        print(explain(run, options.user, options.item, options.k))
        return 0

    return run_command(command)


if __name__ == '__main__':
    sys.exit(main())
