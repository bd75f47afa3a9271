import re

import pytest
import torch

from motor_geo.parallel.cost import exchange, main, seconds
from motor_geo.pipeline.processes import LOSSES, by_columns, on_processes
from tests.docs.pages import ROOT, blocks, run_page

PAGE = 'docs/processes.rst'


def test_the_page_names_what_runs():
    text = (ROOT / PAGE).read_text().split('Which runs')[1]
    named = re.search(r'-+\n\n(.*?), with any item encoder', text, re.S)[1]
    assert re.findall(r'[A-Z]\w+', named) == on_processes()
    named = re.search(r'\n\n([^\n]*) can share columns', text)[1]
    assert re.findall(r'[A-Z]\w+', named) == by_columns()
    assert all(f'``{loss}``' in text or f'``--loss {loss}``' in text for loss in LOSSES)


def test_the_cost_of_a_step(capsys):
    (commands,) = (text for _, text in blocks(PAGE) if 'parallel.cost' in text)
    one, mesh = commands.replace('\\\n', '').strip().splitlines()
    assert main(one.split()[3:]) == 0
    out = capsys.readouterr().out
    # 10M users / 8 * 64 * 4 copies * 4 bytes; 2 * 4 * 64 * (1M + 2 * 65,536) bytes.
    assert '1.28 GB' in out and '579.1 MB per step,     81.1 ms' in out and 'columns' not in out
    assert main(mesh.split()[3:]) == 0
    out = capsys.readouterr().out
    # 10M users / 8 * 8 columns; 2 * 4 * 8 * (1M + 2 * 65,536) bytes; 2 * 4 * (2 * 65,536 + 3).
    assert '0.16 GB' in out and '72.4 MB per step,      0.4 ms' in out
    assert '1.0 MB per step,      0.1 ms' in out
    # Users with ten interactions each read at most 12 * 8,192 items.
    assert main(['--batch', '8192', '--interactions', '100000000']) == 0
    out = capsys.readouterr().out
    assert '58.7 MB per step' in out and '1.0 MB per step' in out and '0.40 GB' in out
    for wrong in (['--columns', '3'], ['--columns', '0'], ['--column-bandwidth', '0']):
        with pytest.raises(SystemExit):
            main(wrong)
    assert exchange(100, 8, 0, 10, 5)['items'] == 0
    assert exchange(100, 8, 2, 10, 5, columns=2, users=1) == {
        'items': 0,
        'read': 0,
        'rows': 0,
        'columns': 2 * 4 * (2 * 10 + 3),
        'gradients': 4 * 5,
    }
    assert seconds(100, 1, 1.0) == 0 and seconds(100, 2, 50.0) == 2


def test_the_example():
    torch.manual_seed(0)
    assert run_page('docs/api/parallel.rst')['result'].epochs == 1
