r"""A run folder that serves by itself: :obj:`motor-geo bundle`."""

from __future__ import annotations

import argparse
import os.path as osp
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from motor_geo.utils.errors import run_command
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.pipeline.folder import LoadedRun

#: Files of a run that a bundle has, too; those that may be missing.
FILES = ('config.yaml', 'data.json', 'result.json', 'best.pt')
OPTIONAL = ('tokenizer.pt', 'unseen.json', 'metrics.jsonl')
WEIGHTS = 'model.safetensors'


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo bundle',
        description='Copies a finished run with all that it needs to serve on another machine.',
    )
    parser.add_argument('run', metavar='RUN_DIR', type=osp.expanduser, help='folder of a run')
    parser.add_argument('out', metavar='OUT', type=osp.expanduser, help='folder that is made')
    parser.add_argument('--data', metavar='FOLDER', help='where the data are, if they have moved')
    options = parser.parse_args(arguments)

    def command() -> int:
        from motor_geo.pipeline.folder import load_run
        from motor_geo.utils.files import check_new

        check_new(options.out)
        run = load_run(options.run, 'cpu', options.data)
        bundle(run, options.run, options.out)
        print(f"'{options.out}' serves by itself: motor-geo recommend {options.out}")
        return 0

    return run_command(command)


def bundle(run: LoadedRun, folder: str, out: str) -> None:
    r"""Writes a run with its data, ids, titles and tokens into another folder.
    Weights are there as :obj:`model.safetensors`, too, if that package is
    installed.

    Args:
        run: The run.
        folder: Its folder.
        out: A folder that does not exist, or is empty.

    Raises:
        ConfigError: If it is not, or the run is not finished.
    """
    from motor_geo.data.datasets.bundle import content_of, write_bundle
    from motor_geo.pipeline.catalog import read_catalog
    from motor_geo.pipeline.finished import read_finished
    from motor_geo.typing import ITEM
    from motor_geo.utils.files import check_new, move_folder, temporary_folder, writing

    check_new(out)
    read_finished(folder)
    catalog = read_catalog(run.dataset, run.config.data.get('item'))
    pairs = zip(catalog.titles, catalog.titled.tolist())
    titles = [title if titled else None for title, titled in pairs]
    fitted = getattr(run.dataset, 'fitted', None)
    token_id = run.data[ITEM].get('token_id')
    content = content_of(run.dataset, token_id, fitted, titles)
    parent = osp.dirname(osp.realpath(out))
    with writing(out), temporary_folder(parent) as temporary:
        for name in FILES:
            shutil.copyfile(osp.join(folder, name), osp.join(temporary, name))
        for name in OPTIONAL:
            if osp.isfile(osp.join(folder, name)):
                shutil.copyfile(osp.join(folder, name), osp.join(temporary, name))
        write_bundle(content, temporary)
        write_weights(run, temporary)
        move_folder(temporary, out)


def write_weights(run: LoadedRun, folder: str) -> None:
    r"""Writes the weights as :obj:`model.safetensors`, if that is installed."""
    from importlib.util import find_spec

    if find_spec('safetensors') is None:
        return
    from safetensors.torch import save_model

    save_model(run.model, osp.join(folder, WEIGHTS))


if __name__ == '__main__':
    sys.exit(main())
