r"""Downloads that are whole, or not there."""

from __future__ import annotations

import hashlib
import os
import os.path as osp
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from motor_geo.utils.files import locked

#: Ending of a download that is not whole yet, and of what says which version it is of.
PART, VERSION = '.part', '.version'
BLOCK = 2**18


def download(url: str, path: str, sha256: str | None = None, timeout: float = 60.0) -> None:
    r"""Downloads a file. One that breaks off stays beside it as
    :obj:`<path>.part`, and the next call goes on with it if the server still
    has the same file. Certificates are verified, and an address with
    encryption does not lead to one without.

    Args:
        url: Where the file is.
        path: Where it goes.
        sha256: What its SHA-256 must be, if that is known.
        timeout: Seconds without an answer after which to give up.

    Raises:
        OSError: If the file cannot be had, ends early, or is another one.
    """
    folder = osp.dirname(osp.abspath(path))
    with locked(folder, wait=True):
        if osp.exists(path):  # Another process was faster.
            return
        part, version = f'{path}{PART}', f'{path}{VERSION}'
        with _open(url, part, version, timeout) as answer:
            if url.startswith('https:') and not answer.url.startswith('https:'):
                raise OSError(f"it leads to '{answer.url}', without encryption")
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
            raise OSError(f'the connection ended after {size} of {length} bytes; start again')
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
        os.remove(part)  # Whole, or of another version: from the start.
        return _open(url, part, version, timeout)


def _length(answer: Any, start: int) -> int:
    r"""The length of the whole file."""
    kind = answer.headers.get_content_type()
    if kind == 'text/html':
        raise OSError('the server sent a page instead of the file')
    length = answer.headers.get('Content-Length')
    if length is None or not length.isdecimal():
        raise OSError('the server does not say how long the file is')
    return start + int(length)


def _version_of(answer: Any) -> str | None:
    r"""What the server calls this version of the file, if it can be relied on."""
    tag = answer.headers.get('ETag')
    return tag if tag and not tag.startswith('W/') else answer.headers.get('Last-Modified')


def sha256_of(path: str) -> str:
    r"""The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _name(path: str) -> str:
    return osp.basename(path)
