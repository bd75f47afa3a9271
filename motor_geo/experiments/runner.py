r"""Runs an experiment and writes its report.

An experiment is a list of variants. All settings of a variant are trained with
the first seed, and the best one on validation is trained with all seeds. Each
training is a run of :obj:`motor_geo.run` in :obj:`OUT/runs`. Any number of
processes can share these runs (see :mod:`motor_geo.experiments.queue`), and
running the same command again resumes them.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import os.path as osp
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from tqdm import tqdm

from motor_geo.experiments.baselines import FITTED, applicable
from motor_geo.experiments.metrics import read_metrics, spelled
from motor_geo.experiments.options import ExperimentOptions, Options, Variant, short
from motor_geo.experiments.queue import Job, RunQueue, in_folder
from motor_geo.experiments.registry import Experiment
from motor_geo.experiments.results import Results, VariantResults, rows
from motor_geo.experiments.search import override
from motor_geo.experiments.user_values import save_user_values
from motor_geo.pipeline.assemble import build_dataset, build_device, run_fingerprint
from motor_geo.pipeline.config import Config, reads_tokens, resolve
from motor_geo.pipeline.train import versions
from motor_geo.report.document import Report, RunInfo
from motor_geo.report.write import save, write
from motor_geo.utils.extras import needs

#: Exceptions that only mark a run as failed, so the other variants continue.
FAILURES = (ValueError, FloatingPointError, ImportError)


class Reproduction:
    r"""An experiment in a folder.

    Args:
        experiment: The experiment.
        options: The options of the experiment.
        out: The folder.
        seeds: Seeds of the runs. (default: :obj:`(0, 1, 2)`)
        general: Options of all runs that do not affect results.
            (default: :obj:`None`)

    Raises:
        ConfigError: If an option is invalid, or the folder is not writable.
        ImportError: If Matplotlib is not installed.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: ExperimentOptions,
        out: str,
        seeds: Sequence[int] = (0, 1, 2),
        general: Options | None = None,
    ):
        self.experiment, self.options, self.out = experiment, options, out
        self.seeds, self.general = list(seeds), general or {}
        self.metric = read_metrics(options.options).main
        self.variants = experiment.variants(options)
        if self.variants:
            check_packages()
        self._epochs = resolve({})['trainer']['epochs']
        self._known: dict[str, tuple[str, str]] = {}
        self._jobs: dict[str, Job] = {}
        for variant in self.variants:  # Find invalid settings before any training.
            self.tried(variant)
        self.queue = RunQueue(out, FAILURES)
        if osp.exists(osp.join(out, 'runs.log')):
            warnings.warn(
                f"'{osp.join(out, 'runs.log')}' is from an earlier version and is ignored: "
                'finished runs still count, and failed runs are tried again',
                stacklevel=2,
            )

    def job(self, variant: Variant, setting: Options, seed: int) -> Job:
        r"""Returns the run of a setting."""
        options = {**variant.options, **setting, 'seed': seed}
        if reads_tokens(options['items']):
            options['tokenizer.seed'] = seed
        if options['model'] in FITTED:
            options = applicable(options)
        key = json.dumps(options, sort_keys=True)
        if key not in self._jobs:
            config, identity = self._resolve(options)
            items = config['items']['name']
            name = '-'.join([*variant.label[:1], short(options['model']), items])
            name = f'{name}-seed{seed}-{identity[:10]}'
            if config['trainer']['epochs'] != self._epochs:  # The hash leaves out the epochs.
                name += f'-epochs{config["trainer"]["epochs"]}'
            folder = osp.join(self.out, 'runs', name)
            self._jobs[key] = Job(name, folder, options, in_folder(config, folder))
        return self._jobs[key]

    def _resolve(self, options: Options) -> tuple[Config, str]:
        r"""Returns the configuration of a run, and its hash."""
        config = resolve(override(self.general, options))
        return config, run_fingerprint(config, self._data(config)[1])

    def _data(self, config: Config) -> tuple[str, str]:
        r"""Returns the name and the hash of the data, without keeping the data in
        memory.
        """
        key = json.dumps(config['data'], sort_keys=True)
        if key not in self._known:
            dataset = build_dataset(config)
            self._known[key] = dataset.name, dataset.fingerprint
        return self._known[key]

    def tried(self, variant: Variant) -> list[Job]:
        r"""Returns the runs that choose the setting of a variant."""
        return [self.job(variant, setting, self.seeds[0]) for setting in variant.settings]

    def finals(self, variant: Variant, setting: Options) -> list[Job]:
        r"""Returns the runs of a chosen setting, one per seed."""
        return [self.job(variant, setting, seed) for seed in self.seeds]

    def results(self) -> list[VariantResults]:
        r"""Returns the results of the variants so far."""
        out = []
        for variant in self.variants:
            tried, found, setting = self.tried(variant), [], None
            for entry, job in zip(variant.settings, tried):
                result = self.queue.result(job.folder)
                if result is not None:
                    found.append((entry, float(result['val'][self.metric])))
            if found and not any(self.queue.is_open(job.folder) for job in tried):
                setting = max(found, key=lambda pair: pair[1])[0]  # The first one wins ties.
            jobs, own = [], []
            for job in [] if setting is None else self.finals(variant, setting):
                result = self.queue.result(job.folder)
                if result is not None:
                    jobs.append(job)
                    own.append(result)
            out.append(VariantResults(variant, setting, found, jobs, own))
        return out

    def failed(self) -> dict[str, str]:
        r"""Returns the names and error messages of failed runs."""
        errors = {job.name: self.queue.error(job.folder) for job in self._jobs.values()}
        return {name: error for name, error in errors.items() if error is not None}

    def retry(self) -> None:
        r"""Reopens the failed runs of this experiment."""
        self.results()  # Registers all runs.
        self.queue.retry(job.folder for job in self._jobs.values())

    def open(self) -> tuple[list[Job], int, int]:
        r"""Returns the runs that can start now, the number of unfinished runs, and
        the total number of runs.
        """
        results, later = self.results(), 0
        jobs = {job.name: job for own in results for job in self.tried(own.variant)}
        for own in results:
            if own.setting is not None:
                jobs.update({job.name: job for job in self.finals(own.variant, own.setting)})
            elif any(self.queue.error(job.folder) is None for job in self.tried(own.variant)):
                later += len(self.seeds) - 1
        ready = [job for job in jobs.values() if self.queue.is_open(job.folder)]
        return ready, len(ready) + later, len(jobs) + later

    def work(self, budget: float = math.inf, progress: bool = True, jobs: int = 1) -> bool:
        r"""Executes runs until none is left.

        Args:
            budget: Start no run after this many hours. (default: :obj:`inf`)
            progress: Whether to show progress. (default: :obj:`True`)
            jobs: Number of processes at work, to estimate the remaining time.
                (default: :obj:`1`)

        Returns:
            Whether all runs are done.
        """
        end = time.monotonic() + 3600 * budget
        shape = '{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} runs{postfix}'
        hide = not progress or not self.variants
        with tqdm(desc='reproduce', bar_format=shape, disable=hide) as bar:
            while True:
                ready, left, total = self.open()
                bar.total, bar.n = total, total - left
                bar.set_postfix_str(self.remaining(ready, left, jobs))
                if left == 0:
                    for job in self._jobs.values():  # Another process may have been killed here.
                        if self.queue.result(job.folder) is not None:
                            self.tidy(job)
                    return True
                parent = multiprocessing.parent_process()
                if time.monotonic() > end or (parent is not None and not parent.is_alive()):
                    return False
                known = {job.folder: job for job in ready}
                with self.queue.claim(known) as folder:
                    line = None if folder is None else self.run_job(known[folder])
                if line is None:
                    time.sleep(1)  # Other processes hold all open runs.
                elif progress:
                    tqdm.write(line)

    def run_job(self, job: Job) -> str:
        r"""Executes a run whose lock this process holds, and returns a log line."""
        result = self.queue.run_job(job.config)
        if isinstance(result, str):
            return f'{job.name} failed: {result}'
        self.tidy(job)
        return f'{job.name}: {self.metric} {result["val"][self.metric]:.4f} on validation'

    def tidy(self, job: Job) -> None:
        r"""Removes files that a finished run no longer needs."""
        for file in ('last.pt', 'tokenizer.pt'):
            with suppress(FileNotFoundError):
                os.remove(osp.join(job.folder, file))

    def remaining(self, ready: Sequence[Job], left: int, jobs: int) -> str:
        r"""Estimates the remaining time from finished runs of the same backbone on
        the same data. Without such runs, this uses the mean over all of them.
        """
        seconds: dict[tuple[str, str], list[float]] = {}
        for job in self._jobs.values():
            result = self.queue.result(job.folder)
            if result is not None:
                key = self._data(job.config)[0], job.options['model']
                seconds.setdefault(key, []).append(result['seconds'])
        if left == 0 or not seconds:
            return ''
        mean = {key: float(np.mean(values)) for key, values in seconds.items()}
        overall = float(np.mean(list(mean.values())))
        expected = [
            mean.get((self._data(job.config)[0], job.options['model']), overall) for job in ready
        ]
        total = sum(expected) + (left - len(ready)) * (np.mean(expected) if expected else overall)
        minutes = math.ceil(total / 60 / jobs)
        return f'about {minutes // 60} h {minutes % 60} min left'

    def report(self, name: str, command: str) -> list[str]:
        r"""Writes the report of all results so far. If the report has another
        name than the experiment, this name is the prefix of the figure files,
        so several reports can share a folder.

        Args:
            name: Name of the report.
            command: The command, for the report.

        Returns:
            The paths of the files.
        """
        from motor_geo.experiments.views import blocks

        results = self.results()
        found = Results(self.experiment, self.options, results)
        prefix = '' if name == self.experiment.name else f'{name}-'
        runs = {
            job.name: RunInfo(
                osp.relpath(job.folder, self.out),
                job.command,
                int(result['seed']),
                float(result['seconds']),
                int(result['best_epoch']),
            )
            for own in results
            for job, result in zip(own.jobs, own.results)
        }
        out = Report(
            name=name,
            title=f'{name}: {self.experiment.title}',
            intro=self.intro(),
            command=command,
            machine={**versions(), 'device': str(build_device(self.general.get('device', 'auto')))},
            blocks=blocks(found, prefix),
            runs=runs,
        )
        paths = [*write(out, self.out), save(out, self.out, rows(results, self.metric))]
        path = osp.join(self.out, f'{name}.npz')
        kept = save_user_values(path, found.user_values, self.experiment.reference)
        return [*paths, path] if kept else paths

    def intro(self) -> str:
        r"""Describes the finished, unfinished and failed runs."""
        lines = [self.experiment.note] if self.experiment.note else []
        if self.variants:
            efforts = sorted({len(variant.settings) for variant in self.variants})
            lines.append(
                f'{spelled(self.metric)} on validation with seed {self.seeds[0]} chooses among '
                f'{" or ".join(map(str, efforts))} settings per variant. The chosen setting is '
                f'trained with the seeds {", ".join(map(str, self.seeds))}. Test metrics are those '
                'of the best epoch on validation.'
            )
            _, left, total = self.open()
            if left:
                lines.append(f'Of {total} runs, {left} are not finished; missing values are –.')
            lines += [f'The run {name} failed: {why}' for name, why in self.failed().items()]
        return '\n\n'.join(lines)


def check_packages() -> None:
    r"""Checks that the report can be written.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(needs('A reproduction', 'matplotlib', extra='reproduce')) from error
