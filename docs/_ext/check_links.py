r"""Links between the pages of a built site, with their anchors, and every file that they name.

Runs at the end of each build, and by hand: :obj:`python docs/_ext/check_links.py FOLDER`.
"""

import os
import os.path as osp
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    r"""The anchors of a page, and where it points."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        with open(path, encoding='utf-8') as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ('id', 'name') if attrs.get(key)}
        self.links += [attrs[key] for key in ('href', 'src', 'data') if attrs.get(key)]


def dead_links(folder):
    r"""A sentence for every link within a folder that leads nowhere."""
    pages = {}
    for base, _, names in os.walk(folder):
        for name in names:
            if name.endswith('.html'):
                path = osp.join(base, name)
                pages[osp.normpath(path)] = Page(path)
    out = []
    for path, page in sorted(pages.items()):
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = osp.normpath(osp.join(osp.dirname(path), unquote(parts.path)))
            target = path if not parts.path else target
            name = osp.relpath(path, folder)
            if not osp.exists(target):
                out.append(f"{name}: '{link}' does not exist")
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].anchors:
                    out.append(f"{name}: '{link}' has no such anchor")
    return list(dict.fromkeys(out))


def check(app, exception):
    from sphinx.errors import SphinxError

    if exception is None and app.builder.format == 'html':
        dead = dead_links(app.outdir)
        if dead:
            raise SphinxError('Dead links:\n' + '\n'.join(dead))


def setup(app):
    app.connect('build-finished', check, priority=900)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}


if __name__ == '__main__':
    sys.exit('\n'.join(dead_links(sys.argv[1])) or 0)
