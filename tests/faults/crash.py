r"""Kills a command at its k-th change of the disk, gives the same command again, and compares
what is there with what an undisturbed command leaves.

    python -m tests.faults.crash run sweep update [--points N] [--seed S] [--only EVENT]

Scenarios are the commands, ``refit`` (``update --refit``) and ``append`` (``export --append``).

A process imports the package once and forks; the fork kills itself, as ``kill -9`` would, before
it opens a file for writing, renames, removes or makes one. With ``torn``, half of what was written
is lost, too, as after a loss of power.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import numpy as np

SMALL = [
    *('--tokenizer.num_tokens', '2', '--tokenizer.codebook_size', '8', '--graph.k', '4'),
    *('--model.channels', '8', '--svd.channels', '6', '--threads', '1', '--device', 'cpu'),
]
SWEEP = """
model: {name: LightGCN, channels: 8}
items: id
trainer: {epochs: 1, batch_size: 128}
threads: 1
search: {model.num_layers: [1, 2]}
"""
SCENARIOS = {
    'run': [
        *('--model', 'FREEDOM', '--items', 'specific', '--behavior', 'true', '--batch_size', '128'),
        *('--epochs', '2', *SMALL, '--out', 'out'),
    ],
    'sweep': ['--config', '../sweep.yaml', '--out', 'out'],
    'reproduce': [
        *('table3', '--models', 'LightGCN', '--seeds', '0', '--effort', '1', '--out', 'out'),
        *('--trainer.epochs', '1', *SMALL),
    ],
    'update': [
        *('base', '--interactions', '../today.tsv', '--items', '../new', '--epochs', '2'),
        *('--out', 'out', '--device', 'cpu'),
    ],
    'refit': ['base', '--refit', '--out', 'out', '--device', 'cpu'],
    'bundle': ['base', 'out'],
    'export': ['base', '--index', 'shop.index', '--device', 'cpu'],
    'append': ['base', '--index', 'shop.index', '--append', '../new', '--device', 'cpu'],
    'features': ['items', '--text', 'title', '--dim', '8'],
    'shard': ['../shop', 'out', '--shards', '3'],
}
RUN = [
    *('--model', 'LightGCN', '--items', 'specific', '--epochs', '2', '--batch_size', '128', *SMALL),
    *('--out', 'base'),
]
#: Commands that prepare the folder of a scenario.
BEFORE = {
    'update': [('run', RUN), ('mkdir', ['out'])],
    'refit': [('run', RUN)],
    'bundle': [('run', RUN), ('mkdir', ['out'])],
    'export': [
        ('run', [*RUN, '--seed', '1']),
        ('export', SCENARIOS['export']),
        ('rmtree', ['base']),
        ('run', RUN),
    ],
    'append': [('run', RUN), ('export', SCENARIOS['export'])],
    'features': [
        ('copytree', ['../titles', 'items']),
        ('features', ['items', '--text', 'title,note', '--dim', '8']),
    ],
}
COMMANDS = {
    **{name: f'motor_geo.{name}' for name in ('run', 'sweep', 'reproduce')},
    **{
        name: f'motor_geo.pipeline.{name}'
        for name in ('update', 'bundle', 'export', 'features', 'shard')
    },
    'refit': 'motor_geo.pipeline.update',
    'append': 'motor_geo.pipeline.export',
}
#: The error of a repeated command that has nothing left to do.
DONE = "' is already in the index"
#: What differs between two undisturbed commands.
TIMES = ('seconds', 'train_seconds', 'seconds_per_epoch')
PAGES = ('.md', '.html', '.tex', '.svg')
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND


def make_shop(folder):
    os.makedirs(folder)
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, 40)
    for name, width in (('text', 8), ('image', 10)):
        x = rng.standard_normal((4, width))[kind] + rng.standard_normal((40, width)) / 4
        np.save(f'{folder}/{name}_feat.npy', x.astype(np.float32))
    rows = ['userID\titemID\tx_label']
    for user in range(60):
        items = rng.choice(40, 8, False)
        rows += [f'{user}\t{item}\t{max(0, j - 5)}' for j, item in enumerate(items)]
    with open(f'{folder}/shop.inter', 'w') as file:
        file.write('\n'.join(rows) + '\n')


def make_files(folder):
    r"""Writes the data and the other input files of the commands."""
    shop = os.path.join(folder, 'shop')
    make_shop(shop)
    with open(os.path.join(folder, 'sweep.yaml'), 'w') as file:
        file.write(f'data: {shop}\n{SWEEP}')
    with open(os.path.join(folder, 'today.tsv'), 'w') as file:
        file.write('userID\titemID\n3\tA\nann\tA\nann\t5\n')
    new, titles = os.path.join(folder, 'new'), os.path.join(folder, 'titles')
    os.makedirs(new)
    os.makedirs(titles)
    for name in ('text_feat.npy', 'image_feat.npy'):
        np.save(f'{new}/{name}', np.load(f'{shop}/{name}')[:2] + 0.01)
    with open(f'{new}/items.tsv', 'w') as file:
        file.write('itemID\nA\nB\n')
    with open(f'{titles}/items.tsv', 'w') as file:
        file.write('itemID\ttitle\tnote\na\tred\tx\nb\t\tx\nc\tblue\tx\n')


def main_of(scenario):
    return importlib.import_module(COMMANDS[scenario]).main


class Events:
    r"""Counts changes of the disk below a folder, and ends the process at one of them."""

    def __init__(self, folder, last=-1, torn=False):
        self.folder, self.last, self.torn = os.path.realpath(folder), last, torn
        self.names, self.pid = [], os.getpid()

    def __call__(self, event, args):
        if event == 'open':
            path, _, flags = args
            if isinstance(path, int) or not isinstance(flags, int) or not flags & WRITES:
                return
            name = 'append' if flags & os.O_APPEND else 'open'
        elif event in ('os.rename', 'os.remove', 'os.mkdir', 'os.chmod', 'os.rmdir'):
            path, name = args[0], event[3:]
        else:
            return
        path = os.path.realpath(os.fsdecode(path))
        if os.getpid() != self.pid or not path.startswith(self.folder):
            return
        if len(self.names) == self.last:
            if self.torn and name == 'rename' and os.path.isfile(path):
                os.truncate(path, os.path.getsize(path) // 2)
            if self.torn and name == 'append':
                self.last = -1  # Or this, which opens the file, too, would be noticed.
                handle = os.open(path, 0o2001 | os.O_CREAT)
                os.write(handle, b'{"epoch": 1, "lo')
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(f'{name} {os.path.basename(path)[:24]}')


def start(scenario, folder, shop, last=-1, torn=False, timeout=120.0, given=None):
    r"""Runs a command in a fork, with the arguments of the scenario or those given. Returns its
    exit status (or 'hangs'), its output, and its changes of the disk.
    """
    import torch_geometric

    log, found = f'{folder}.log', f'{folder}.events'
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            handle = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.chdir(folder)
            torch_geometric.set_home_dir(os.path.join(folder, 'home'))
            os.environ['PYG_HOME'] = os.path.join(folder, 'home')
            arguments = list(SCENARIOS[scenario] if given is None else given)
            if scenario in ('run', 'reproduce'):
                arguments += ['--data', shop]
            main = main_of(scenario)
            events = Events(folder, last, torn)
            sys.addaudithook(events)
            status = main(arguments)
            events.folder = '/nowhere'
            with open(found, 'w') as file:
                json.dump(events.names, file)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status or 0)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.005)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        code = 'hangs'
    with open(log, errors='replace') as file:
        text = file.read()
    names = []
    if os.path.exists(found):
        with open(found) as file:
            names = json.load(file)
        os.remove(found)
    return code, text, names


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def content_of(path, folder):
    r"""What a file says, whatever it took to compute it."""
    import torch

    def plain(value):
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
        if isinstance(value, dict):
            return {
                k: without_times(json.loads(v)) if k == 'history' else plain(v)
                for k, v in value.items()
            }
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    if path.endswith(PAGES):
        return 'a page'
    if path.endswith('.pt'):
        return plain(torch.load(path, weights_only=True))
    if path.endswith('.npz'):
        with np.load(path) as file:
            return {key: (file[key].dtype.str, file[key].tobytes()) for key in file}
    with open(path, 'rb') as file:
        content = file.read().replace(os.path.realpath(folder).encode(), b'.')
    if path.endswith('.index.json'):  # The previous index does not matter.
        return {key: value for key, value in json.loads(content).items() if key != 'before'}
    if path.endswith('.jsonl'):
        return [without_times(json.loads(line)) for line in content.splitlines()]
    return without_times(json.loads(content)) if path.endswith('.json') else content


def snapshot(folder):
    out = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name != '.lock':
                try:
                    out[os.path.relpath(path, folder)] = content_of(path, folder)
                except Exception as error:
                    out[os.path.relpath(path, folder)] = f'unreadable: {error}'
    return out


def differences(old, new):
    out = [f'{name} is missing' for name in old if name not in new]
    out += [f'{name} is left' for name in new if name not in old]
    return out + [f'{name} differs' for name in old if name in new and old[name] != new[name]]


def together(place):
    r"""Reads the files that belong together. Features may be missing."""
    from motor_geo.pipeline.index import read_index

    out = {}
    index, matrix = (
        os.path.join(place, *name) for name in (['shop.index'], ['items', 'text_feat.npy'])
    )
    if os.path.exists(index):
        found = read_index(index)
        vectors = found.index.reconstruct_n(0, found.index.ntotal)
        out['index'] = found.run, found.ids.tolist(), vectors.tobytes()
    if os.path.exists(matrix):
        mask = matrix.replace('feat', 'mask')
        mask = np.load(mask).tolist() if os.path.exists(mask) else None
        out['features'] = np.load(matrix).tobytes(), mask
    return out


def prepare(scenario, folder, shop):
    r"""Creates the folder in which a command starts."""
    place = os.path.join(folder, f'{scenario}-before')
    os.makedirs(place)
    for name, arguments in BEFORE.get(scenario, []):
        if name in COMMANDS:
            code, text, _ = start(name, place, shop, given=arguments)
            assert code == 0, text
        else:
            paths = [os.path.join(place, path) for path in arguments]
            getattr(os if name == 'mkdir' else shutil, name)(*paths)
    return place


def explore(scenario, folder, points=None, seed=0, only=None):
    r"""Crash points of a command, at random, or all of them, or those of some events; returns what
    went wrong where.
    """
    shop = os.path.join(folder, 'shop')
    if not os.path.isdir(shop):
        make_files(folder)
    before = prepare(scenario, folder, shop)
    undisturbed = os.path.join(folder, f'{scenario}-undisturbed')
    shutil.copytree(before, undisturbed)
    code, text, names = start(scenario, undisturbed, shop)
    assert code == 0, text
    expected = snapshot(undisturbed)
    allowed = [together(before), together(undisturbed), {}]
    every = [(k, torn) for k in range(len(names)) for torn in (False, True)]
    every = [(k, t) for k, t in every if not t or names[k].startswith(('rename', 'append'))]
    every = [(k, t) for k, t in every if only is None or names[k].startswith(only)]
    chosen = every if points is None else random.Random(seed).sample(every, min(points, len(every)))
    bad = []
    for k, torn in chosen:
        place = os.path.join(folder, f'{scenario}-{k}-{torn}')
        shutil.copytree(before, place)
        first, text, _ = start(scenario, place, shop, k, torn)
        between = []
        try:
            if together(place) not in allowed:
                between = ['files that belong together do not match']
        except Exception as error:
            between = [f'files that belong together: {error}']
        second, more, _ = start(scenario, place, shop)
        wrong = between + differences(expected, snapshot(place))
        if first != -signal.SIGKILL:
            wrong.insert(0, f'ended with {first} in place of being killed: {text[-200:]}')
        if second != 0 and DONE not in more:
            wrong.insert(0, f'the same command ends with {second}: {more[-200:]}')
        if wrong:
            bad.append({'point': k, 'event': names[k], 'torn': torn, 'wrong': wrong})
        shutil.rmtree(place, ignore_errors=True)
    return {'events': len(names), 'points': len(chosen), 'bad': bad}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('scenarios', nargs='+', choices=SCENARIOS)
    parser.add_argument('--points', type=int, help='so many at random (default: all)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', help='events whose name begins so (default: all)')
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    for name in options.scenarios:
        main_of(name)
    warm()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.scenarios:
            begin = time.monotonic()
            out = explore(name, folder, options.points, options.seed, options.only)
            out['seconds'] = round(time.monotonic() - begin, 1)
            print(json.dumps({'scenario': name, **out}), flush=True)


def warm():
    r"""Imports what commands import late, so that forks need not."""
    import faiss  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import scipy.sparse.linalg  # noqa: F401
    import scipy.stats  # noqa: F401

    import motor_geo.experiments.runner
    import motor_geo.experiments.sweep
    import motor_geo.experiments.views
    import motor_geo.pipeline.seeds
    import motor_geo.report.plot  # noqa: F401


if __name__ == '__main__':
    main()
