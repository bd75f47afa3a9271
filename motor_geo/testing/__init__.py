r"""Contract tests for backbones and item encoders, inside and outside this
package. Subclass them in a test file:

.. code-block:: python

    from motor_geo.testing import BackboneContract

    class TestMyGNN(BackboneContract):
        backbone = MyGNN

The classes need :obj:`pytest`. No other module of the package imports it.
"""

import pytest

pytest.register_assert_rewrite('motor_geo.testing.backbone', 'motor_geo.testing.item_encoder')

from .backbone import BackboneContract  # noqa: E402
from .item_encoder import ItemEncoderContract  # noqa: E402

__all__ = ['BackboneContract', 'ItemEncoderContract']
