from types import SimpleNamespace

from motor_geo.experiments.results import VariantResults
from motor_geo.experiments.views.comparison import among_all


def test_metric_among_all_items():
    r"""The mean over seeds; runs of an older version have none."""
    label = ('shop', 'LightGCN', 'mean')

    def of(*entries):
        own = SimpleNamespace(
            results=list(entries), jobs=[SimpleNamespace(name=str(i)) for i in range(len(entries))]
        )
        own.values = lambda *path: VariantResults.values(own, *path)
        return among_all(SimpleNamespace(variants={label: own}), label, 'recall@20')

    seeds = [{'unseen': {'all': {'recall@20': value}}} for value in (0.1, 0.3)]
    assert abs(of(*seeds).mean - 0.2) < 1e-12 and of(*seeds).runs == ('0', '1')
    assert of(seeds[0], {'unseen': {'test': {'recall@20': 0.5}}}) is None
    assert of(seeds[0], {}) is None
