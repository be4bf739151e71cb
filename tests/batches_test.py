import dataclasses
import itertools
import threading

import numpy as np
import pytest

from jaxcoder.batches import BatchOptions, TrainingPlan, check_rows, evaluation_batches
from jaxcoder.errors import UserError
from jaxcoder.records import builder as records_builder
from jaxcoder.records.sources import Source
from jaxcoder.sharding import Share
from jaxcoder.tokens import builder
from jaxcoder.tokens.builder import TokensOptions
from jaxcoder.tokens.labels import LabelOptions
from jaxcoder.tokens.lexicon import SilverOptions
from jaxcoder.tokens.minidocs import MiniOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions


class Data:
    """Token records at hand: tokens of a record are its number, counted up."""

    path = "memory"

    def __init__(self, seed=0, **counts):
        rng = np.random.default_rng(seed)
        self._records = {
            split: [self._record(rng, number, split) for number in range(count)]
            for split, count in counts.items()
        }
        self.splits = tuple(counts)

    @staticmethod
    def _record(rng, number, split):
        mean = 3.0 if split == "mini" else 4.5
        length = int(np.clip(rng.lognormal(mean, 0.5), 6, 400))
        labels = np.sort(rng.choice(50, rng.integers(1, 12), replace=False)).astype(np.int32)
        spans = []
        for label in rng.choice(labels, rng.integers(0, 9)):
            start = int(rng.integers(1, length - 2))
            spans.append((label, start, start + int(rng.integers(1, 3)), int(rng.integers(2))))
        return {
            "tokens": np.arange(length, dtype=np.int32) + 1000 * number,
            "labels": labels,
            "missing": number % 3,
            "evidence": np.array(spans, np.int32).reshape(-1, 4),
        }

    def batch_source(self, split):
        return self._records[split]

    def sizes(self, split):
        keys = ("tokens", "labels", "evidence")
        return np.array(
            [[len(record[key]) for key in keys] for record in self._records[split]], np.int32
        )


DATA = Data(train=203, validation=57, mini=330)
WHOLE = Share()
OPTIONS = BatchOptions(documents=8, mini_share=0.5)
TOKENS = BatchOptions(tokens=1024, row_multiple=4, mini_share=0.5)


def take(plan, start, count, share=WHOLE):
    return list(itertools.islice(plan.batches(start, share), count))


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_what_is_put_takes_the_place_of_its_batch_and_is_done_in_another_thread():
    plan, threads = TrainingPlan(DATA, OPTIONS, seed=3), set()

    def put(batch):
        threads.add(threading.get_ident())
        return batch["index"].tolist()

    placed = list(itertools.islice(plan.batches(2, WHOLE, put), 5))
    assert placed == [batch["index"].tolist() for batch in take(plan, 2, 5)]
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("options", [OPTIONS, TOKENS])
def test_an_epoch_has_every_contact_once_and_its_slice_of_mini_documents(options):
    plan = TrainingPlan(DATA, options, seed=3)
    seen_minis = []
    for epoch in range(4):
        items = np.concatenate([planned.items for planned in plan.epoch(epoch)])
        items = items[items >= 0]
        assert sorted(items[items < 203].tolist()) == list(range(203))
        minis = sorted((items[items >= 203] - 203).tolist())
        assert len(minis) == len(set(minis)) == 102
        seen_minis.append(set(minis))
    assert not seen_minis[0] & seen_minis[1] and len(set.union(*seen_minis[:3])) == 306
    assert len(seen_minis[3] & seen_minis[0]) == 78  # they begin anew after the 330th


@pytest.mark.parametrize("options", [OPTIONS, TOKENS])
def test_batches_hold_their_records(options):
    plan = TrainingPlan(DATA, options, seed=0)
    contacts = []
    for batch in take(plan, 0, plan.steps_per_epoch):
        rows, length = batch["tokens"].shape
        assert rows == options.rows(length) and length in plan.bucket_lengths
        assert np.array_equal(batch["_mask"], batch["length"] > 0)
        for row in range(rows):
            size = batch["length"][row]
            assert not batch["tokens"][row, size:].any()
            number = batch["tokens"][row, 0] // 1000
            split = "train" if batch["index"][row] >= 0 else "mini"
            if not batch["_mask"][row]:
                assert batch["index"][row] == -1 and (batch["labels"][row] == -1).all()
                assert (batch["evidence"][row, :, 0] == -1).all() and not batch["missing"][row]
                continue
            record = DATA.batch_source(split)[number]
            assert np.array_equal(batch["tokens"][row, :size], record["tokens"])
            labels = batch["labels"][row]
            assert np.array_equal(labels[labels >= 0], record["labels"])
            evidence = batch["evidence"][row]
            evidence = evidence[evidence[:, 0] >= 0]
            by_label = np.column_stack([labels[evidence[:, 0]], evidence[:, 1:]])
            assert np.array_equal(by_label, record["evidence"])
            assert batch["missing"][row] == record["missing"]
            if split == "train":
                assert batch["index"][row] == number
                contacts.append(number)
    assert sorted(contacts) == list(range(203))
    kinds = {key: value.dtype for key, value in batch.items()}
    assert kinds.pop("_mask") == np.dtype(bool) and set(kinds.values()) == {np.dtype("int32")}


def test_shapes_are_few_and_the_same_in_every_epoch():
    plan = TrainingPlan(DATA, OPTIONS, seed=0)
    shapes = {
        tuple((key, value.shape) for key, value in batch.items())
        for batch in take(plan, 0, 3 * plan.steps_per_epoch)
    }
    assert len(shapes) <= 8
    assert {dict(shape)["tokens"][1] for shape in shapes} <= set(plan.bucket_lengths)


def test_order_depends_on_seed_and_epoch_alone():
    plan, again, other = (TrainingPlan(DATA, OPTIONS, seed) for seed in (1, 1, 2))
    steps = plan.steps_per_epoch
    first = take(plan, 0, steps)
    assert all(map(same, first, take(again, 0, steps)))
    assert not all(map(same, first, take(other, 0, steps)))
    assert not all(map(same, first, take(plan, steps, steps)))


@pytest.mark.parametrize("options", [OPTIONS, TOKENS])
@pytest.mark.parametrize("start", [0, 5, 61, 140])
def test_going_on_at_a_step_equals_going_on_without_a_break(start, options):
    whole = take(TrainingPlan(DATA, options, seed=0), 0, start + 6)
    assert all(map(same, whole[start:], take(TrainingPlan(DATA, options, seed=0), start, 6)))


@pytest.mark.parametrize("options", [OPTIONS, TOKENS])
def test_two_processes_together_make_the_batches_of_one(options):
    plan = TrainingPlan(DATA, options, seed=0)
    count = plan.steps_per_epoch + 3
    halves = zip(*(take(plan, 0, count, Share((index,), 2)) for index in (0, 1)), strict=True)
    for whole, (upper, lower) in zip(take(plan, 0, count), halves, strict=True):
        assert same(whole, {key: np.concatenate([upper[key], lower[key]]) for key in upper})
    one = list(evaluation_batches(DATA, "validation", options, WHOLE))
    halves = [Share((index,), 2) for index in (0, 1)]
    two = [list(evaluation_batches(DATA, "validation", options, half)) for half in halves]
    assert len(one) == len(two[0]) == len(two[1])
    for whole, upper, lower in zip(one, *two, strict=True):
        assert same(whole, {key: np.concatenate([upper[key], lower[key]]) for key in upper})


def test_rows_that_devices_do_not_divide_are_said():
    plan = TrainingPlan(DATA, OPTIONS, seed=0)
    with pytest.raises(UserError, match=r"documents = 8: gives 8 rows .* 3 devices"):
        plan.batches(0, Share((0,), 3))
    with pytest.raises(UserError, match=r"row_multiple = 4: gives .* choose a multiple of 8"):
        TrainingPlan(DATA, TOKENS, seed=0).batches(0, Share((0,), 8))
    with pytest.raises(UserError, match="no split train"):
        TrainingPlan(Data(validation=3), OPTIONS, seed=0)


def test_evaluation_has_every_record_once_and_no_evidence():
    for _ in range(2):
        batches = list(evaluation_batches(DATA, "validation", OPTIONS, WHOLE))
        found = np.concatenate([batch["index"][batch["_mask"]] for batch in batches])
        assert sorted(found.tolist()) == list(range(57))
        assert all("evidence" not in batch for batch in batches)
        assert len({batch["tokens"].shape for batch in batches}) <= 8
        assert len({batch["labels"].shape for batch in batches}) == 1
    again = evaluation_batches(DATA, "validation", OPTIONS, WHOLE)
    assert all(map(same, batches, again))


def test_what_a_cap_drops_is_counted():
    wide = TrainingPlan(DATA, OPTIONS, seed=0).slots
    assert wide.labels % 8 == 0 and wide.evidence % 8 == 0
    assert (wide.labels_dropped, wide.evidence_dropped) == (0, 0)
    plan = TrainingPlan(DATA, dataclasses.replace(OPTIONS, max_labels=4, max_evidence=2), seed=0)
    sizes = np.concatenate([DATA.sizes("train"), DATA.sizes("mini")])
    assert plan.slots.labels_dropped == np.maximum(sizes[:, 1] - 4, 0).sum()
    assert plan.slots.evidence_dropped == np.maximum(sizes[:, 2] - 2, 0).sum()
    for batch in take(plan, 0, 20):
        assert batch["labels"].shape[1] == 4 and batch["evidence"].shape[1] == 2
        assert batch["evidence"][..., 0].max() < 4


def test_without_mini_documents():
    plan = TrainingPlan(DATA, dataclasses.replace(OPTIONS, mini_share=0.0), seed=0)
    assert plan.steps_per_epoch == -(-203 // 8)
    assert plan.contacts_per_step == pytest.approx(203 / 26)
    data = Data(train=20)  # none there
    assert TrainingPlan(data, OPTIONS, seed=0).steps_per_epoch == 3


class Coded(Source):
    """A source without its splits that have no codes."""

    identity = descriptions = None

    def __init__(self, source):
        self.name, self.identity, self.descriptions = (
            source.name,
            source.identity,
            source.descriptions,
        )
        self._source = source

    def parts(self, runner):
        parts, left_out = self._source.parts(runner)
        return {split: parts[split] for split in ("train", "validation")}, left_out


def token_data(folder, source, **options):
    contacts = records_builder.build(Coded(source.open()), folder, say=lambda line: None)
    return builder.build(contacts, folder, TokensOptions(**options), say=lambda line: None)


def evaluation_padding(data, options):
    batches = list(evaluation_batches(data, "validation", options, WHOLE))
    return 1 - data.lengths("validation").sum() / sum(batch["tokens"].size for batch in batches)


def test_padding_of_the_synthetic_cohort_is_at_most_a_tenth(tmp_path):
    source = records_builder.RecordsOptions("synthetic", options={"patients": 150})
    mini = MiniOptions(per_contact=2.0, sources=("evidence",))
    silver, tokenizer = SilverOptions(enabled=False), TokenizerOptions(vocab_size=2000)
    data = token_data(tmp_path, source, mini=mini, silver=silver, tokenizer=tokenizer)
    for options in (BatchOptions(), BatchOptions(tokens=4096), BatchOptions(mini_share=0.0)):
        plan = TrainingPlan(data, options, seed=0)
        assert len(plan.bucket_lengths) <= 8
        assert max(plan.padding_share(epoch) for epoch in range(3)) <= 0.10
    assert evaluation_padding(data, BatchOptions(tokens=1024)) <= 0.10


def test_padding_of_codiesp_is_at_most_a_tenth(shared_data, tmp_path):
    """Contacts alone need more than 8 lengths (11 % at best); mini-documents fill the rest."""
    source = records_builder.RecordsOptions(
        "codiesp", str(shared_data / "codiesp/final_dataset_v4_to_publish"), {"language": "es"}
    )
    mini = MiniOptions(per_contact=8.0, sources=("evidence",))
    data = token_data(
        tmp_path, source, mini=mini, silver=SilverOptions(enabled=False), labels=LabelOptions()
    )
    plan = TrainingPlan(data, BatchOptions(tokens=4096, mini_share=4.0), seed=0)
    assert len(plan.bucket_lengths) <= 8
    assert max(plan.padding_share(epoch) for epoch in range(2)) <= 0.10
    assert evaluation_padding(data, BatchOptions(tokens=4096)) <= 0.13


def test_rows_that_devices_do_not_divide_are_named():
    options = BatchOptions(tokens=8192)
    check_rows([1024, 2048], options, 4)
    with pytest.raises(UserError, match="row_multiple = 1: gives 7 rows of 1080 tokens, which 8"):
        check_rows([1024, 1080], options, 8)
