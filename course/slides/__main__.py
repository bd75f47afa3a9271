r"""Renders all slides: ``python -m course.slides OUT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from course.slides import decks, render


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog='python -m course.slides', description=__doc__)
    parser.add_argument('out', type=Path, help='folder for one HTML file a week')
    options = parser.parse_args(args)
    options.out.mkdir(parents=True, exist_ok=True)
    for path in decks():
        (options.out / f'{path.stem}.html').write_text(render(path))
        print(options.out / f'{path.stem}.html')
    return 0


if __name__ == '__main__':
    sys.exit(main())
