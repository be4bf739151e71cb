import pickle

import numpy as np
import pytest

from jaxcoder.records.data import open_contacts
from jaxcoder.tokens.builder import TokensBuild, TokensOptions
from jaxcoder.tokens.evidence import SILVER
from jaxcoder.tokens.lexicon import SilverOptions
from jaxcoder.tokens.minidocs import MiniOptions
from jaxcoder.tokens.report import SplitReport
from jaxcoder.tokens.tokenizer import TokenizerOptions

OPTIONS = TokensOptions(
    tokenizer=TokenizerOptions(vocab_size=400),
    silver=SilverOptions(min_score=2.0),
    mini=MiniOptions(per_contact=0.0),
)


@pytest.fixture(scope="module")
def fitted(splits, make_data, tmp_path_factory):
    return TokensBuild(make_data(tmp_path_factory.mktemp("data"), splits), OPTIONS)


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_ranges_of_contacts_in_other_processes_give_the_records_of_the_whole(fitted):
    """As a worker does it: from a pickle, the folder of the contacts, and a range of numbers."""
    path, message = fitted.contacts.path, pickle.dumps(fitted.preprocessor)
    whole, reports = SplitReport(), []
    records = list(fitted.preprocessor.records(fitted.train, whole, silver=True))
    assert any((record["evidence"][:, 3] == SILVER).any() for record in records)
    apart = []
    for start, stop in ((0, 17), (17, 17), (17, None)):
        reports.append(SplitReport())
        contacts = open_contacts(path).split("train")
        worker = pickle.loads(message)
        apart += worker.records(contacts, reports[-1], silver=True, start=start, stop=stop)
    assert len(apart) == len(records) == 60
    assert all(same(one, other) for one, other in zip(apart, records, strict=True))
    for other in reports[1:]:
        reports[0].merge(other)
    assert reports[0].summary() == whole.summary()
    assert np.array_equal(reports[0].sizes, whole.sizes)


def test_silver_evidence_only_where_it_is_asked_for(fitted):
    report = SplitReport()
    for record in fitted.preprocessor.records(fitted.train, report, silver=False):
        assert not record["evidence"][:, 3].any()
    assert "silver" not in report.summary()["evidence"]


def test_a_pickle_has_nothing_of_the_texts(fitted):
    before = len(pickle.dumps(fitted.preprocessor.encoder))
    list(fitted.preprocessor.records(fitted.train, SplitReport(), silver=False))
    assert len(pickle.dumps(fitted.preprocessor.encoder)) == before
