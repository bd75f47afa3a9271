r"""Writes the page of a run: :obj:`motor-geo report RUN`."""

from __future__ import annotations

import argparse
import os.path as osp
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from motor_geo.pipeline.flags import Config
from motor_geo.utils.errors import ConfigError, one_line, run_command
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from motor_geo.pipeline.finished import FinishedRun
    from motor_geo.report.page import Page, Section

#: The file in the folder of a run.
PAGE = 'report.html'


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    parser = argparse.ArgumentParser(
        prog='motor-geo report',
        description='Writes an HTML page about a finished run: metrics, curves, tokens, and lists '
        'of a few users.',
        allow_abbrev=False,
    )
    parser.add_argument('run', metavar='RUN', type=osp.expanduser, help='folder of a finished run')
    parser.add_argument(
        '--control',
        metavar='RUN2',
        action='append',
        default=[],
        type=osp.expanduser,
        help='a run on the same data to compare with, such as one with --items id; can be '
        'repeated (default: the run with --items id in its default folder, if it exists)',
    )
    parser.add_argument('--data', metavar='FOLDER', help='location of the data, if they have moved')
    parser.add_argument(
        '--out',
        metavar='FILE',
        type=osp.expanduser,
        help=f'the page (default: RUN/{PAGE})',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda (default: auto)')
    options = parser.parse_args(arguments)

    def command() -> int:
        path = write_page(
            options.run, options.control or None, options.out, options.data, options.device
        )
        print(f"written: '{path}'")
        return 0

    return run_command(command)


def write_page(
    folder: str,
    controls: Sequence[str] | None = None,
    out: str | None = None,
    data: str | None = None,
    device: str = 'auto',
) -> str:
    r"""Writes the page of a finished run.

    Args:
        folder: The run folder.
        controls: Folders of runs on the same data to compare with. (default:
            the run with ID embeddings in its default folder, if it exists)
        out: The file to write. (default: :obj:`report.html` in the folder)
        data: The location of the data, if they have moved since training.
            (default: :obj:`None`)
        device: The device. (default: :obj:`'auto'`)

    Returns:
        The path of the page.

    Raises:
        ConfigError: If a folder holds no finished run, or a control has other
            data.
    """
    from motor_geo.report.page import render
    from motor_geo.utils.files import atomic_write, check_writable, writing

    path = out or osp.join(folder, PAGE)
    check_writable(osp.dirname(osp.abspath(path)))
    text = render(build_page(folder, controls, data, device))
    with writing(path), atomic_write(path) as temporary:
        with open(temporary, 'w', encoding='utf-8', newline='\n') as file:
            file.write(text)
    return path


def write_last(folder: str, device: str = 'auto') -> str | None:
    r"""Writes the page of a run that has just finished, unless it is up to
    date. Errors become warnings.

    Args:
        folder: The run folder.
        device: The device. (default: :obj:`'auto'`)

    Returns:
        The path of the page, or :obj:`None` if it could not be written.
    """
    path, result = osp.join(folder, PAGE), osp.join(folder, 'result.json')
    if osp.exists(path) and osp.getmtime(path) >= osp.getmtime(result):
        return path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # The run has already shown them.
            return write_page(folder, device=device)
    except Exception as error:  # A finished run must not fail because of its page.
        warnings.warn(
            f"The page of '{folder}' could not be written ({type(error).__name__}: "
            f'{one_line(error)})',
            stacklevel=2,
        )
        return None


def build_page(
    folder: str,
    controls: Sequence[str] | None = None,
    data: str | None = None,
    device: str = 'auto',
) -> Page:
    r"""Builds the page of a finished run. See :func:`write_page`."""
    from motor_geo.pipeline import page_lists, page_results
    from motor_geo.pipeline.catalog import read_catalog
    from motor_geo.pipeline.finished import read_finished
    from motor_geo.pipeline.folder import load_run
    from motor_geo.report.page import Page

    run = read_finished(folder)
    others = find_controls(run, controls)
    loaded = load_run(folder, device, data)
    catalog = read_catalog(loaded.dataset, loaded.config.data.get('item'))

    def sections() -> Iterator[Section | None]:
        yield page_results.results(run, others, loaded.dataset)
        yield page_results.training(run, others)
        yield page_results.groups(run, others, loaded.dataset)
        yield page_lists.tokens(loaded, catalog)
        yield page_lists.users(loaded, catalog, run.values)
        yield page_results.settings(run, others)

    found = [section for section in sections() if section is not None and section.blocks]
    result = run.result
    title = f'{page_results.label(run)} on {result["data"]}'
    return Page(title, page_results.answer(run, others, loaded.dataset.num_items), found)


def find_controls(run: FinishedRun, folders: Sequence[str] | None) -> list[FinishedRun]:
    r"""Finds the runs to compare a run with.

    Args:
        run: The run.
        folders: The folders of the controls. If :obj:`None`, this looks for
            the run with ID embeddings in its default folder.

    Raises:
        ConfigError: If a given folder does not hold a finished run on the same
            data, or occurs twice.
    """
    from motor_geo.pipeline.finished import check_same, read_finished

    if folders is None:
        folder = _default_control(run)
        try:
            found = [] if folder is None else [read_finished(folder)]
            for other in found:
                check_same(run, other)
        except ConfigError:  # The control was not requested.
            return []
        return found
    taken = [osp.realpath(run.folder)]
    found = []
    for folder in folders:
        if osp.realpath(folder) in taken:
            raise ConfigError(f"--control: '{folder}' occurs twice; expected another run")
        taken.append(osp.realpath(folder))
        found.append(read_finished(folder))
        check_same(run, found[-1])
    return found


def _default_control(run: FinishedRun) -> str | None:
    r"""Returns the default folder of the same run with ID embeddings, if it is
    finished.
    """
    from motor_geo.pipeline.train import default_folder

    names = {key: run.options.get(f'{key}.name') for key in ('data', 'model', 'items')}
    if None in names.values() or names['items'] == 'id':
        return None
    config: Config = {key: {'name': name} for key, name in {**names, 'items': 'id'}.items()}
    name = osp.basename(default_folder({**config, 'seed': run.result['seed']}))
    folder = osp.join(osp.dirname(osp.abspath(run.folder)), name)
    return folder if osp.isfile(osp.join(folder, 'result.json')) else None


if __name__ == '__main__':
    sys.exit(main())
