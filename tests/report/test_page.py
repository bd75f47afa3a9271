import struct
import zlib
from base64 import b64decode

import numpy as np
import pytest

from motor_geo.report.document import Column, Figure, Row, Series, Table, Text, Value
from motor_geo.report.page import (
    Card,
    Cards,
    Item,
    ItemList,
    Page,
    Section,
    Verbatim,
    picture,
    render,
)
from tests.report.examples import NASTY
from tests.report.html_tree import parse, table


def pixels_of(address):
    r"""Width, height and pixels of a picture, read chunk by chunk."""
    content = b64decode(address.removeprefix('data:image/png;base64,'))
    assert content[:8] == b'\x89PNG\r\n\x1a\n'
    chunks, at = {}, 8
    while at < len(content):
        (size,) = struct.unpack('>I', content[at : at + 4])
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + size]
        (check,) = struct.unpack('>I', content[at + 8 + size : at + 12 + size])
        assert check == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + size
    width, height, *rest = struct.unpack('>IIBBBBB', chunks[b'IHDR'])
    assert rest == [8, 2, 0, 0, 0]  # 8 bits of red, green and blue.
    rows = np.frombuffer(zlib.decompress(chunks[b'IDAT']), np.uint8).reshape(height, -1)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:].reshape(height, width, 3)


def test_picture_keeps_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert (pixels_of(picture(pixels)) == pixels).all()


def test_large_pictures_are_averaged():
    pixels = np.zeros((6, 5, 3), np.uint8)
    pixels[:2, :2, 0] = [[10, 20], [30, 41]]  # Mean 25.25.
    small = pixels_of(picture(pixels, most=3))
    assert small.shape == (3, 2, 3)  # What is left over on the right is cut.
    assert small[0, 0].tolist() == [25, 0, 0] and small[1:].sum() == 0


@pytest.mark.parametrize('pixels', [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), None])
def test_other_pictures_are_refused(pixels):
    with pytest.raises(ValueError, match='uint8'):
        picture(np.zeros((0, 4, 3), np.uint8) if pixels is None else pixels)


def test_everything_is_escaped():
    item = Item(NASTY, NASTY, hit=True)
    blocks = [
        Text(NASTY, NASTY),
        Table('t', NASTY, [NASTY], [Column(NASTY)], [Row([NASTY], [Value(0.25)])], [NASTY]),
        Figure('f', NASTY, 'line', NASTY, NASTY, [Series(NASTY, [1, 2], [1.0, 2.0])]),
        Cards([Card(item, [ItemList(NASTY, [item, Item('plain')], ranked=True)])], wide=True),
        Verbatim(NASTY),
    ]
    text = render(Page(NASTY, NASTY, [Section(NASTY, blocks, closed=True)]))
    tree = parse(text)
    assert not list(tree.find('i', 'script', 'link', 'iframe'))
    assert next(tree.find('title')).text == NASTY
    entry, plain = list(tree.find('li'))[-2:]
    assert entry.attrs['class'] == 'hit' and entry.text == f'{NASTY} {NASTY}'
    assert plain.attrs == {} and plain.text == 'plain'
    assert next(tree.find('pre')).text == NASTY
    assert table(tree, NASTY) == [[NASTY, '0.2500']]
    assert [node.attrs for node in tree.find('details')] == [{'id': 'section-1'}]


def test_an_empty_list_says_so():
    cards = Cards([Card(Item('u'), [ItemList('took', [], empty='nothing')])])
    tree = parse(render(Page('p', 'a', [Section('s', [cards])])))
    (card,) = tree.find('article')
    assert card.text == 'u took nothing'
