r"""What the grader does with a backbone, in the process of the submission."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

#: The class that students write.
NAME = 'MyBackbone'
TEST = f"""
from motor_geo.testing import BackboneContract
from submission import {NAME}


class TestContract(BackboneContract):
    backbone = {NAME}
    epochs = {{epochs}}
"""


class Outcomes:
    r"""Collects outcomes of tests."""

    def __init__(self) -> None:
        self.tests: list[dict[str, str]] = []

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> Any:
        outcome = yield
        report = outcome.get_result()
        if call.when == 'call' or (call.when == 'setup' and not report.passed):
            message = ''
            if report.failed and call.excinfo is not None:
                text = str(call.excinfo.value).strip().splitlines()
                message = f'{call.excinfo.typename}: {text[0][:200]}' if text else ''
            self.tests.append({'name': item.name, 'outcome': report.outcome, 'message': message})


def contract(module: ModuleType, epochs: int) -> list[dict[str, str]]:
    r"""The outcomes of :class:`motor_geo.testing.BackboneContract`.

    Raises:
        TypeError: If there is no such backbone.
    """
    from motor_geo.testing.graphs import prepare, random_batch, small_graph

    backbone = _backbone(module)
    data = prepare(backbone, small_graph())
    model = backbone(data, channels=8)
    model(data)  # Errors of code that is not written yet end here.
    model.loss(data, random_batch(data))
    with open('test_contract.py', 'w') as file:
        file.write(TEST.format(epochs=epochs))
    with open('pytest.ini', 'w') as file:
        file.write('[pytest]\n')
    outcomes = Outcomes()
    options = ['-q', '-s', '-p', 'no:cacheprovider', '-c', 'pytest.ini', '--assert=plain']
    pytest.main([*options, '--import-mode=importlib', 'test_contract.py'], plugins=[outcomes])
    return outcomes.tests


def train(module: ModuleType, items: str, seed: int) -> dict[str, torch.Tensor]:
    r"""Trains the backbone on the shop of :func:`shop` and returns the vectors of users and
    items.

    Args:
        module: The submission.
        items: :obj:`"id"` or :obj:`"tokens"`.
        seed: Seed of the data and of the model.
    """
    from motor_geo.engine import Evaluator, Trainer
    from motor_geo.nn import TokenCrossEncoder
    from motor_geo.testing.graphs import prepare

    backbone = _backbone(module)
    dataset, tokenizer, data = shop(seed)
    data = prepare(backbone, data)
    edge_index = data['user', 'rates', 'item'].edge_index
    val = Evaluator(dataset.targets('val'), edge_index, dataset.num_items, ks=20)
    torch.manual_seed(seed)
    encoder = None
    if items == 'tokens':
        encoder = TokenCrossEncoder.from_tokenizer(tokenizer, out_channels=32)
    model = backbone(data, item_encoder=encoder, channels=32)
    options = {'epochs': 40, 'patience': 40, 'batch_size': 512, 'seed': seed, 'progress': False}
    Trainer(model, data, val, lr=0.01, **options).fit()
    with torch.no_grad():
        out = model.eval()(data)
    return {'user': out.user, 'item': out.item}


def shop(seed: int) -> tuple[Any, Any, Any]:
    r"""A small synthetic shop, its tokenizer and its graph. Taste counts more than popularity, so
    that a model that learns beats popularity by a wide margin.
    """
    from motor_geo.data import OPQTokenizer, SyntheticMultimodal

    taste = {'combinations': 0.3, 'affinity': 3.0, 'popularity': 0.4}
    dataset = SyntheticMultimodal(500, 300, 6000, **taste, seed=seed)
    tokenizer = OPQTokenizer(num_tokens=4, codebook_size=16, cache=False, verbose=False)
    return dataset, tokenizer, tokenizer(dataset[0])


def _backbone(module: ModuleType) -> Any:
    from motor_geo.nn.models import Recommender

    backbone = getattr(module, NAME, None)
    if not isinstance(backbone, type) or not issubclass(backbone, Recommender):
        raise TypeError(f'expected a class {NAME} that is a subclass of Recommender')
    return backbone
