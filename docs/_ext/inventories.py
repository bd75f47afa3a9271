r"""Inventories of other documentation, from one file of this repository.

:obj:`sphinx.ext.intersphinx` would fetch them. The file has a line for the address of each, and
below it a line for each name: :obj:`class torch.nn.Module generated/torch.nn.Module.html`. The
anchor is the name, unless the page has one.
"""

import os
import os.path as osp
import zlib


def read(path):
    r"""The address and the entries (kind, name, page) by project."""
    out = {}
    with open(path) as file:
        for line in file:
            fields = line.split()
            if not fields or fields[0] == '#':
                continue
            if len(fields) == 2:
                project, address = fields
                out[project] = (address, [])
            else:
                out[project][1].append(tuple(fields))
    return out


def mapping(path, folder):
    r"""Writes a file :obj:`<project>.inv` for each, and returns what
    :obj:`intersphinx_mapping` expects.
    """
    os.makedirs(folder, exist_ok=True)
    out = {}
    for project, (address, entries) in read(path).items():
        lines = ''.join(
            f'{name} py:{kind} 1 {page if "#" in page else page + "#$"} -\n'
            for kind, name, page in entries
        )
        head = f'# Sphinx inventory version 2\n# Project: {project}\n# Version: \n'
        head += '# The remainder of this file is compressed using zlib.\n'
        target = osp.join(folder, f'{project}.inv')
        with open(target, 'wb') as file:
            file.write(head.encode() + zlib.compress(lines.encode()))
        out[project] = (address, target)
    return out
