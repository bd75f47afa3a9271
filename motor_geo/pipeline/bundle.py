r"""Makes a run folder self-contained: :obj:`motor-geo bundle`."""

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

#: Required and optional files of a run that a bundle contains.
FILES = ('config.yaml', 'data.json', 'result.json', 'best.pt')
OPTIONAL = ('tokenizer.pt', 'unseen.json', 'metrics.jsonl')
WEIGHTS = 'model.safetensors'


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo bundle',
        description='Copies a finished run with everything that another machine needs to serve it.',
    )
    parser.add_argument('run', metavar='RUN_DIR', type=osp.expanduser, help='run folder')
    parser.add_argument('out', metavar='OUT', type=osp.expanduser, help='folder to create')
    parser.add_argument('--data', metavar='FOLDER', help='location of the data, if they have moved')
    options = parser.parse_args(arguments)

    def command() -> int:
        from motor_geo.pipeline.folder import load_run
        from motor_geo.utils.files import check_new

        check_new(options.out)
        run = load_run(options.run, 'cpu', options.data)
        bundle(run, options.run, options.out)
        print(f"'{options.out}' is self-contained: motor-geo recommend {options.out}")
        return 0

    return run_command(command)


def bundle(run: LoadedRun, folder: str, out: str) -> None:
    r"""Copies a run with its data, ids, titles and tokens to another folder. If
    safetensors is installed, the weights are also written as
    :obj:`model.safetensors`.

    Args:
        run: The run.
        folder: The run folder.
        out: The new folder, which must be empty or not exist.

    Raises:
        ConfigError: If the new folder is not empty, or the run is not finished.
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
    r"""Writes the weights as :obj:`model.safetensors` if safetensors is
    installed.
    """
    from importlib.util import find_spec

    if find_spec('safetensors') is None:
        return
    from safetensors.torch import save_model

    save_model(run.model, osp.join(folder, WEIGHTS))


if __name__ == '__main__':
    sys.exit(main())
