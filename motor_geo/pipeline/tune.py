r"""Chooses among a few settings on validation: :obj:`--tune`."""

from __future__ import annotations

import dataclasses
import logging
import os
import os.path as osp
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch

from motor_geo.data import OPQTokenizer, RecommendationDataset
from motor_geo.pipeline.assemble import (
    Assembly,
    assemble,
    build_dataset,
    build_device,
    check_splits,
    run_fingerprint,
)
from motor_geo.pipeline.config import Config, RunConfig, merge
from motor_geo.pipeline.flags import expand, flatten, read_yaml
from motor_geo.pipeline.folder import begun_tokenizer, check_data, check_sources
from motor_geo.pipeline.loggers import build_loggers, closing_all
from motor_geo.pipeline.settings import Options, settings_of, settings_of_loss
from motor_geo.pipeline.train import (
    build_evaluator,
    build_trainer,
    check_folder,
    claim_folder,
    default_folder,
    hold_folder,
    read_result,
    train,
)
from motor_geo.utils.errors import ConfigError
from motor_geo.utils.files import atomic_write, writing

LOG = logging.getLogger(__name__)

#: Numbers of epochs after which the best third of the settings continues.
RUNGS = (5, 15)
#: Files of training. The checkpoint to resume from is copied last.
TRAINED = ('metrics.jsonl', 'best.pt', 'last.pt')


@dataclasses.dataclass
class Trial:
    r"""A setting to try.

    Args:
        options: The options of the setting, by dotted name.
        config: The configuration of its run.
        epochs: Number of epochs trained so far. (default: :obj:`0`)
        value: Best validation metric so far. (default: :obj:`-inf`)
        seconds: Seconds of training and validation. (default: :obj:`0.0`)
        error: Error message if training failed. (default: :obj:`None`)
    """

    options: Options
    config: RunConfig
    epochs: int = 0
    value: float = float('-inf')
    seconds: float = 0.0
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        r"""Returns the entry of the trial in :obj:`result.json`."""
        out: dict[str, Any] = {'options': self.options, 'epochs': self.epochs}
        if self.error is None:
            return {**out, 'value': self.value}
        return {**out, 'value': None, 'error': self.error}


def tune(options: Config, progress: bool = True) -> dict[str, Any]:
    r"""Chooses among a few settings on validation by successive halving, and
    evaluates the best one on test.

    The settings are those of the loss
    (:func:`~motor_geo.pipeline.settings.settings_of_loss`) if it has any, and
    otherwise those of the model
    (:func:`~motor_geo.pipeline.settings.settings_of`). All settings are trained
    for five epochs, the best third for fifteen epochs, and the best third of
    those until the end. Up to three settings are compared only once, after
    fifteen epochs. The folder :obj:`OUT/tune` holds the trials, and
    :obj:`OUT` holds the chosen run. The entry :obj:`tuned` of its result lists
    all trials.

    Args:
        options: The options of the run. Options given here are not tuned.
        progress: Whether to show progress. (default: :obj:`True`)

    Returns:
        The content of :obj:`result.json` of the chosen run.

    Raises:
        ConfigError: If a setting is invalid, there is nothing to tune, or the
            folder holds another run.
        FloatingPointError: If the loss is not finite with any setting.
    """
    base = RunConfig.of(options)
    build_device(base.device)
    if base.threads is not None:
        torch.set_num_threads(base.threads)
    out = base.out or tuned_folder(base)
    trials = find_trials(options, base, osp.join(out, 'tune'))
    dataset = build_dataset(base)
    check_splits(dataset, 'val')
    result = check_out(out, trials, dataset)
    if progress:
        LOG.info('%s', dataset)
        if result is not None:
            LOG.info("'%s' is already finished; delete it to run again", out)
    if result is not None:
        return result
    for trial in trials:
        check_run(str(trial.config.out), trial.config, dataset)

    # Check the settings before fitting tokens or writing files.
    first = assemble(trials[0].config, dataset)
    build_trainer(first, out, progress=False)
    with closing_all(build_loggers(base, out)), ExitStack() as stack:
        hold_folder(stack, out)
        result = check_out(out, trials, dataset)  # Another process may have been faster.
        if result is not None:
            return result
        first.add_tokens(begun_tokenizer(str(trials[0].config.out), first.tokenizer))
        tuner = Tuner(dataset, first.tokenizer, progress)
        del first
        ranked = halve(trials, tuner.train, base.trainer['epochs'], tuner.report)
        return tuner.finish(ranked, out)


def tuned_folder(config: RunConfig) -> str:
    r"""Returns the default folder of a tuned run."""
    return f'{default_folder(config)}-tuned'


def find_trials(options: Config, base: RunConfig, folder: str) -> list[Trial]:
    r"""Returns the settings to try, each with its own folder.

    Raises:
        ConfigError: If there are no settings, or the given options leave at
            most one of them.
    """
    options = expand(options)
    model, given = base.model['name'], flatten(options)
    settings = settings_of_loss(base.loss['name'])
    if settings == [{}]:
        settings = settings_of(base.target('model'))
    keys = list(settings[0])
    if not keys:
        raise ConfigError(
            f'--tune: there are no settings to try for {model} in configs/sweep/{model}.yaml; '
            'remove --tune, or search with motor_geo.sweep'
        )
    left: list[Options] = []
    for setting in settings:
        own = {key: value for key, value in setting.items() if key not in given}
        if own not in left:
            left.append(own)
    if len(left) < 2:
        raise ConfigError(
            f'--tune: nothing is left to try for {model}, since {" and ".join(keys)} '
            f'{"is" if len(keys) == 1 else "are"} given; remove --tune or one of these options'
        )
    trials = []
    for own in left:
        config = RunConfig.of(merge(options, expand(own)))
        name = '-'.join(f'{key.partition(".")[2]}{value}' for key, value in own.items())
        trials.append(Trial(own, dataclasses.replace(config, out=osp.join(folder, name))))
    return trials


def check_run(folder: str, config: RunConfig, dataset: RecommendationDataset) -> None:
    r"""Checks that a folder does not hold a run with another configuration.

    Raises:
        ConfigError: If the folder holds such a run.
    """
    check_folder(config, folder)
    check_data(folder, config, dataset)
    check_sources(folder, config)


def check_out(
    out: str, trials: Sequence[Trial], dataset: RecommendationDataset
) -> dict[str, Any] | None:
    r"""Returns the result if the folder holds that of a finished search among
    the same trials. Returns :obj:`None` if it is not finished, or if the
    options now ask for more epochs.

    Raises:
        ConfigError: If the folder holds anything else.
    """
    path = osp.join(out, 'config.yaml')
    old = flatten(read_yaml(path)) if osp.exists(path) else {}
    same = (trial for trial in trials if trial.options.items() <= old.items())
    trial = next(same, trials[0])
    check_run(out, trial.config, dataset)
    if not old:
        return None
    fingerprint = run_fingerprint(trial.config, dataset.fingerprint)
    path, result = osp.join(out, 'result.json'), read_result(out, fingerprint, trial.config)
    if result is None and osp.isdir(osp.join(out, 'tune')):
        return None
    tuned = (result or {}).get('tuned')
    if tuned is None:
        raise ConfigError(
            f"'{out}' holds a run whose settings were not chosen with --tune; choose another --out "
            'or delete it'
        )
    options = [entry['options'] for entry in tuned['tried']]
    if len(options) != len(trials) or any(trial.options not in options for trial in trials):
        raise ConfigError(
            f"'{path}' was chosen among other settings; choose another --out or delete it"
        )
    return result


def halve(
    trials: Sequence[Trial],
    train: Callable[[Trial, int, bool], None],
    epochs: int,
    report: Callable[[Sequence[Trial], int], None],
) -> list[Trial]:
    r"""Trains trials by successive halving, where the best third of each rung
    continues, as in the `"Hyperband: A Novel Bandit-Based Approach to
    Hyperparameter Optimization" <https://arxiv.org/abs/1603.06560>`_ paper.
    Returns the trials, best first.

    Args:
        trials: The trials.
        train: Trains a trial up to a number of epochs. The last argument is
            :obj:`True` if no other trial is left.
        epochs: Maximum number of epochs.
        report: Called with the trials of a rung, best first, and the number
            of trials that continue.

    Raises:
        FloatingPointError: If all trials fail.
    """
    left, lost = list(trials), list[Trial]()
    # A single cut comes late, when metrics are more reliable.
    for rung in RUNGS if len(trials) > 3 else RUNGS[-1:]:
        for trial in left:
            train(trial, min(rung, epochs), False)
        left = best_first(left)
        keep = -(-len(left) // 3)
        report(left, keep)
        left, lost = left[:keep], left[keep:] + lost
    for trial in left:
        train(trial, epochs, len(left) == 1)
    return best_first(left) + lost


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    r"""Sorts trials by validation metric. Ties keep their order.

    Raises:
        FloatingPointError: If all trials have failed.
    """
    out = sorted(trials, key=lambda trial: -trial.value)
    if out[0].error is not None:
        raise FloatingPointError(f'{in_words(out[0].options)}: {out[0].error}')
    return out


class Tuner:
    r"""Trains trials that differ only in options of model, loss and trainer.

    Args:
        dataset: The data set of all trials.
        tokenizer: The fitted tokenizer of all trials, if they have one.
        progress: Whether to show progress.
    """

    def __init__(
        self, dataset: RecommendationDataset, tokenizer: OPQTokenizer | None, progress: bool
    ):
        self.dataset, self.tokenizer, self.progress = dataset, tokenizer, progress

    def assemble(self, config: RunConfig) -> Assembly:
        r"""Builds the objects of a trial, including tokens."""
        assembly = assemble(config, self.dataset)
        assembly.add_tokens(self.tokenizer)
        return assembly

    def train(self, trial: Trial, epochs: int, alone: bool) -> None:
        r"""Trains a trial up to a number of epochs, from its last checkpoint."""
        if trial.error is not None:
            return
        out, metric = str(trial.config.out), trial.config.trainer['metric']
        assembly = self.assemble(trial.config)
        trainer = build_trainer(assembly, out, self.progress and alone)
        trainer.epochs = min(trainer.epochs, epochs)
        claim_folder(assembly, out)
        try:
            fit = trainer.fit()
        except FloatingPointError as error:
            trial.value, trial.error = float('-inf'), str(error)
            return
        # An interrupted command may have trained the trial for longer.
        values = [entry['val'][metric] for entry in fit.history[:epochs]]
        rounded = [round(value, 4) for value in values]
        trial.value, trial.epochs = values[rounded.index(max(rounded))], len(values)
        trial.seconds = fit.seconds

    def report(self, trials: Sequence[Trial], keep: int) -> None:
        r"""Logs a line per rung."""
        if self.progress:
            best, metric = trials[0], trials[0].config.trainer['metric']
            LOG.info(
                '%d settings %s: %s is best (%s %.4f), %d %s',
                *(len(trials), after(best.epochs), in_words(best.options), metric, best.value),
                *(keep, 'continues' if keep == 1 else 'continue'),
            )

    def finish(self, trials: Sequence[Trial], out: str) -> dict[str, Any]:
        r"""Copies the run of the first trial, and evaluates it on test. Its
        epochs are logged at this point.
        """
        best = trials[0]
        config = dataclasses.replace(best.config, out=out)
        assembly = self.assemble(config)
        loggers = build_loggers(config, out)
        test = build_evaluator(assembly, 'test')
        trainer = build_trainer(assembly, out, progress=False)
        with suppress(FileNotFoundError):  # A result of fewer epochs.
            os.remove(osp.join(out, 'result.json'))
        for name in TRAINED:
            path = osp.join(out, name)
            with writing(path), atomic_write(path) as temporary:
                shutil.copyfile(osp.join(str(best.config.out), name), temporary)
        tuned = {
            'metric': config.trainer['metric'],
            'chosen': best.options,
            'seconds': round(sum(trial.seconds for trial in trials), 3),
            'tried': [trial.to_dict() for trial in trials],
        }
        with closing_all(loggers):
            for entry in trainer.fit().history:
                for logger in loggers:
                    logger.log(entry)
            return train(assembly, trainer, test, out, {'tuned': tuned})


def in_words(options: Options) -> str:
    r"""Describes a setting in words."""
    return ', '.join(
        f'{key} {f"{value:g}" if isinstance(value, float) else value}'
        for key, value in options.items()
    )


def after(epochs: int) -> str:
    r"""Describes a number of epochs in words."""
    return f'after {epochs} {"epoch" if epochs == 1 else "epochs"}'


def sentence(tuned: dict[str, Any]) -> str:
    r"""Summarizes the choice, from the entry :obj:`tuned` of a result."""
    best, second = tuned['tried'][:2]
    if second['value'] is None:
        other = f'{in_words(second["options"])} failed'
    else:
        other = (
            f'second best {in_words(second["options"])} with {second["value"]:.4f} '
            f'{after(second["epochs"])}'
        )
    return (
        f'chosen among {len(tuned["tried"])} settings on validation: {in_words(best["options"])} '
        f'({tuned["metric"]} {best["value"]:.4f}; {other}; {tuned["seconds"]:.1f} s in all)'
    )
