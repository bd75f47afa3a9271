import hashlib
import http.server
import threading
import urllib.request
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from motor_geo.utils.download import download

CONTENT = bytes(range(256)) * 40


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.headers.get('Range'))
        how, content, start = self.server.how, self.server.content, 0
        asked = self.headers.get('Range')
        same = self.headers.get('If-Range') == self.server.tag
        if asked and same and how != 'no range':
            start = int(asked.removeprefix('bytes=').rstrip('-'))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if how == 'page':
            self.send_header('Content-Type', 'text/html; charset=utf-8')
        if how != 'no length':
            self.send_header('Content-Length', str(len(content) - start))
        self.send_header('ETag', self.server.tag)
        self.end_headers()
        end = start + 3000 if how == 'cut' else None
        self.wfile.write(content[start:end])


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.how, server.content, server.tag, server.asked = '', CONTENT, '"1"', []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f'http://127.0.0.1:{server.server_port}/a.csv'
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != '.lock')


def test_a_download_that_breaks_off_is_gone_on_with(server, tmp_path):
    path = tmp_path / 'new' / 'a.csv'
    server.how = 'cut'
    for size in (3000, 6000, 9000):
        with pytest.raises(OSError, match=rf'ended after {size} of {len(CONTENT)} bytes'):
            download(server.url, str(path))
        assert names(path.parent) == ['a.csv.part', 'a.csv.version']
    server.how = ''
    download(server.url, str(path), hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT and names(path.parent) == ['a.csv']
    assert server.asked == [None, 'bytes=3000-', 'bytes=6000-', 'bytes=9000-']
    download(server.url, str(path))  # It is there.
    assert len(server.asked) == 4


@pytest.mark.parametrize('how', ['', 'no range'])
def test_another_version_is_loaded_from_its_start(server, tmp_path, how):
    path = tmp_path / 'a.csv'
    server.how = 'cut'
    with pytest.raises(OSError, match='ended after'):
        download(server.url, str(path))
    server.how = how
    if how == '':
        server.content, server.tag = CONTENT[::-1], '"2"'
    download(server.url, str(path))
    assert path.read_bytes() == server.content


def test_what_is_left_whole_is_loaded_again(server, tmp_path):
    (tmp_path / 'a.csv.part').write_bytes(CONTENT)  # Killed before it got its name.
    (tmp_path / 'a.csv.version').write_text('"1"')
    download(server.url, str(tmp_path / 'a.csv'))
    assert (tmp_path / 'a.csv').read_bytes() == CONTENT


@pytest.mark.parametrize(
    ('how', 'message'),
    [('page', 'sent a web page instead of the file'), ('no length', 'does not report the length')],
)
def test_other_answers_are_refused(server, tmp_path, how, message):
    server.how = how
    with pytest.raises(OSError, match=message):
        download(server.url, str(tmp_path / 'a.csv'))
    assert names(tmp_path) == []


def test_another_content_is_refused(server, tmp_path):
    with pytest.raises(OSError, match='expected the SHA-256 00, got [0-9a-f]{64}'):
        download(server.url, str(tmp_path / 'a.csv'), '00')
    assert names(tmp_path) == ['a.csv.version']
    with pytest.raises(OSError, match='416'):
        server.content = b''
        download(server.url, str(tmp_path / 'b.csv'))


def test_redirect_without_encryption(tmp_path, monkeypatch):
    answer = nullcontext(SimpleNamespace(url='http://example.org/a.csv'))
    monkeypatch.setattr(urllib.request, 'urlopen', lambda *args, **kwargs: answer)
    with pytest.raises(OSError, match="redirects to 'http://example.org/a.csv', without"):
        download('https://example.org/a.csv', str(tmp_path / 'a.csv'))
    assert names(tmp_path) == []
