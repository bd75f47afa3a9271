r"""Breaks the package in one line at a time, in a copy, and runs the tests that should notice.

    python -m tests.faults.breaks [NAME ...]

The tests of a break are those beside the broken file; the suite as a whole may notice more.
"""

import argparse
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from typing import NamedTuple

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Break(NamedTuple):
    r"""A line that says something else, and the tests that should notice."""

    path: str
    old: str
    new: str
    tests: str


TRAIN, LOOP = 'motor_geo/pipeline/train.py', 'motor_geo/engine/epoch_loop.py'
ASSEMBLE, FOLDER = 'motor_geo/pipeline/assemble.py', 'motor_geo/pipeline/folder.py'
TUNE, CACHE = 'motor_geo/pipeline/tune.py', 'motor_geo/utils/cache.py'
FILES, QUEUE = 'motor_geo/utils/files.py', 'motor_geo/experiments/queue.py'
RANKING, SPLIT = 'motor_geo/utils/ranking.py', 'motor_geo/data/datasets/split.py'
EVALUATOR, SAMPLER = 'motor_geo/engine/evaluator.py', 'motor_geo/data/sampler.py'
CROSS, FREEDOM = 'motor_geo/nn/token_cross.py', 'motor_geo/nn/models/freedom.py'
BASE, SWEEP = 'motor_geo/data/datasets/base.py', 'motor_geo/experiments/sweep.py'
OF_TRAIN, OF_LOOP = 'pipeline/test_train.py', 'engine/test_epoch_loop.py engine/test_trainer.py'
OF_ASSEMBLE, OF_TUNE = 'pipeline/test_assemble.py', 'pipeline/test_tune.py'
#: Seconds that tests of a break may take: some breaks end in a loop.
LONGEST = 900
#: Takes half a minute, and looks at locks alone.
SLOW = 'test_two_processes_do_not_share_a_folder'
#: Writes the second checkpoint before the first.
TOO_EARLY = (
    "late = {**parts, 'history': json.dumps(self.history), 'inputs': self._inputs}\n"
    "        save_checkpoint(osp.join(self.out, 'last.pt'), late, **meta)"
)

BREAKS = {
    # What a run does.
    'best weights': Break(
        TRAIN, 'load_weights(assembly, out, fit.best_epoch)', 'assembly.model.eval()', OF_TRAIN
    ),
    'mask of validation': Break(
        TRAIN, "masked = split == 'test' and", "masked = split == 'val' and", OF_TRAIN
    ),
    'loss of old runs': Break(TRAIN, "old.setdefault('loss.name', 'published')", 'pass', OF_TRAIN),
    'another run': Break(TRAIN, 'old.get(key) != new.get(key)', 'False', OF_TRAIN),
    'seed of the trainer': Break(
        TRAIN, "'seed': config.seed,\n        'out'", "'seed': 0,\n        'out'", OF_TRAIN
    ),
    'per-user ranks': Break(TRAIN, 'measured.rank.cpu()', 'measured.user.cpu()', OF_TRAIN),
    'published loss in the hash': Break(
        ASSEMBLE, "if config['loss']['name'] == 'published':", 'if False:', OF_ASSEMBLE
    ),
    'objective': Break(ASSEMBLE, 'model.set_objective(objective)', 'pass', OF_ASSEMBLE),
    'clamp of channels': Break(
        ASSEMBLE,
        "options['channels'] = max(1, min(options['channels'], limit))",
        'pass',
        OF_ASSEMBLE,
    ),
    'epochs in the hash': Break(
        ASSEMBLE, "('trainer.epochs', 'trainer.progress', ", "('trainer.progress', ", OF_ASSEMBLE
    ),
    'seed of the model': Break(
        ASSEMBLE,
        'data = add_graphs(config, data)\n        torch.default_generator.manual_seed(config.seed)',
        'data = add_graphs(config, data)',
        OF_ASSEMBLE,
    ),
    'random state': Break(
        ASSEMBLE, 'with torch.random.fork_rng(devices=[]):', 'if True:', OF_ASSEMBLE
    ),
    'vectors of behavior': Break(
        ASSEMBLE, 'out = copy.copy(data)\n    if', 'out = data\n    if', OF_ASSEMBLE
    ),
    'mode of items': Break(
        'motor_geo/pipeline/config.py',
        "'recommended': 'mean'",
        "'recommended': 'specific'",
        'pipeline/test_config.py ' + OF_ASSEMBLE,
    ),
    'epoch of the weights': Break(
        FOLDER, 'epoch is not None and found_epoch != epoch', 'False', OF_TRAIN
    ),
    'tokenizer of the run': Break(
        FOLDER, 'return load_tokenizer(folder, expected)\n\n', 'return None\n\n', OF_TRAIN
    ),
    'best trial': Break(TUNE, '-trial.value', 'trial.value', OF_TUNE),
    'better third': Break(TUNE, '-(-len(left) // 3)', 'len(left)', OF_TUNE),
    'trial to the end': Break(TUNE, 'train(trial, epochs, len(left) == 1)', 'pass', OF_TUNE),
    # Training.
    'random numbers of epochs': Break(
        LOOP, 'SeedSequence((self.seed, epoch))', 'SeedSequence((self.seed, 0))', OF_LOOP
    ),
    'best before last': Break(
        LOOP,
        '# The order matters: if the process is killed in between, the epoch runs again.',
        TOO_EARLY,
        OF_LOOP,
    ),
    'weights of the best epoch': Break(LOOP, 'if self._failures() == 0:', 'if True:', OF_LOOP),
    'patience': Break(LOOP, 'self._failures() > self.patience and', 'False and', OF_LOOP),
    'ties': Break(
        LOOP,
        'values.index(max(values))',
        'len(values) - 1 - values[::-1].index(max(values))',
        OF_LOOP,
    ),
    'other tokens': Break(LOOP, 'known.get(name, value) != value', 'False', OF_LOOP),
    'optimizer in checkpoints': Break(
        'motor_geo/engine/trainer.py', "self.parts['optimizer'] = self.optimizer", 'pass', OF_LOOP
    ),
    'decay of the learning rate': Break(
        'motor_geo/engine/trainer.py',
        "group['lr'] = self.lr * factor",
        "group['lr'] = self.lr",
        OF_LOOP,
    ),
    'negatives': Break(SAMPLER, 'draw + skip)', 'draw)', 'data/test_sampler.py'),
    'shuffling': Break(
        SAMPLER,
        'SeedSequence([self.seed, epoch])',
        'SeedSequence([self.seed, 0])',
        'data/test_sampler.py',
    ),
    # Evaluation.
    'training items': Break(
        RANKING,
        '-math.inf)\n            value, index',
        '0)\n            value, index',
        'utils/test_ranking.py engine/test_evaluator.py',
    ),
    'tail of rows': Break(
        'motor_geo/utils/topk.py',
        'x.size(1)).expand',
        'x.size(1) - 1).expand',
        'utils/test_topk.py',
    ),
    'exclusion': Break(
        EVALUATOR, 'if self.exclude is not None:', 'if False:', 'engine/test_evaluator.py'
    ),
    'pairs count once': Break(
        EVALUATOR, 'targets.distinct()', 'targets', 'engine/test_evaluator.py'
    ),
    'discount': Break(
        'motor_geo/engine/metrics.py',
        '(rank + 1.0).log2()',
        '(rank + 2.0).log2()',
        'engine/test_metrics.py',
    ),
    'correction of p-values': Break(
        'motor_geo/experiments/significance.py',
        "method='bh'",
        "method='by'",
        'experiments/test_significance.py',
    ),
    # Data.
    'order in time': Break(
        SPLIT, 'from_end <= test + val', 'from_end <= test', 'data/datasets/test_split.py'
    ),
    'later split': Break(
        SPLIT,
        'label[timestamp >= bound]',
        'label[timestamp > bound]',
        'data/datasets/test_split.py',
    ),
    'held-out pairs of unknown users': Break(
        BASE,
        'count = np.bincount(user[label == 0], minlength',
        'count = np.bincount(user, minlength',
        'data/datasets',
    ),
    'targets of unseen items': Break(
        BASE, 'unseen = ~seen & self.known_items', 'unseen = ~seen', 'data/datasets'
    ),
    'test in the hash of data': Break(
        BASE, '[t.user, t.ptr, t.item, t.candidates]', '[t.user, t.ptr]', 'data/datasets'
    ),
    'one thread': Break(
        'motor_geo/data/transforms/fit_quantizer.py',
        'with one_thread():',
        'if True:',
        'data/transforms/test_fit_quantizer.py',
    ),
    # Models.
    'crosses': Break(
        CROSS, 'out + first + (first.square()', 'out + first + (first', 'nn/test_token_cross.py'
    ),
    'groups of modalities': Break(
        CROSS, "if mode == 'specific':", "if mode == 'agnostic':", 'nn/test_token_cross.py'
    ),
    'range of tokens': Break(
        CROSS, 'self._check_range(token_id, force=True)\n', 'pass\n', 'nn/test_token_cross.py'
    ),
    'smoothed items': Break(
        FREEDOM, 'out.item + self.smooth(data, item))', 'out.item)', 'nn/models/test_freedom.py'
    ),
    'regularizer of LightGCN': Break(
        'motor_geo/nn/models/lightgcn.py',
        'frobenius_reg(*own, ',
        'frobenius_reg(*own[:2], ',
        'nn/models/test_lightgcn.py',
    ),
    'other losses': Break(
        'motor_geo/nn/models/recommender.py',
        'if self.objective is None:\n            return',
        'if True:\n            return',
        'nn/models/test_recommender.py nn/test_objective.py',
    ),
    # Files.
    'checksums': Break(
        'motor_geo/utils/saved.py',
        'check_sums(path)\n        return',
        'pass\n        return',
        'utils/test_saved.py utils/test_cache.py engine/test_checkpoint.py',
    ),
    'flush': Break(FILES, '_flush(temporary, os.O_RDWR)', 'pass', 'utils/test_files.py'),
    'files of living processes': Break(
        FILES,
        'elif is_alive(int(found[1])):',
        'elif False:',
        'utils/test_files.py',
    ),
    'name of an entry': Break(CACHE, "if content['name'] == name and", 'if', 'utils/test_cache.py'),
    'oldest entry': Break(CACHE, 'status.st_mtime_ns, path', 'path, path', 'utils/test_cache.py'),
    'entries in use': Break(
        CACHE, 'if lock_file(file.fileno(), shared=False):', 'if True:', 'utils/test_cache.py'
    ),
    'shared runs': Break(
        QUEUE, 'if held and self.is_open(folder):', 'if held:', 'experiments/test_queue.py'
    ),
    'best of a sweep': Break(SWEEP, 'or 0, reverse=True)', 'or 0)', 'test_sweep.py'),
}


def broken(name, tree):
    r"""Writes the broken file into a tree."""
    change = BREAKS[name]
    with open(os.path.join(ROOT, change.path)) as file:
        text = file.read()
    with open(os.path.join(tree, change.path), 'w') as file:
        file.write(text.replace(change.old, change.new))


def mend(name, tree):
    path = BREAKS[name].path
    shutil.copy(os.path.join(ROOT, path), os.path.join(tree, path))


def run_tests(tests, tree, folder):
    r"""The exit status of some tests in a fork, and the first one that fails."""
    log = os.path.join(folder, 'log')
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            # Some tests send SIGINT, which is ignored below what a shell runs in the background.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(tree)
            sys.path[:] = [tree, *(path for path in sys.path if path not in ('', ROOT))]
            for name in list(sys.modules):
                if name.partition('.')[0] in ('tests', 'motor_geo'):
                    del sys.modules[name]
            os.environ |= {'PYTHONPATH': tree, 'PYTHONDONTWRITEBYTECODE': '1', 'COLUMNS': '500'}
            os.environ |= {'PYG_HOME': os.path.join(folder, 'home')}
            options = ['-x', '-q', '-p', 'no:cacheprovider', '--tb=line', '-k', f'not {SLOW}']
            code = pytest.main([*options, '--basetemp', os.path.join(folder, 'tmp'), *tests])
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + LONGEST
    while not (done := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.05)
    if not done[0]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return 1, None
    with open(log, errors='replace') as file:
        found = re.search(r'^(?:FAILED|ERROR) (\S+)', file.read(), re.MULTILINE)
    return os.waitstatus_to_exitcode(done[1]), found and found[1]


def notice(name, tree, folder):
    r"""Breaks a line; returns the test that notices, if one does, and passes without the break."""
    tests = [f'tests/{path}' for path in BREAKS[name].tests.split()]
    broken(name, tree)
    code, test = run_tests(tests, tree, folder)
    mend(name, tree)
    if code == 0:
        return None
    if code > 2 or (test is not None and run_tests([test], tree, folder)[0] != 0):
        raise RuntimeError(f'{name}: {test} fails without the break, too (exit status {code})')
    return test or 'it hangs'


def warm():
    r"""Imports what is not of this repository, so that forks need not."""
    import faiss  # noqa: F401
    import hypothesis  # noqa: F401
    import jsonargparse  # noqa: F401
    import scipy.sparse.linalg  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import torch_geometric.transforms  # noqa: F401

    torch.set_num_threads(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('names', nargs='*', help='(default: all)')
    options = parser.parse_args()
    warm()
    names, missed = options.names or list(BREAKS), []
    with tempfile.TemporaryDirectory() as folder:
        tree = os.path.join(folder, 'tree')
        skip = shutil.ignore_patterns('.git', '__pycache__', '_build')
        shutil.copytree(ROOT, tree, ignore=skip)
        for name in names:
            begin = time.monotonic()
            test = notice(name, tree, folder)
            seconds = f'{time.monotonic() - begin:.0f} s'
            print(
                f'{"MISSED" if test is None else "caught"}  {name} ({seconds}): {test}', flush=True
            )
            missed += [name] if test is None else []
    print(f'{len(names) - len(missed)} of {len(names)} caught')
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
