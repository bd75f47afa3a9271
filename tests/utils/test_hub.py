import hashlib
import http.server
import importlib.util
import json
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from motor_geo.data import OPQTokenizer
from motor_geo.nn import SoftTokenEncoder, TokenCrossEncoder, TokenInteractionEncoder
from motor_geo.nn.token_interaction import INTERACTIONS
from motor_geo.utils import hub
from motor_geo.utils.hub import HubMixin
from motor_geo.utils.model_card import Section, model_card

TOKENS = {'text': 3, 'image': 2}
OWN = 'motor_geo.data.transforms.rq_vae.RQVAEQuantizer'


def features(seed=0, num=60):
    generator = torch.Generator().manual_seed(seed)
    widths = {'image': 12, 'text': 10}
    return {m: torch.randn(num, width, generator=generator) for m, width in widths.items()}


def tokenizer(**settings):
    settings = {'num_tokens': 2, 'codebook_size': 16, 'cache': False, 'verbose': False, **settings}
    return OPQTokenizer(**settings).fit(features())


@pytest.fixture
def safetensors():
    return pytest.importorskip('safetensors.torch')


ENCODERS = [TokenCrossEncoder(TOKENS, 16, 8, mode) for mode in ('specific', 'mean', 'linear')]
ENCODERS += [
    TokenCrossEncoder(TOKENS, 16, 8, 'agnostic', 2, None, 0.1, 0.5, 0.2, 0.3),
    SoftTokenEncoder(TOKENS, 16, 8, 3, 0.7),
    *(TokenInteractionEncoder(TOKENS, 16, 8, mode, rank=3) for mode in INTERACTIONS),
]


@pytest.mark.parametrize('encoder', ENCODERS, ids=lambda e: f'{type(e).__name__}-{e.mode}')
def test_encoders_are_restored_exactly(safetensors, encoder, tmp_path):
    assert encoder.save_pretrained(tmp_path / 'a') is None
    names = sorted(path.name for path in (tmp_path / 'a').iterdir())
    assert names == ['README.md', 'config.json', 'model.safetensors']
    rng = torch.get_rng_state()
    loaded = TokenCrossEncoder.from_pretrained(str(tmp_path / 'a'))
    assert torch.equal(torch.get_rng_state(), rng)
    assert type(loaded) is type(encoder) and repr(loaded) == repr(encoder)
    assert not loaded.training and all(p.requires_grad for p in loaded.parameters())
    state = encoder.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    token_id = torch.randint(16, (40, 5), generator=torch.Generator().manual_seed(0))
    encoder.eval()
    assert torch.equal(loaded(token_id), encoder(token_id))
    encoder.train()


def test_files(safetensors, tmp_path):
    encoder = ENCODERS[0]
    encoder.save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['_class_name'] == 'TokenCrossEncoder' and config['mode'] == 'specific'
    assert config['num_tokens'] == {'image': 2, 'text': 3} and config['codebook_size'] == 16
    assert (tmp_path / 'model.safetensors').stat().st_mode & 0o044 == 0o044
    x = safetensors.load_file(tmp_path / 'model.safetensors')
    assert torch.equal(x['table'], encoder.table) and list(x['table'].shape) == [80, 8]


def test_override_arguments(safetensors, tmp_path):
    ENCODERS[0].save_pretrained(tmp_path)
    loaded = TokenCrossEncoder.from_pretrained(tmp_path, dropout=0.4)
    assert loaded.dropout == 0.4 and torch.equal(loaded.table, ENCODERS[0].table)
    with pytest.raises(ValueError, match="no argument 'drop_out'; did you mean 'dropout'"):
        TokenCrossEncoder.from_pretrained(tmp_path, drop_out=0.4)
    with pytest.raises(ValueError, match=r"'mlps.0.0.bias' of shape \[4\] as in .*, got \[8\]"):
        TokenCrossEncoder.from_pretrained(tmp_path, out_channels=4)


def test_gradients_of_loaded_weights(safetensors, tmp_path):
    ENCODERS[0].save_pretrained(tmp_path)
    loaded = TokenCrossEncoder.from_pretrained(tmp_path).train()
    loaded(torch.zeros(20, 5, dtype=torch.uint8)).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'method': 'rq', 'balance': 0.05},
        {'method': 'pq', 'center': True, 'normalize': True, 'whiten': True, 'max_dim': 8},
        {'num_tokens': {'*': 2, 'text': 3}, 'num_near': 2, 'edge_type': ('a', 'b', 'item')},
        {'method': 'rqvae', 'method_kwargs': {'num_steps': 2, 'hidden': [8]}},
    ],
)
def test_tokenizers_are_restored_exactly(safetensors, settings, tmp_path):
    fitted = tokenizer(**settings)
    fitted.save_pretrained(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['README.md', 'tokenizer.safetensors', 'tokenizer_config.json']
    loaded = OPQTokenizer.from_pretrained(tmp_path)
    new = features(1)
    assert str(loaded) == str(fitted) and loaded.num_tokens_dict == fitted.num_tokens_dict
    assert loaded.edge_type == fitted.edge_type and loaded.num_near == fitted.num_near
    expected, found = fitted.encode_tokens(new), loaded.encode_tokens(new)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    fitted.save(str(tmp_path / 'a.pt'))
    loaded.save(str(tmp_path / 'b.pt'))
    assert (tmp_path / 'a.pt').stat().st_size == (tmp_path / 'b.pt').stat().st_size


def test_modalities_of_any_name(safetensors, tmp_path):
    fitted = OPQTokenizer(2, 16, cache=False, verbose=False)
    x = {'a.b': features()['image'], 'a/c': features()['text']}
    fitted.fit(x).save_pretrained(tmp_path)
    assert torch.equal(OPQTokenizer.from_pretrained(tmp_path).encode(x), fitted.encode(x))


def test_encoder_and_tokenizer_share_a_folder(safetensors, tmp_path):
    fitted = tokenizer()
    encoder = TokenCrossEncoder.from_tokenizer(fitted, 8)
    fitted.save_pretrained(tmp_path / 'shop')
    card = tmp_path / 'shop' / 'README.md'
    text = card.read_text()
    assert '# license: add the license' in text and 'library_name: motor_geo' in text
    assert (
        "OPQTokenizer.from_pretrained('shop')" in text and 'A dictionary with image, text.' in text
    )
    card.write_text(text.replace('# license: add', 'license: mit #') + 'My words.\n')
    encoder.save_pretrained(tmp_path / 'shop')
    fitted.save_pretrained(tmp_path / 'shop')
    text = card.read_text()
    assert text.count('## OPQTokenizer') == text.count('## TokenCrossEncoder') == 1
    assert 'license: mit' in text and 'My words.' in text and '| `codebook_size` | `16` |' in text
    metadata = {'license': 'apache-2.0', 'datasets': ['mine']}
    encoder.save_pretrained(tmp_path / 'shop', metadata=metadata)
    head = card.read_text().split('---\n')[1]
    assert 'license: apache-2.0\ndatasets:\n- mine\n' in head and '# license' not in head
    assert 'My words.' in card.read_text()
    x = features(1)
    token_id = OPQTokenizer.from_pretrained(tmp_path / 'shop').encode(x)
    loaded = TokenCrossEncoder.from_pretrained(tmp_path / 'shop')
    assert torch.equal(loaded(token_id), encoder.eval()(fitted.encode(x)))


def test_card_without_header():
    section = Section('A', 'a', ('a.json', 'a.safetensors'), {}, 1234)
    text = model_card('me/a', section, 'Old.\n', {'license': 'mit'})
    assert text.startswith('---\nlibrary_name: motor_geo\n') and 'license: mit\n---\n' in text
    assert '\nOld.\n\n<!-- motor_geo a.safetensors -->\n' in text and '1,234 values' in text


class Forgets(nn.Linear, HubMixin):
    def __init__(self, width=2, gain=1.0):
        super().__init__(width, width)
        self.width = width


class Keeps(nn.Linear, HubMixin):
    def __init__(self, width=2):
        super().__init__(width, width)
        self.width = width
        self.bias = self.weight  # One tensor under two names.


def test_own_modules(safetensors, tmp_path):
    with pytest.raises(ValueError, match="Forgets cannot be saved: expected an attribute 'gain'"):
        Forgets().save_pretrained(tmp_path)
    module = Keeps(3)
    module.save_pretrained(tmp_path)
    loaded = Keeps.from_pretrained(tmp_path)
    assert torch.equal(loaded.weight, module.weight) and torch.equal(loaded.bias, module.weight)
    module.width = object()
    with pytest.raises(ValueError, match='arguments of Keeps cannot be written as JSON'):
        module.save_pretrained(tmp_path)


def test_invalid_files(safetensors, tmp_path):
    load = TokenCrossEncoder.from_pretrained
    with pytest.raises(FileNotFoundError, match="'./none' does not exist; expected a folder, or"):
        load('./none')
    with pytest.raises(FileNotFoundError, match="has no 'config.json'; expected a folder"):
        load(tmp_path)
    ENCODERS[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='commit_message: expected only with'):
        ENCODERS[0].save_pretrained(tmp_path, commit_message='a')
    with pytest.raises(ValueError, match="class 'TokenCrossEncoder'; expected SoftTokenEncoder"):
        SoftTokenEncoder.from_pretrained(tmp_path)
    config, weights = tmp_path / 'config.json', tmp_path / 'model.safetensors'
    content = json.loads(config.read_text())

    def write(**values):
        config.write_text(json.dumps({**content, **values}))

    write(mode='other')
    with pytest.raises(
        ValueError, match=r"config.json' does not define a valid TokenCrossEncoder \('mode'"
    ):
        load(tmp_path)
    write(later=1)
    with pytest.raises(ValueError, match="config.json': TokenCrossEncoder has no argument 'later'"):
        load(tmp_path)
    write(_class_name='os.system')
    with pytest.raises(ValueError, match="has the class 'os.system'; expected TokenCross"):
        load(tmp_path)
    config.write_text('[]')
    with pytest.raises(ValueError, match="has no '_class_name'"):
        load(tmp_path)
    config.write_text('{')
    with pytest.raises(ValueError, match='cannot be read as JSON'):
        load(tmp_path)
    write()
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    with pytest.raises(ValueError, match='cannot be read as safetensors'):
        load(tmp_path)
    torch.save(ENCODERS[0].state_dict(), weights)
    with pytest.raises(ValueError, match='cannot be read as safetensors'):
        load(tmp_path)


def test_invalid_tokenizer_files(safetensors, tmp_path):
    with pytest.raises(RuntimeError, match='not fitted yet: there is nothing to save'):
        OPQTokenizer().save_pretrained(tmp_path)
    fitted = tokenizer(method='rqvae', method_kwargs={'num_steps': 2})
    fitted.save_pretrained(tmp_path)
    config = tmp_path / 'tokenizer_config.json'
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, 'method': OWN, 'method_kwargs': None}))
    with pytest.raises(ValueError, match=f"'{OWN}' is code outside motor_geo; pass"):
        OPQTokenizer.from_pretrained(tmp_path)
    loaded = OPQTokenizer.from_pretrained(tmp_path, method=OWN)
    assert torch.equal(loaded.encode(features(1)), fitted.encode(features(1)))
    with pytest.raises(ValueError, match=r'expected \(3, 16\) tokens and codes'):
        OPQTokenizer.from_pretrained(tmp_path, method='rqvae', num_tokens=3)
    with pytest.raises(ValueError, match=r"modalities \['image', 'text'\] do not match"):
        OPQTokenizer.from_pretrained(tmp_path, method='rqvae', modalities=['image'])


class Server(http.server.BaseHTTPRequestHandler):
    r"""Imitates the hub with the files of a folder."""

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        path = self.server.folder / self.path.rpartition('/')[2]
        self.server.asked.append(self.path)
        if not path.is_file():
            self.send_response(404)
            self.send_header('X-Error-Code', 'EntryNotFound')
            self.send_header('Content-Length', '0')
            self.end_headers()
            return b''
        data = path.read_bytes()
        self.send_response(200)
        self.send_header('X-Repo-Commit', '0' * 40)
        self.send_header('ETag', f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        return data

    def do_GET(self):
        self.wfile.write(self.do_HEAD())


@pytest.fixture
def server(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip('huggingface_hub')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server)
    server.folder, server.asked = tmp_path / 'hub', []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    here = f'http://127.0.0.1:{server.server_port}'
    download = partial(huggingface_hub.hf_hub_download, endpoint=here)
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_download(safetensors, server, tmp_path):
    fitted = tokenizer()
    encoder = TokenCrossEncoder.from_tokenizer(fitted, 8).eval()
    encoder.save_pretrained(server.folder)
    fitted.save_pretrained(server.folder)
    options = {'revision': 'v1', 'cache_dir': tmp_path / 'cache', 'token': False}
    loaded = TokenCrossEncoder.from_pretrained('me/mine', **options)
    assert server.asked[0] == '/me/mine/resolve/v1/config.json'
    assert torch.equal(loaded.table, encoder.table)
    other = OPQTokenizer.from_pretrained('me/mine', cache=True, **options)
    assert other.cache and torch.equal(other.encode(features(1)), fitted.encode(features(1)))
    server.asked.clear()
    loaded = TokenCrossEncoder.from_pretrained('me/mine', local_files_only=True, **options)
    assert torch.equal(loaded.table, encoder.table) and server.asked == []
    with pytest.raises(
        OSError, match="'me/other' is not a folder, and its 'config.json' cannot be"
    ):
        TokenCrossEncoder.from_pretrained('me/other', local_files_only=True, **options)
    (server.folder / 'config.json').unlink()
    with pytest.raises(
        OSError, match=r"'config.json' cannot be downloaded from the hub \(RemoteEntry|Entry"
    ):
        TokenCrossEncoder.from_pretrained('me/new', **options)


class Api:
    r"""Imitates the upload API of the hub."""

    def __init__(self, calls, card=None):
        self.calls, self.card, self.files = calls, card, {}

    def __call__(self, token=None, **kwargs):
        self.calls.append(('token', token))
        return self

    def create_repo(self, repo_id, private, exist_ok):
        self.calls.append(('repo', repo_id, private, exist_ok))
        return SimpleNamespace(repo_id=f'me/{repo_id}')

    def create_branch(self, repo_id, branch, exist_ok):
        self.calls.append(('branch', repo_id, branch, exist_ok))

    def file_exists(self, repo_id, name, revision):
        return self.card is not None

    def hf_hub_download(self, repo_id, name, revision, local_dir):
        Path(local_dir, name).write_text(self.card)

    def upload_folder(self, folder_path, allow_patterns, **kwargs):
        self.calls.append(('upload', kwargs))
        self.files = {name: Path(folder_path, name).read_bytes() for name in allow_patterns}
        return SimpleNamespace(commit_url='https://commit', pr_url='https://pr')


def test_push(safetensors, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip('huggingface_hub')
    api = Api([])
    monkeypatch.setattr(huggingface_hub, 'HfApi', api)
    encoder = ENCODERS[0]
    assert encoder.push_to_hub('mine', private=True, token='t', revision='v1') == 'https://commit'
    message = 'TokenCrossEncoder of motor_geo'
    upload = dict(repo_id='me/mine', commit_message=message, revision='v1', create_pr=False)
    assert api.calls == [
        ('token', 't'),
        ('repo', 'mine', True, True),
        ('branch', 'me/mine', 'v1', True),
        ('upload', upload),
    ]
    for name, data in api.files.items():
        (tmp_path / name).write_bytes(data)
    assert torch.equal(TokenCrossEncoder.from_pretrained(tmp_path).table, encoder.table)
    assert b"from_pretrained('me/mine')" in api.files['README.md']

    api.card = 'My words.\n'
    options = {'push_to_hub': True, 'repo_id': 'mine', 'create_pr': True}
    assert encoder.save_pretrained(tmp_path / 'new', **options) == 'https://pr'
    assert api.files['README.md'].startswith(b'My words.\n\n<!-- motor_geo model.safetensors -->')
    assert (tmp_path / 'new' / 'model.safetensors').is_file()


def test_missing_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, 'find_spec', lambda name: None)
    extra = r"\(extra 'hub'\): pip install "
    with pytest.raises(ImportError, match=f'save_pretrained needs safetensors {extra}'):
        ENCODERS[0].save_pretrained(tmp_path)
    with pytest.raises(ImportError, match=f'from_pretrained needs safetensors {extra}'):
        TokenCrossEncoder.from_pretrained(tmp_path)
    with pytest.raises(ImportError, match=f'push_to_hub needs huggingface_hub {extra}'):
        ENCODERS[0].push_to_hub('me/mine')
    monkeypatch.setattr(hub, 'find_spec', lambda name: name == 'safetensors' or None)
    with pytest.raises(
        ImportError, match=rf'no such folder exists\) needs huggingface_hub {extra}'
    ):
        TokenCrossEncoder.from_pretrained('me/mine')


def test_import_without_packages(monkeypatch):
    for name in ('huggingface_hub', 'safetensors'):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location('another', hub.__file__)
    another = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(another)
    assert issubclass(another.HubMixin, object) and another.HubMixin is not HubMixin
