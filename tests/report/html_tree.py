r"""Pages of HTML as trees, to look at what they say."""

from html.parser import HTMLParser

VOID = {'meta', 'img', 'br', 'link', 'input'}


class Node:
    def __init__(self, tag, attrs=()):
        self.tag, self.attrs, self.children = tag, dict(attrs), []

    def find(self, *tags):
        r"""All nodes below of these tags, in order."""
        for child in self.children:
            if isinstance(child, Node):
                if child.tag in tags:
                    yield child
                yield from child.find(*tags)

    @property
    def text(self):
        parts = [child.text if isinstance(child, Node) else child for child in self.children]
        return ' '.join(' '.join(parts).split())


class Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [Node('')]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, attrs))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(text):
    r"""The tree of a page, whose tags must be closed in order."""
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert len(parser.open) == 1
    return parser.open[0]


def table(tree, label):
    r"""Rows of a table as texts, without its head."""
    node = next(n for n in tree.find('div') if n.attrs.get('aria-label') == label)
    body = next(node.find('tbody'))
    return [[cell.text for cell in row.find('th', 'td')] for row in body.find('tr')]
