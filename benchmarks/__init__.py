r"""Measurements of motor_geo. Each of them is one command."""

from motor_geo.utils.memory import tune_process

tune_process()  # Like the commands, before PyTorch allocates its first tensor.
