import re

import torch

from motor_geo.parallel.cost import exchange, main, seconds
from motor_geo.pipeline.processes import LOSSES, on_processes
from tests.docs.pages import ROOT, blocks, run_page

PAGE = 'docs/processes.rst'


def test_the_page_names_what_runs():
    text = (ROOT / PAGE).read_text().split('Which runs')[1]
    named = re.search(r'-+\n\n(.*?), with any item encoder', text, re.S)[1]
    assert re.findall(r'[A-Z]\w+', named) == on_processes()
    assert all(f'``{loss}``' in text or f'``--loss {loss}``' in text for loss in LOSSES)


def test_the_cost_of_a_step(capsys):
    (command,) = (text for _, text in blocks(PAGE) if 'parallel.cost' in text)
    assert main(command.split()[3:]) == 0
    out = capsys.readouterr().out
    # 10M users / 8 * 64 * 4 copies * 4 bytes; 2 * 4 * 64 * (1M + 2 * 65,536) bytes.
    assert '1.28 GB' in out and '579.1 MB per step,     81.1 ms' in out
    assert exchange(100, 8, 0, 10, 5)['items'] == 0
    assert seconds(100, 1, 1.0) == 0 and seconds(100, 2, 50.0) == 2


def test_the_example():
    torch.manual_seed(0)
    assert run_page('docs/api/parallel.rst')['result'].epochs == 1
