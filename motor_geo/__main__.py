r"""All commands behind one: :obj:`python -m motor_geo`."""

from __future__ import annotations

import sys

from motor_geo.cli import main

if __name__ == '__main__':
    sys.exit(main())
