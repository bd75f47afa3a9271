r"""Measurements of motor_geo, each by one command."""

from motor_geo.utils.memory import tune_process

tune_process()  # As the commands do, before PyTorch makes its first tensor.
