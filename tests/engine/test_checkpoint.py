import os
import re

import numpy as np
import pytest
import torch

from motor_geo.engine.checkpoint import load_checkpoint, save_checkpoint


def make_state(scale=1.0):
    model = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(model.weight, scale)
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.96**epoch)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    return {
        'model': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'scheduler': scheduler.state_dict(),
        'epoch': 3,
        'best': {'recall@20': 0.25, 'epoch': None},
        'history': [{'loss': 0.5}, {'loss': 0.25}],
        'shape': (1, True),
    }


def test_checkpoint_round_trip(tmp_path):
    path, state = str(tmp_path / 'run' / 'last.pt'), make_state()
    save_checkpoint(path, state, model='BPR', fingerprint='abc')
    loaded = load_checkpoint(path, model='BPR', fingerprint='abc')
    assert torch.equal(loaded['model']['weight'], state['model']['weight'])
    for key in ('epoch', 'best', 'history', 'shape', 'scheduler'):
        assert loaded[key] == state[key]
    model = torch.nn.Linear(3, 2)
    model.load_state_dict(loaded['model'])
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(loaded['optimizer'])
    moment = state['optimizer']['state'][0]['exp_avg']
    assert torch.equal(optimizer.state_dict()['state'][0]['exp_avg'], moment)
    assert load_checkpoint(path).keys() == state.keys()  # Nothing is expected.
    assert os.listdir(tmp_path / 'run') == ['last.pt']


def test_checkpoint_of_something_else(tmp_path):
    path = str(tmp_path / 'best.pt')
    save_checkpoint(path, {'epoch': 1}, model='BPR', fingerprint='abc')
    message = f"'{path}' belongs to the model 'BPR', expected 'FREEDOM'"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_checkpoint(path, model='FREEDOM')
    with pytest.raises(ValueError, match="data with the fingerprint 'abc', expected 'def'"):
        load_checkpoint(path, model='BPR', fingerprint='def')


@pytest.mark.parametrize('kind', ['truncated', 'empty', 'text', 'pickle', 'folder', 'missing'])
def test_checkpoint_unreadable(tmp_path, kind):
    path = tmp_path / 'best.pt'
    if kind == 'truncated':
        save_checkpoint(str(path), make_state(), model='BPR', fingerprint='abc')
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'text':
        path.write_text('userID\titemID\n0\t1\n')
    elif kind == 'pickle':
        torch.save(Evil(str(tmp_path / 'executed')), path)
    elif kind == 'folder':
        path.mkdir()
    error = FileNotFoundError if kind in ('folder', 'missing') else ValueError
    with pytest.raises(error, match=re.escape(str(path))):
        load_checkpoint(str(path))
    assert not (tmp_path / 'executed').exists()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


def test_checkpoint_foreign_content(tmp_path):
    path = str(tmp_path / 'weights.pt')
    for content in ({'weight': torch.ones(2)}, torch.ones(2), [1]):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"weights.pt' is a PyTorch file, but not"):
            load_checkpoint(path)
    torch.save({'format': 'motor_geo', 'version': 99}, path)
    with pytest.raises(ValueError, match='checkpoint version 99.* reads version 1'):
        load_checkpoint(path)


@pytest.mark.parametrize(
    'value',
    [np.float64(0.5), np.zeros(2), {1, 2}, torch.Size([1]), object()],
    ids=lambda value: type(value).__name__,
)
def test_checkpoint_refuses_what_it_could_not_read(tmp_path, value):
    path = tmp_path / 'last.pt'
    state = {'epoch': 1, 'history': [{'loss': value}]}
    with pytest.raises(ValueError, match=re.escape("state['history'][0]['loss'] is a ")):
        save_checkpoint(str(path), state, model='BPR', fingerprint='abc')
    assert not path.exists()


def test_checkpoint_full_disk_keeps_the_old_file(tmp_path):
    resource = pytest.importorskip('resource')
    path = str(tmp_path / 'last.pt')
    save_checkpoint(path, {'x': torch.ones(4)}, model='BPR', fingerprint='abc')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(OSError, match=re.escape(f"cannot write '{path}': ")):
            save_checkpoint(path, {'x': torch.zeros(10_000)}, model='BPR', fingerprint='abc')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(path)['x'].tolist() == [1, 1, 1, 1]
    assert os.listdir(tmp_path) == ['last.pt']


def test_checkpoint_interrupted_keeps_the_old_file(tmp_path, monkeypatch):
    path = str(tmp_path / 'last.pt')
    save_checkpoint(path, {'epoch': 1}, model='BPR', fingerprint='abc')

    def interrupted(content, file):
        file.write(b'half')
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {'epoch': 2}, model='BPR', fingerprint='abc')
    assert load_checkpoint(path)['epoch'] == 1
    assert os.listdir(tmp_path) == ['last.pt']


def test_checkpoint_folder_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    path = str(tmp_path / 'file' / 'last.pt')
    with pytest.raises(OSError, match=re.escape(f"cannot write '{path}': ")):
        save_checkpoint(path, {'epoch': 1}, model='BPR', fingerprint='abc')


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root writes anywhere')
def test_checkpoint_read_only_folder(tmp_path):
    folder = tmp_path / 'run'
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(OSError, match='cannot write'):
        save_checkpoint(str(folder / 'last.pt'), {'epoch': 1}, model='BPR', fingerprint='abc')
    folder.chmod(0o700)
    assert os.listdir(folder) == []
