from setuptools import find_packages, setup

# Everything else is in pyproject.toml.
setup(
    packages=[*find_packages(include=['motor_geo', 'motor_geo.*']), 'motor_geo.configs'],
    package_dir={'motor_geo.configs': 'configs'},
    package_data={
        'motor_geo': ['py.typed'],
        'motor_geo.configs': ['*/*.yaml'],
        'motor_geo.experiments': ['published.yaml'],
        'motor_geo.report': ['templates/*'],
    },
)
