import pickle

import pytest

from jaxcoder.records import runner, sources
from jaxcoder.records.sources import relations


@pytest.fixture(params=["whole", "apart"])
def way(request, monkeypatch):
    """How sources are read: whole, or as other processes do it, file by file, part by part."""
    if request.param == "apart":
        monkeypatch.setattr(relations, "_LARGE", 0)
        monkeypatch.setattr(sources, "Local", _Pickling)


class _Pickling(runner.Local):
    def __init__(self):
        super().__init__(8)  # each with the least memory there is

    def map(self, task, parts, apart, bar=""):
        return [
            pickle.loads(pickle.dumps(task))(pickle.loads(pickle.dumps(part))) for part in parts
        ]
