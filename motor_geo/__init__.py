r"""ID-free multimodal recommendation on graphs."""

import os

# Rows of large tables are read in random order, where huge pages are twice as fast. PyTorch
# looks this up once, when it makes its first tensor.
os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')

__version__ = '0.1.0'
