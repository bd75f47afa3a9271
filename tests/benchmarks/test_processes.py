import json

from benchmarks.processes import main
from motor_geo.parallel.cost import exchange


def test_meshes_are_compared(capfd):
    flags = ['--interactions', '5000', '--batch', '100', '--steps', '2', '--timeout', '300']
    assert main(flags) == 0
    lines = [json.loads(x) for x in capfd.readouterr().out.splitlines() if x.startswith('{')]
    assert [(x['columns'], x['users']) for x in lines] == [(1, 1), (1, 2), (2, 1)]
    assert all(line['seconds per step'] > 0 for line in lines)
    sent = [line['bytes per step'] for line in lines]
    assert sent[0] == {}
    for found, columns in zip(sent[1:], (1, 2)):
        shared = found['gradients'] // 4
        expected = exchange(50, 64, 2, 100, shared, columns=columns, users=2 // columns)
        assert found == {key: value for key, value in expected.items() if value}
