r"""Draws the method, once for light pages and once for dark ones:

python docs/draw.py
"""

import os.path as osp
from html import escape

HERE = osp.dirname(osp.abspath(__file__))
WIDTH, HEIGHT = 760, 690
LIGHT = {
    'ink': '#1f2328',
    'soft': '#57606a',
    'line': '#8c959f',
    'paper': '#ffffff',
    'box': '#f6f8fa',
    'image': '#2f6fde',
    'text': '#c9510c',
    'other': '#d0d7de',
    'item': '#7b4fd0',
    'user': '#1a7f37',
    'on': '#ffffff',
}
DARK = {
    'ink': '#e6edf3',
    'soft': '#a8b3bf',
    'line': '#768390',
    'paper': '#131416',
    'box': '#1f242b',
    'image': '#6ea8fe',
    'text': '#f0883e',
    'other': '#3d444d',
    'item': '#b392f0',
    'user': '#56d364',
    'on': '#131416',
}


class Drawing:
    r"""Shapes with the colors of a palette, by name."""

    def __init__(self, colors):
        self.colors, self.parts = colors, []

    def box(self, x, y, w, h, fill='box', stroke=None, radius=8):
        line = f' stroke="{self.colors[stroke]}" stroke-width="1.5"' if stroke else ''
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}" '
            f'fill="{self.colors[fill]}"{line}/>'
        )

    def text(self, x, y, text, size=17, color='ink', anchor='start', weight='normal'):
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{self.colors[color]}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
        )

    def arrow(self, *points, color='line'):
        path = ' L '.join(f'{x} {y}' for x, y in points)
        self.parts.append(
            f'<path d="M {path}" fill="none" stroke="{self.colors[color]}" stroke-width="2.5" '
            'marker-end="url(#head)"/>'
        )

    def dot(self, x, y, color, radius=11):
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{self.colors[color]}"/>')

    def edge(self, x0, y0, x1, y1):
        self.parts.append(
            f'<line x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}" '
            f'stroke="{self.colors["line"]}" stroke-width="2"/>'
        )

    def vector(self, x, y, values, color, w=26, h=26):
        for i, value in enumerate(values):
            opacity = 0.25 + 0.75 * value
            self.parts.append(
                f'<rect x="{x + i * w}" y="{y}" width="{w - 2}" height="{h}" rx="3" '
                f'fill="{self.colors[color]}" fill-opacity="{opacity:.2f}"/>'
            )

    def svg(self, title):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
            f'<title>{escape(title)}</title>\n'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="6" '
            'markerHeight="6" orient="auto"><path d="M 0 0 L 10 5 L 0 10 z" '
            f'fill="{self.colors["line"]}"/></marker></defs>\n'
            + '\n'.join(self.parts)
            + '\n</svg>\n'
        )


def method(colors):
    d = Drawing(colors)
    # 1: what an item shows.
    d.text(20, 34, '1  An item has an image and a text', size=20, weight='bold')
    d.box(20, 52, 330, 96)
    sneaker(d, 38, 70, 'text')
    d.text(140, 95, '“red canvas')
    d.text(140, 119, 'sneakers”')
    d.arrow((358, 100), (404, 100))
    d.text(420, 79, 'image', color='image')
    d.vector(500, 62, [0.9, 0.2, 0.6, 0.1, 0.8, 0.4, 0.3, 0.7], 'image')
    d.text(420, 130, 'text', color='text')
    d.vector(500, 113, [0.2, 0.7, 0.1, 0.9, 0.5, 0.3, 0.8, 0.2], 'text')
    d.arrow((604, 156), (604, 184))

    # 2: tokens.
    d.text(20, 206, '2  A quantizer maps features to a few tokens', size=20, weight='bold')
    items = (
        ('red sneakers', (17, 203, 5, 88)),
        ('blue sneakers', (17, 41, 5, 130)),
        ('a new item', (17, 203, 9, 88)),
    )
    for row, (name, tokens) in enumerate(items):
        y = 224 + 44 * row
        d.text(40, y + 23, name, color='ink' if row < 2 else 'item')
        for slot, token in enumerate(tokens):
            shared = token in items[0][1]
            color = ('image' if slot < 2 else 'text') if shared else 'other'
            x = 210 + 66 * slot
            d.box(x, y, 54, 34, fill=color, radius=17)
            ink = 'on' if shared else 'ink'
            d.text(x + 27, y + 23, str(token), color=ink, anchor='middle', weight='bold')
    d.text(500, 247, 'Similar items share', size=17, color='soft')
    d.text(500, 270, 'tokens, so they learn', size=17, color='soft')
    d.text(500, 293, 'from each other’s', size=17, color='soft')
    d.text(500, 316, 'interactions.', size=17, color='soft')

    # 3: vectors.
    d.arrow((330, 360), (330, 386))
    d.text(20, 408, '3  A network combines the embeddings of the tokens', size=20, weight='bold')
    for slot, row in enumerate((1, 3, 0, 2)):
        for i in range(5):
            color = ('image' if slot < 2 else 'text') if i == row else 'other'
            d.vector(40 + 92 * slot, 424 + 20 * i, [0.8, 0.8, 0.8], color, w=24, h=16)
    d.arrow((412, 472), (452, 472))
    d.text(464, 466, 'sum + products of pairs', size=15, color='soft')
    d.text(464, 488, '(+ a network over all)', size=15, color='soft')
    d.arrow((642, 480), (666, 480))
    d.vector(674, 466, [0.9, 0.4, 0.7], 'item')
    d.text(711, 510, 'item vector', size=16, color='item', anchor='middle')

    # 4: the graph.
    d.arrow((711, 518), (711, 548))
    d.text(20, 562, '4  It replaces the ID embedding of a GNN', size=20, weight='bold')
    users, things = [(150, 606), (150, 656)], [(380, 590), (380, 631), (380, 672)]
    for (ux, uy), (ix, iy) in [(users[0], things[0]), (users[0], things[1]), (users[1], things[1])]:
        d.edge(ux, uy, ix, iy)
    for x, y in users:
        d.dot(x, y, 'user')
    for x, y in things:
        d.dot(x, y, 'item')
    d.text(126, 637, 'users', anchor='end', color='user')
    d.text(404, 596, 'red sneakers', color='soft', size=16)
    d.text(404, 637, 'blue sneakers', color='soft', size=16)
    d.text(404, 678, 'a new item: no interactions, but a vector', color='item', size=16)
    return d.svg(
        'How tokens replace item IDs: features become tokens, tokens become an item vector, and '
        'the vector replaces the ID embedding of a graph recommender.'
    )


def sneaker(d, x, y, color):
    ink = d.colors[color]
    d.parts.append(
        f'<path d="M {x} {y + 14} q 14 10 28 -6 q 16 26 46 30 q 10 2 10 12 l -84 0 z" '
        f'fill="{ink}"/>'
        f'<rect x="{x - 2}" y="{y + 52}" width="88" height="8" rx="4" fill="{d.colors["soft"]}"/>'
    )


def main():
    for name, colors in (('light', LIGHT), ('dark', DARK)):
        with open(osp.join(HERE, '_static', f'method-{name}.svg'), 'w') as file:
            file.write(method(colors))


if __name__ == '__main__':
    main()
