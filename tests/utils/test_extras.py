from importlib.metadata import PackageNotFoundError

import pytest

from motor_geo.utils import extras
from motor_geo.utils.extras import needs, requirement

#: As setuptools writes them, and in forms that other tools write.
ENTRIES = [
    'numpy>=2.0.1',
    'jsonargparse[signatures]<5,>=4.36',
    'pyarrow>=16; extra == "parquet"',
    "Pillow (>=9.1) ; python_version >= '3.10' and extra == 'features'",
    'huggingface_hub>=0.26; extra == "hub"',
    'safetensors>=0.4; extra == "hub"',
    'wandb; extra == "wandb"',
]


@pytest.fixture
def metadata(monkeypatch):
    def install(entries):
        def requires(name):
            assert name == 'motor-geo'
            if entries is PackageNotFoundError:
                raise entries
            return entries

        monkeypatch.setattr(extras, 'requires', requires)

    return install


def test_versions_come_from_the_metadata(metadata):
    metadata(ENTRIES)
    assert needs("Reading 'a'", 'pyarrow', extra='parquet') == (
        "Reading 'a' needs pyarrow (extra 'parquet'): pip install \"pyarrow>=16\""
    )
    assert needs('push_to_hub', 'safetensors', 'huggingface-hub', extra='hub') == (
        "push_to_hub needs safetensors and huggingface-hub (extra 'hub'): "
        'pip install "safetensors>=0.4" "huggingface_hub>=0.26"'
    )
    assert needs('A', 'wandb', extra='wandb').endswith(': pip install wandb')
    assert needs('A', 'numpy') == 'A needs numpy: pip install "numpy>=2.0.1"'
    assert requirement('jsonargparse') == 'jsonargparse[signatures]<5,>=4.36'
    assert requirement('pillow', 'features') == 'Pillow(>=9.1)'


@pytest.mark.parametrize('entries', [PackageNotFoundError, None, [], ENTRIES])
def test_unlisted_packages_have_no_version(metadata, entries):
    r"""Sources that were not installed, or whose metadata are older."""
    metadata(entries)
    assert requirement('numpy', 'parquet') == 'numpy'
    assert requirement('pyarrow') == 'pyarrow'
    assert needs('A', 'onnx', extra='onnx') == "A needs onnx (extra 'onnx'): pip install onnx"
