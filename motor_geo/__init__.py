r"""ID-free multimodal recommendation on graphs."""

__version__ = '0.1.0'
