r"""Tests that a backbone or an item encoder outside of the package inherits.

.. code-block:: python

    from motor_geo.testing import BackboneContract

    class TestMyGNN(BackboneContract):
        backbone = MyGNN

The classes need :obj:`pytest`; nothing else in the package imports it.
"""

import pytest

pytest.register_assert_rewrite('motor_geo.testing.backbone', 'motor_geo.testing.item_encoder')

from .backbone import BackboneContract  # noqa: E402
from .item_encoder import ItemEncoderContract  # noqa: E402

__all__ = ['BackboneContract', 'ItemEncoderContract']
