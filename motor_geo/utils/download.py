r"""Downloads that are either complete or absent."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from motor_geo.utils.lock import locked

#: Extension of an incomplete download, and of the file that stores its version on the server.
PART, VERSION = '.part', '.version'
BLOCK = 2**18


def download(url: str, path: str, sha256: str | None = None, timeout: float = 60.0) -> None:
    r"""Downloads a file and verifies certificates. An interrupted download
    leaves :obj:`<path>.part`. The next call resumes it if the server still has
    the same file. If :obj:`path` exists, nothing happens. Redirects from HTTPS
    to HTTP are errors.

    Args:
        url: Address of the file.
        path: Path to save the file to.
        sha256: Expected SHA-256 of the file. (default: not checked)
        timeout: Number of seconds to wait for the server.

    Raises:
        OSError: If the download fails or ends early, or the size or the SHA-256
            is not the expected one.
    """
    folder = osp.dirname(osp.abspath(path))
    with locked(folder, wait=True):
        if osp.exists(path):  # Another process may have downloaded it.
            return
        part, version = f'{path}{PART}', f'{path}{VERSION}'
        with _open(url, part, version, timeout) as answer:
            if url.startswith('https:') and not answer.url.startswith('https:'):
                raise OSError(f"it redirects to '{answer.url}', without encryption")
            start = osp.getsize(part) if answer.status == 206 else 0
            length = _length(answer, start)
            with open(version, 'w', encoding='utf-8') as file:
                file.write(_version_of(answer) or '')
            bar = tqdm(total=length, initial=start, unit='B', unit_scale=True, desc=_name(path))
            with bar, open(part, 'ab' if start else 'wb') as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    bar.update(len(block))
        size = osp.getsize(part)
        if size < length:
            raise OSError(
                f'the connection ended after {size} of {length} bytes; try again to resume it'
            )
        found = None if sha256 is None else sha256_of(part)
        if size > length or found != sha256:
            os.remove(part)
            raise OSError(
                f'expected {length} bytes, got {size}'
                if size > length
                else f'expected the SHA-256 {sha256}, got {found}'
            )
        os.replace(part, path)
        with suppress(FileNotFoundError):
            os.remove(version)


def _open(url: str, part: str, version: str, timeout: float) -> Any:
    headers = {'User-Agent': 'motor_geo', 'Accept-Encoding': 'identity'}
    if osp.isfile(part) and osp.isfile(version):
        with open(version, encoding='utf-8') as file:
            known = file.read()
        if known and osp.getsize(part) > 0:
            headers |= {'Range': f'bytes={osp.getsize(part)}-', 'If-Range': known}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416 or 'Range' not in headers:
            raise
        os.remove(part)  # The part is complete or of another version, so start over.
        return _open(url, part, version, timeout)


def _length(answer: Any, start: int) -> int:
    r"""Returns the length of the complete file.

    Raises:
        OSError: If the server sends a web page, or no length.
    """
    kind = answer.headers.get_content_type()
    if kind == 'text/html':
        raise OSError('the server sent a web page instead of the file')
    length = answer.headers.get('Content-Length')
    if length is None or not length.isdecimal():
        raise OSError('the server does not report the length of the file')
    return start + int(length)


def _version_of(answer: Any) -> str | None:
    r"""Returns the server's identifier of this version of the file, or
    :obj:`None` if there is no reliable one.
    """
    tag = answer.headers.get('ETag')
    return tag if tag and not tag.startswith('W/') else answer.headers.get('Last-Modified')


def sha256_of(path: str) -> str:
    r"""Returns the SHA-256 of a file as a hexadecimal string.

    Args:
        path: The file.
    """
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _name(path: str) -> str:
    return osp.basename(path)
