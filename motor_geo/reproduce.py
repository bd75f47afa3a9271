r"""Runs an experiment of a paper and writes a report:
:obj:`python -m motor_geo.reproduce table2 --data FOLDER`.

:mod:`motor_geo.experiments.runner` describes the runs of an experiment and how
processes share them.
"""

from __future__ import annotations

import multiprocessing
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from motor_geo.experiments.command import parser, prepare
from motor_geo.utils.errors import ConfigError, run_command
from motor_geo.utils.memory import tune_process

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess


def render(arguments: Sequence[str]) -> list[str] | None:
    r"""Writes the pages of reports if :obj:`--render` is given. Returns their
    paths, or :obj:`None` without :obj:`--render`.

    Raises:
        ConfigError: If another option than :obj:`--out` is given.
    """
    options, rest = parser().parse_known_args(arguments)
    if options.render is None:
        return None
    if options.name is not None or rest:
        what = options.name or rest[0]
        raise ConfigError(f"--render: expected no option other than --out, got '{what}'")
    from motor_geo.report.write import render_folder

    return render_folder(options.render, options.out)


def _worker(arguments: Sequence[str], budget: float) -> None:
    def command() -> int:
        prepare(arguments)[1].work(budget, progress=False)
        return 0

    tune_process()
    run_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    tune_process()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    helpers: list[BaseProcess] = []
    status = run_command(
        lambda: command(arguments, helpers), 'interrupted; run the same command to resume'
    )
    if status != 0:
        for process in helpers:
            process.terminate()
    return status


def command(arguments: Sequence[str], helpers: list[BaseProcess]) -> int:
    r"""Checks the arguments, executes the runs, and writes the report."""
    if (pages := render(arguments)) is not None:
        print(f'written: {len(pages)} files')
        return 0
    options, reproduction = prepare(arguments)
    if options.retry:
        reproduction.retry()
    context = multiprocessing.get_context('spawn')
    for _ in range(options.jobs - 1):
        helpers.append(context.Process(target=_worker, args=(arguments, options.budget)))
        helpers[-1].start()
    done = reproduction.work(options.budget, jobs=options.jobs)
    for process in helpers:
        process.join()
    line = shlex.join(['python', '-m', 'motor_geo.reproduce', *arguments])
    paths = reproduction.report(options.report, line)
    if not done:
        print('the time budget is used up; run the same command to continue')
    for path in paths:
        print(f"written: '{path}'")
    return 0


if __name__ == '__main__':
    sys.exit(main())
