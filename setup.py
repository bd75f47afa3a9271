import os.path as osp
import re

from setuptools import find_packages, setup

folder = osp.dirname(osp.abspath(__file__))


def read(*path):
    with open(osp.join(folder, *path), encoding='utf-8') as file:
        return file.read()


version = re.search(r"^__version__ = '([^']+)'", read('motor_geo', '__init__.py'), re.M).group(1)

extras = {
    'tensorboard': ['tensorboard'],
    'text': ['sentence-transformers'],
    'parquet': ['pyarrow'],
    'sweep': ['optuna>=4'],
    'svd': ['scipy>=1.13'],
    'reproduce': ['scipy>=1.13', 'matplotlib>=3.7'],
    'docs': ['sphinx>=7', 'myst-parser>=3', 'matplotlib>=3.7'],
}

setup(
    name='motor-geo',
    version=version,
    description='ID-free multimodal recommendation on graphs',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    author='motor_geo contributors',
    license='MIT',
    keywords=['recommendation', 'graph neural networks', 'multimodal', 'product quantization'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['motor_geo', 'motor_geo.*']),
    package_data={
        'motor_geo.experiments': ['published.yaml'],
        'motor_geo.report': ['templates/*'],
    },
    python_requires='>=3.10',
    install_requires=[
        # The oldest versions that were tested, all at once; PyTorch is tested from 2.11
        # on, and 2.4 is the first with the fused Adam on CPUs.
        'torch>=2.4',
        'torch-geometric>=2.7',
        'faiss-cpu>=1.9',
        'numpy>=2.0',
        'pyyaml>=6',
        'jsonargparse>=4.36,<5',
        'tqdm>=4.60',
        'jinja2>=3.1',
        'markupsafe>=2',
        'filelock>=3.13',
    ],
    extras_require={
        **extras,
        'dev': [
            'pytest>=8',
            'hypothesis>=6.100',
            'ruff',
            'mypy',
            'types-PyYAML',
            *extras['svd'],
            *extras['tensorboard'],
            *extras['parquet'],
            *extras['reproduce'],
            *extras['sweep'],
            *extras['docs'],
        ],
    },
)
