r"""Runs what pages of the documentation show: Python, and commands on small data."""

import re
import shlex
import textwrap
from pathlib import Path

import numpy as np

from motor_geo.__main__ import COMMANDS, main
from motor_geo.run import MAIN_JOB
from tests.shop import NUM_ITEMS, make_shop

ROOT = Path(__file__).parents[2]
#: What makes a command small, where it does not say otherwise.
TOKENS = {'--tokenizer.codebook_size': '8', '--svd.channels': '8', '--graph.k': '4'}
SYNTHETIC = {'--data.num_users': '80', '--data.num_items': '60', '--data.num_interactions': '500'}
#: Commands that train, and take those options.
TRAINING = ('run', 'sweep', 'reproduce')
#: Ends of options that take no further ones.
UNCHANGED = ('help', '--render')
#: Starts of lines that are tested elsewhere, or install things.
SKIPPED = ('pip install', 'pre-commit', 'pytest', '.ci/', 'sphinx-build', 'python -m tests.')


def blocks(page):
    r"""Language and text of every block of code."""
    text = (ROOT / page).read_text()
    if page.endswith('.md'):
        return re.findall(r'^```(\w+)\n(.*?)^```', text, re.M | re.S)
    found = re.findall(r'^( *)\.\. code-block:: (\w+)\n\n((?:\1    .*\n|\n)+)', text, re.M)
    return [(language, textwrap.dedent(block)) for _, language, block in found]


def cells(page):
    r"""The code cells of a notebook."""
    text = (ROOT / page).read_text()
    return re.findall(r'^```\{code-cell\} python\n(.*?)^```', text, re.M | re.S)


def commands(block):
    r"""Words of every command of a block."""
    lines = block.replace('\\\n', ' ').splitlines()
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and not line.startswith(SKIPPED):
            yield words


def arguments(words):
    r"""What :obj:`motor-geo` is called with."""
    if words[:2] == ['python', '-m']:
        name = words[2].removeprefix('motor_geo.')
        rest = words[3:]
    else:
        assert words[0] == 'motor-geo', f'not a command of this package: {words}'
        name, rest = words[1], words[2:]
    assert name in COMMANDS, name
    return [name, *('shop' if word == 'FOLDER' else word for word in rest)]


def small(argv):
    r"""The command on small data and for one epoch; options that it has stay."""
    name, *rest = argv
    if name not in (*TRAINING, 'tokens') or any(word.endswith(UNCHANGED) for word in rest):
        return argv
    rest = rest or list(MAIN_JOB)  # What stands for no option at all.
    given = {word for word in rest if word.startswith('--')}
    more = TOKENS if '--data' in given else TOKENS | SYNTHETIC
    if name in TRAINING:
        more = more | {'--threads': '1'}
        if '--epochs' in given:
            rest[rest.index('--epochs') + 1] = '1'
        elif 'EASE' not in rest:  # Has no epochs.
            more = more | {'--trainer.epochs': '1'}
    return [name, *rest, *(x for pair in more.items() if pair[0] not in given for x in pair)]


def make_folder(folder):
    r"""The data that pages speak of: a shop, and new items for it."""
    make_shop(folder)
    (folder / 'arrivals').mkdir()
    rng = np.random.default_rng(1)
    for name, width in (('text', 8), ('image', 10)):
        x = rng.standard_normal((3, width)).astype(np.float32)
        np.save(folder / 'arrivals' / f'{name}_feat.npy', x)
    ids = ''.join(f'{NUM_ITEMS + i}\n' for i in range(3))
    (folder / 'arrivals' / 'items.tsv').write_text('itemID\n' + ids)


def run_page(page, without=(), **given):
    r"""Runs all blocks of Python in one namespace, and all blocks of the shell, in the order of the
    page. What a page speaks of without making it is given. Returns the namespace.
    """
    names = {'__name__': 'page', **given}
    for number, (language, block) in enumerate(blocks(page), start=1):
        if any(word in block for word in without):
            continue
        if language == 'python':
            exec(compile(block, f'{page}, block {number}', 'exec'), names)
        elif language == 'bash':
            for words in commands(block):
                argv = small(arguments(words))
                assert main(argv) == 0, f'{page}: {shlex.join(argv)}'
    return names
