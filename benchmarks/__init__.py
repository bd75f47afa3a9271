r"""Measurements of motor_geo, each by one command."""
