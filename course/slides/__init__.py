r"""Slides: one Markdown file for each week, rendered to HTML that needs no network."""

from __future__ import annotations

import base64
import mimetypes
import re
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
STYLE = """
:root { color-scheme: light dark; }
html { scroll-snap-type: y proximity; font: 24px/1.45 system-ui, sans-serif; }
body { margin: 0; }
section { box-sizing: border-box; min-height: 100vh; max-width: 46em; margin: auto; padding: 2em;
  display: flex; flex-direction: column; justify-content: center; scroll-snap-align: start;
  border-bottom: 1px solid #8884; position: relative; }
section > footer { position: absolute; right: 2em; bottom: 1em; font-size: 0.6em; opacity: 0.6; }
h1 { font-size: 1.7em; } h2 { font-size: 1.3em; } h1, h2 { margin: 0 0 0.6em; }
pre { font-size: 0.72em; padding: 0.8em; overflow-x: auto; background: #8881; }
table { border-collapse: collapse; }
td, th { padding: 0.2em 0.8em; border-bottom: 1px solid #8886; }
img { max-width: 100%; background: #fff; }
math[display=block] { margin: 0.6em 0; font-size: 1.1em; }
@media print { section { break-after: page; border: 0; } section > footer { position: static; } }
"""


def to_mathml(tex: str, display: bool) -> str:
    r"""A formula as MathML.

    Raises:
        ValueError: If it contains a command that :obj:`latex2mathml` does not know.
    """
    from latex2mathml.converter import convert

    out = convert(tex.strip(), display='block' if display else 'inline')
    unknown = re.search(r'<m[ion][^>]*>\\(\w+)', out)
    if unknown:
        raise ValueError(f"latex2mathml does not know '\\{unknown[1]}' in the formula {tex!r}.")
    return out


def slides(text: str) -> list[str]:
    r"""The slides of a deck in Markdown, which lines of three dashes separate."""
    return [part.strip() for part in re.split(r'^---$', text, flags=re.M) if part.strip()]


def render(path: Path) -> str:
    r"""A deck as one HTML file without links to other files.

    Raises:
        ValueError: If it has no title, or refers to a missing image.
    """
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def formula(content: str, options: dict) -> str:
        return to_mathml(content, options['display_mode'])

    parser = MarkdownIt('commonmark').enable('table')
    parser.use(dollarmath_plugin, renderer=formula, double_inline=True)
    text = path.read_text()
    title = re.match(r'# (.+)', text)
    if title is None:
        raise ValueError(f"'{path.name}' must start with '# ' and the title of the deck.")
    parts = slides(text)
    body = ''.join(
        f'<section id="{i}">{parser.render(part)}<footer>{i} / {len(parts)}</footer></section>\n'
        for i, part in enumerate(parts, start=1)
    )

    def inline(match: re.Match) -> str:
        image = (path.parent / match[1]).resolve()
        if not image.is_file():
            raise ValueError(f"'{path.name}' refers to the image '{match[1]}', which is missing.")
        kind = mimetypes.guess_type(image.name)[0]
        return f'src="data:{kind};base64,{base64.b64encode(image.read_bytes()).decode()}"'

    body = re.sub(r'src="([^"]+)"', inline, body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f'<title>{escape(title[1])}</title>\n<style>{STYLE}</style>\n</head>\n'
        f'<body>\n{body}</body>\n</html>\n'
    )


def decks() -> list[Path]:
    r"""All decks, in order."""
    return sorted(FOLDER.glob('week*.md'))


def images() -> set[Path]:
    r"""The images of all decks, relative to the folder that contains the course."""
    found = set()
    for path in decks():
        for name in re.findall(r'!\[[^]]*\]\(([^)]+)\)', path.read_text()):
            found.add((FOLDER / name).resolve().relative_to(FOLDER.parents[1]))
    return found
