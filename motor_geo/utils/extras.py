r"""Names missing packages, and the command that installs them."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

#: The name of the distribution, in whose metadata the requirements are.
DISTRIBUTION = 'motor-geo'


def needs(what: str, *packages: str, extra: str | None = None) -> str:
    r"""Returns the message about missing packages:

    .. code-block:: text

        Reading 'a.parquet' needs pyarrow (extra 'parquet'): pip install "pyarrow>=16"

    The command installs the requirements themselves. It works in a clone and
    with a wheel, even if no package index has a package of the name
    :obj:`motor-geo`.

    Args:
        what: What needs the packages.
        *packages: Names of the packages, as for :obj:`pip`.
        extra: The extra that contains them. By default, they are requirements
            of the package itself. (default: :obj:`None`)
    """
    part = '' if extra is None else f" (extra '{extra}')"
    command = ' '.join(_quoted(requirement(package, extra)) for package in packages)
    return f'{what} needs {" and ".join(packages)}{part}: pip install {command}'


def requirement(package: str, extra: str | None = None) -> str:
    r"""Returns a requirement with the versions that the metadata of the
    installed :obj:`motor-geo` name, such as :obj:`pyarrow>=16`. Without
    metadata, or if they do not list the package, returns its name.

    Args:
        package: Name of the package, as for :obj:`pip`.
        extra: The extra that contains it. (default: :obj:`None`)
    """
    try:
        entries = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # The sources were not installed.
        entries = []
    for entry in entries:
        text, _, marker = (part.strip() for part in entry.partition(';'))
        found = re.search(r"""\bextra\s*==\s*['"]([^'"]+)['"]""", marker)
        name = re.match(r'[\w.-]+', text)
        if name is None or (found[1] if found else None) != extra:
            continue
        if _normalized(name[0]) == _normalized(package):
            return text.replace(' ', '')
    return package


def _normalized(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def _quoted(text: str) -> str:
    r"""Quotes a requirement for all common shells, where :obj:`>` writes a file."""
    return text if re.fullmatch(r'[\w.-]+', text) else f'"{text}"'
