import numpy as np

from jaxcoder.tokens.evidence import GOLD, SILVER
from jaxcoder.tokens.report import SplitReport


def report_of(records):
    report = SplitReport()
    for tokens, labels, spans, missing, cut, fate in records:
        sizes = {"tokens": tokens, "labels": labels, "evidence": spans}
        record = {key: np.zeros(size, np.int32) for key, size in sizes.items()}
        report.add({**record, "missing": np.int32(missing)}, cut)
        report.evidence.add(GOLD, "kept")
        report.evidence.add(SILVER, fate)
        report.evidence.labels["silver"] += labels
    return report


def test_the_reports_of_two_halves_merge_to_that_of_the_whole():
    records = [(9, 2, 3, 0, 0, "kept"), (30, 1, 0, 2, 7, "cut"), (5, 0, 1, 1, 0, "not_coded")]
    first, second, whole = (report_of(part) for part in (records[:1], records[1:], records))
    assert first.summary() != whole.summary()
    first.merge(second)
    assert first.summary() == whole.summary()
    assert first.sizes.tolist() == whole.sizes.tolist() == [[9, 2, 3], [30, 1, 0], [5, 0, 1]]
    assert whole.summary()["tokens_cut"] == 7 and whole.summary()["truncated_share"] == 0.3333
    first.merge(SplitReport())
    assert first.summary() == whole.summary()
