r"""Carries out the list of runs that an experiment is, and reports it.

An experiment is a list of contenders. What is tried for each on validation is
trained with the first seed, and what was best with all of them; each of these
is a run as :mod:`motor_geo.run` makes it, in :obj:`OUT/runs`. Which of them are
running, finished or failed is in a journal of Optuna, and the process that
carries out a run holds a lock on its folder, however it may end: any number of
processes can work on the same list, and the same command goes on with it.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import os.path as osp
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from motor_geo.experiments.queue import Job, Journal, Outcome
from motor_geo.experiments.registry import Experiment
from motor_geo.experiments.results import user_values
from motor_geo.experiments.search import override
from motor_geo.experiments.user_values import save_user_values
from motor_geo.experiments.variants import Contender, Options, Setup
from motor_geo.nn.token_cross import MODES
from motor_geo.pipeline.assemble import build_dataset, build_device, run_fingerprint
from motor_geo.pipeline.config import Config, resolve
from motor_geo.pipeline.train import run, versions
from motor_geo.report.document import Figure, Report, RunInfo
from motor_geo.report.write import save, write
from motor_geo.utils.errors import one_line


class Reproduction:
    r"""An experiment in a folder.

    Args:
        experiment: The experiment.
        setup: What it is carried out on.
        out: The folder.
        seeds: Seeds of the runs.
        general: Options of all runs that change no result.

    Raises:
        ConfigError: If an option is wrong, or no contender can be trained.
        ImportError: If Optuna is not installed.
    """

    def __init__(
        self,
        experiment: Experiment,
        setup: Setup,
        out: str,
        seeds: Sequence[int] = (0, 1, 2),
        general: Options | None = None,
    ):
        self.experiment, self.setup, self.out, self.seeds = experiment, setup, out, list(seeds)
        self.general = general or {}
        self.contenders = experiment.contenders(setup)
        self._epochs = resolve({})['trainer']['epochs']
        self._known: dict[str, tuple[str, str]] = {}
        self._results: dict[str, dict[str, Any]] = {}
        self._jobs: dict[str, Job] = {}
        for contender in self.contenders:  # Mistakes are found before any training.
            for setting in contender.settings:
                self.job(contender, setting, self.seeds[0])
        self.journal = Journal(out) if self.contenders else None

    def job(self, contender: Contender, setting: Options, seed: int) -> Job:
        r"""The run of a setting."""
        options = {**contender.options, **setting, 'seed': seed}
        if options['items'] in MODES:
            options['tokenizer.seed'] = seed
        key = json.dumps(options, sort_keys=True)
        if key not in self._jobs:
            config = resolve(override(self.general, options))
            name = '-'.join([*contender.label[:1], options['model'], options['items']])
            name = f'{name}-seed{seed}-{run_fingerprint(config, self._data(config)[1])[:10]}'
            if config['trainer']['epochs'] != self._epochs:  # Which a run can be continued with.
                name += f'-epochs{config["trainer"]["epochs"]}'
            folder = osp.join(self.out, 'runs', name)
            self._jobs[key] = Job(name, folder, options, {**config, 'out': folder})
        return self._jobs[key]

    def _data(self, config: Config) -> tuple[str, str]:
        r"""Name and hash of the data; they themselves may be large."""
        key = json.dumps(config['data'], sort_keys=True)
        if key not in self._known:
            dataset = build_dataset(config)
            self._known[key] = dataset.name, dataset.fingerprint
        return self._known[key]

    def result(self, job: Job) -> dict[str, Any] | None:
        r"""The result of a run that is finished."""
        path = osp.join(job.folder, 'result.json')
        if job.name not in self._results and osp.exists(path):
            with open(path) as file:
                self._results[job.name] = json.load(file)
        return self._results.get(job.name)

    def outcomes(self) -> list[Outcome]:
        r"""What came of the contenders so far."""
        failed = {} if self.journal is None else self.journal.failed()
        out = []
        for contender in self.contenders:
            tried, setting = [], None
            first = [self.job(contender, entry, self.seeds[0]) for entry in contender.settings]
            for entry, job in zip(contender.settings, first):
                result = self.result(job)
                if result is not None:
                    tried.append((entry, float(result['val']['recall@20'])))
            if tried and all(self.result(job) or job.name in failed for job in first):
                setting = max(tried, key=lambda pair: pair[1])[0]  # The first of equals.
            jobs = [] if setting is None else self.finals(contender, setting)
            jobs = [job for job in jobs if self.result(job) is not None]
            results = [self._results[job.name] for job in jobs]
            out.append(Outcome(contender, setting, tried, jobs, results))
        return out

    def finals(self, contender: Contender, setting: Options) -> list[Job]:
        r"""The runs of a chosen setting, one per seed."""
        return [self.job(contender, setting, seed) for seed in self.seeds]

    def retry(self) -> None:
        r"""Opens the failed runs of this experiment again."""
        if self.journal is not None:
            self.outcomes()  # With these, all runs are known.
            self.journal.retry(job.name for job in self._jobs.values())

    def open(self) -> tuple[list[Job], int, int]:
        r"""Runs that can be carried out now, the number of all that are left,
        and the number of all.
        """
        assert self.journal is not None
        failed, jobs, later, total = self.journal.failed(), {}, 0, {}
        outcomes = self.outcomes()
        for outcome in outcomes:
            for setting in outcome.contender.settings:
                job = self.job(outcome.contender, setting, self.seeds[0])
                total[job.name] = jobs[job.name] = job
        for outcome in outcomes:
            if outcome.setting is None:
                settings = outcome.contender.settings
                first = [self.job(outcome.contender, entry, self.seeds[0]) for entry in settings]
                if not all(job.name in failed for job in first):
                    later += len(self.seeds) - 1
            else:
                for job in self.finals(outcome.contender, outcome.setting):
                    total[job.name] = jobs[job.name] = job
        ready = [
            job for job in jobs.values() if job.name not in failed and self.result(job) is None
        ]
        return ready, len(ready) + later, len(total) + later

    def work(self, budget: float = math.inf, progress: bool = True, jobs: int = 1) -> bool:
        r"""Carries out runs until none is left; returns whether that is so.

        Args:
            budget: Hours after which no run is started any more.
            progress: Whether progress is shown.
            jobs: Number of processes at work, for the remaining time.
        """
        if self.journal is None:
            return True
        end = time.monotonic() + 3600 * budget
        shape = '{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} runs{postfix}'
        with tqdm(desc='reproduce', bar_format=shape, disable=not progress) as bar:
            while True:
                ready, left, total = self.open()
                bar.total, bar.n = total, total - left
                bar.set_postfix_str(self.remaining(ready, left, jobs))
                if left == 0:
                    return True
                parent = multiprocessing.parent_process()
                if time.monotonic() > end or (parent is not None and not parent.is_alive()):
                    return False
                claimed = self.journal.claim(ready)
                if claimed is None:
                    time.sleep(1)  # Others are at work.
                else:
                    self.carry_out(*claimed, progress=progress)

    def carry_out(self, job: Job, number: int, lock: TextIO, progress: bool) -> None:
        assert self.journal is not None
        with lock:
            try:
                quiet = {**job.config['trainer'], 'progress': False}
                result = run({**job.config, 'trainer': quiet}, progress=False)
            except (ValueError, FloatingPointError) as error:
                # What one contender cannot do must not end the others.
                self.journal.tell(number, None, one_line(error))
                if progress:
                    tqdm.write(f'{job.name} failed: {one_line(error)}')
                return
            for name in ('last.pt', 'tokenizer.pt'):
                if osp.exists(path := osp.join(job.folder, name)):
                    os.remove(path)
            self.journal.tell(number, result['val']['recall@20'])
        if progress:
            tqdm.write(f'{job.name}: recall@20 {result["val"]["recall@20"]:.4f} on validation')

    def remaining(self, ready: Sequence[Job], left: int, jobs: int) -> str:
        r"""How long it will take, from the runs of the same backbone on the
        same data; those of which nothing is known count as the mean of all.
        """
        seconds: dict[tuple[str, str], list[float]] = {}
        for result in self._results.values():
            seconds.setdefault((result['data'], result['model']), []).append(result['seconds'])
        if left == 0 or not seconds:
            return ''
        mean = {key: float(np.mean(values)) for key, values in seconds.items()}
        overall = float(np.mean(list(mean.values())))
        expected = [
            mean.get((self._data(job.config)[0], job.config['model']['name']), overall)
            for job in ready
        ]
        total = sum(expected) + (left - len(ready)) * (np.mean(expected) if expected else overall)
        minutes = math.ceil(total / 60 / jobs)
        return f'about {minutes // 60} h {minutes % 60} min left'

    def report(self, name: str, command: str) -> list[str]:
        r"""Writes the report of what is there. Files of figures bear its name
        if it is not that of the experiment, so that reports stand side by side.
        """
        from motor_geo.experiments.views.comparison import blocks

        outcomes = self.outcomes()
        shown = blocks(self.experiment, self.setup, outcomes)
        if name != self.experiment.name:
            shown = [
                block._replace(name=f'{name}-{block.name}') if isinstance(block, Figure) else block
                for block in shown
            ]
        runs = {
            job.name: RunInfo(
                osp.relpath(job.folder, self.out),
                job.command,
                int(result['seed']),
                float(result['seconds']),
                int(result['best_epoch']),
            )
            for outcome in outcomes
            for job, result in zip(outcome.jobs, outcome.results)
        }
        failed = {} if self.journal is None else self.journal.failed()
        out = Report(
            name=name,
            title=f'{name}: {self.experiment.title}',
            intro=self.intro(outcomes, failed),
            command=command,
            machine={**versions(), 'device': str(build_device(self.general.get('device', 'auto')))},
            blocks=shown,
            runs=runs,
        )
        paths = [*write(out, self.out), save(out, self.out, rows(outcomes))]
        path = osp.join(self.out, f'{name}.npz')
        values = user_values(self.experiment, outcomes)
        kept = save_user_values(path, values, self.experiment.reference)
        return [*paths, path] if kept else paths

    def intro(self, outcomes: Sequence[Outcome], failed: Mapping[str, str]) -> str:
        r"""What was done, and what was not."""
        lines = [self.experiment.note] if self.experiment.note else []
        if self.contenders:
            efforts = sorted({len(contender.settings) for contender in self.contenders})
            lines.append(
                f'Settings are chosen by Recall@20 on validation with seed {self.seeds[0]}, '
                f'{" or ".join(map(str, efforts))} of them for every contender, and trained with '
                f'the seeds {", ".join(map(str, self.seeds))}. Test metrics are those of the best '
                'epoch on validation.'
            )
            _, left, total = self.open()
            if left:
                lines.append(f'Of {total} runs, {left} are not finished: what they belong to is –.')
            names = {job.name for job in self._jobs.values()}
            mine = {name: error for name, error in failed.items() if name in names}
            lines += [f'The run {name} failed: {error}' for name, error in mine.items()]
        return '\n\n'.join(lines)


def rows(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    r"""What was measured, a row per run of a chosen setting, and what was
    tried for it.
    """
    keys = ('seed', 'epochs', 'best_epoch', 'seconds', 'num_parameters', 'test', 'slices')
    for outcome in outcomes:
        for job, result in zip(outcome.jobs, outcome.results):
            yield {
                'label': outcome.contender.label,
                'tried': outcome.tried,
                'command': job.command,
                'val': result['val']['recall@20'],
                **{key: result[key] for key in keys},
            }
