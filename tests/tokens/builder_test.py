import collections
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxcoder.errors import UserError
from jaxcoder.records import builder as records_builder
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Evidence
from jaxcoder.records.subset import of_patients
from jaxcoder.settings import build as build_options
from jaxcoder.tokens import builder
from jaxcoder.tokens.builder import TokensOptions
from jaxcoder.tokens.evidence import GOLD, SILVER, characters
from jaxcoder.tokens.labels import LabelOptions
from jaxcoder.tokens.lexicon import SilverOptions
from jaxcoder.tokens.minidocs import MiniOptions
from jaxcoder.tokens.serialise import SerialiseOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions

OPTIONS = TokensOptions(
    tokenizer=TokenizerOptions(vocab_size=400),
    silver=SilverOptions(min_score=2.0),
    mini=MiniOptions(per_contact=2.0),
    mini_tokens=32,
)


def quiet(contacts, folder, options=OPTIONS, **more):
    return builder.build(contacts, folder, options, say=lambda line: None, **more)


@pytest.fixture(scope="module")
def built(splits, make_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return quiet(make_data(folder, splits), folder)


def squeezed(text):
    return "".join(text.split()).lower()


def text_of(data, record, first, after):
    return squeezed(data.tokenizer.decode(record["tokens"][first:after]))


def test_records_are_the_contacts_in_their_order(built, splits):
    assert built.splits == ("train", "validation", "mini")
    for split, contacts in splits.items():
        records = built.split(split)
        assert len(records) == len(contacts)
        for record, contact in zip(records, contacts, strict=True):
            assert record["contact_id"] == contact.contact_id
            assert record["patient_id"] == contact.patient_id
            for key in ("specialty", "sex", "kind"):
                assert record[key] == getattr(contact, key)
            assert record["age"] == (-1 if contact.age is None else np.float32(contact.age))
            assert record["year"] == int(contact.start[:4] or 0)
            assert record["notes"] == len(contact.notes)
            gold = {code.code: code.role for code in contact.codes}
            codes = [built.label_space.codes[label] for label in record["labels"]]
            assert sorted([*codes, *record["missing_codes"]]) == sorted(gold)
            assert record["missing"] == len(record["missing_codes"])
            for code, role in zip(codes, record["roles"], strict=True):
                assert gold[code] == ("unknown", "primary", "secondary")[role]
    for key, dtype in (("tokens", "int32"), ("labels", "int32"), ("roles", "uint8")):
        assert built.split("train")[0][key].dtype == dtype


def test_what_an_evaluation_wants_is_read_without_the_tokens(built):
    whole, apart = built.split("validation"), built.outcome_source("validation")
    assert len(whole) == len(apart)
    for record, outcome in zip(whole, apart, strict=True):
        assert "tokens" not in outcome and len(outcome) == 10
        assert all(np.array_equal(record[key], outcome[key]) for key in outcome)


def test_codes_are_counted_by_role_in_every_split(built, splits):
    for split, contacts in splits.items():
        expected = collections.defaultdict(lambda: [0, 0, 0])
        for code in (code for contact in contacts for code in contact.codes):
            role = code.role
            for place, yes in enumerate((True, role == "secondary", role != "unknown")):
                expected[code.code][place] += yes
        assert {code: list(count) for code, count in built.code_counts(split).items()} == expected
    assert built.code_counts("validation")["Z99.1"].occurrences == 1  # outside the label space
    with pytest.raises(UserError, match="codes_mini.json: cannot be read"):
        built.code_counts("mini")


def test_the_label_space_is_of_the_training_split_alone(built):
    assert built.label_space.codes == ("E11.65", "E11.9", "I10", "J45.9", "N39.0")
    last = built.split("validation")[-1]
    assert last["missing_codes"] == ("Z99.1",) and len(last["labels"]) == 1
    assert built.report["splits"]["validation"]["gold_outside_label_space"] == 1


def test_a_share_of_the_training_patients_is_all_that_is_learnt_from(make_data, splits, tmp_path):
    contacts = make_data(tmp_path, splits)
    kept = of_patients([each.patient_id for each in splits["train"]], 0.5)
    chosen = [splits["train"][number] for number in kept]
    assert 0 < len(chosen) < len(splits["train"])
    half = quiet(contacts, tmp_path, dataclasses.replace(OPTIONS, train_share=0.5))
    for found in (half.split("train"), half.contacts().split("train")):
        assert [each_id(each) for each in found] == [each.contact_id for each in chosen]
    assert len(half.split("validation")) == len(splits["validation"])
    assert set(half.label_space.codes) == {code.code for each in chosen for code in each.codes}
    with pytest.raises(UserError, match="train_share = 1e-09: no patient"):
        quiet(contacts, tmp_path, dataclasses.replace(OPTIONS, train_share=1e-9))
    with pytest.raises(ValueError, match="train_share = 0"):
        dataclasses.replace(OPTIONS, train_share=0.0)


def each_id(record):
    return record["contact_id"] if isinstance(record, dict) else record.contact_id


def test_gold_evidence_decodes_to_the_mention(built, splits):
    for split, contacts in splits.items():
        for record, contact in zip(built.split(split), contacts, strict=True):
            rows = record["evidence"][record["evidence"][:, 3] == GOLD].tolist()
            found = {
                (built.label_space.codes[label], text_of(built, record, first, after))
                for label, first, after, _ in rows
            }
            note = contact.notes[0].text
            assert found == {
                (row.code, squeezed(note[row.start : row.end]))
                for row in contact.evidence
                if row.code != "Z99.1"
            }


def test_offsets_and_segments_lead_back_to_the_notes(built, splits):
    for record, contact in zip(built.split("train"), splits["train"], strict=True):
        gold = record["evidence"][record["evidence"][:, 3] == GOLD, :3].tolist()
        places = characters(record, "gold")
        for (label, first, after), (same, start, end) in zip(gold, places, strict=True):
            assert label == same
            place = np.searchsorted(record["segments"][:, 2], start, side="right") - 1
            _, item, left, _, source = record["segments"][place].tolist()
            mention = contact.notes[item].text[start - left + source : end - left + source]
            words = text_of(built, record, first, after)
            assert squeezed(mention) == words


def test_mini_documents_of_silver_strings_have_silver_spans(splits, make_data, tmp_path):
    contacts = make_data(tmp_path, splits)
    options = dataclasses.replace(OPTIONS, mini=MiniOptions(per_contact=1.0, sources=("silver",)))
    data = quiet(contacts, tmp_path, options)
    rows = np.concatenate([record["evidence"] for record in data.split("mini")])
    assert len(rows) and set(rows[:, 3]) == {SILVER}


def test_silver_evidence_is_found_on_train_alone(built):
    provenances = {
        split: {row[3] for record in built.split(split) for row in record["evidence"].tolist()}
        for split in built.splits
    }
    assert provenances == {"train": {GOLD, SILVER}, "validation": {GOLD}, "mini": {GOLD}}
    assert built.report["splits"]["train"]["silver_label_coverage"] > 0.8
    assert "silver_label_coverage" not in built.report["splits"]["validation"]
    # What shows in medications alone is found there too.
    texts = [
        text_of(built, record, first, after)
        for record in built.split("train")
        for label, first, after, provenance in record["evidence"].tolist()
        if provenance == SILVER and built.label_space.codes[label] == "I10"
    ]
    assert any("hypertension" in text or "metoprolol" in text for text in texts)


def test_mini_documents_are_of_training_strings(built):
    records = built.split("mini")
    assert len(records) == 120
    assert records[7]["contact_id"] == "mini-000007"
    for record in records:
        assert {row[0] for row in record["evidence"].tolist()} == set(record["labels"].tolist())
        assert record["missing"] == 0 and len(record["tokens"]) <= 32
        text = text_of(built, record, 0, None)
        assert "z99" not in text and "contact" not in text


def test_sizes_are_known_without_reading_records(built):
    for split in built.splits:
        sizes = [
            (len(record["tokens"]), len(record["labels"]), len(record["evidence"]))
            for record in built.split(split)
        ]
        assert built.sizes(split).tolist() == [list(size) for size in sizes]
        assert built.lengths(split).dtype == np.int32
    slim = built.batch_source("train")[3]
    assert slim.keys() == {"tokens", "labels", "missing", "evidence"}
    assert all(np.array_equal(slim[key], built.split("train")[3][key]) for key in slim)


def test_plain_tfds_reads_the_same(built):
    source = tfds.builder_from_directory(built.path).as_data_source("train")
    for plain, record in zip(source, built.split("train"), strict=True):
        for key in ("tokens", "labels", "roles", "evidence"):
            assert plain[key].dtype == record[key].dtype
            assert np.array_equal(plain[key], record[key])
        assert plain["contact_id"].decode() == record["contact_id"]


def test_the_report_has_numbers_and_no_text(built, splits):
    report = json.loads((built.path / "tokens_report.json").read_text())
    assert report["num_labels"] == 5 and report["vocab_size"] <= 400
    train = report["splits"]["train"]
    lengths = built.lengths("train")
    assert train["tokens"] == lengths.sum() and train["tokens_per_record"]["max"] == lengths.max()
    assert train["evidence"]["gold"] == {"kept": sum(len(c.evidence) for c in splits["train"])}
    assert report["splits"]["validation"]["evidence"]["gold"]["outside_label_space"] == 1
    assert report["records"]["splits"]["train"]["contacts"] == 60
    assert "hypertension" not in json.dumps(report).lower()


def test_the_same_is_reused_and_another_is_built_beside(built):
    said = []
    contacts = built.contacts()
    folder = built.path.parent.parent.parent
    again = builder.build(contacts, folder, OPTIONS, say=said.append)
    assert again.path == built.path and said == [f"Reusing token records {built.path}"]
    other = dataclasses.replace(OPTIONS, labels=LabelOptions(granularity="category"))
    assert quiet(contacts, folder, other).path != built.path
    assert built.path.parent.name == built.name and built.name.startswith("memory-")


def test_building_twice_gives_the_same_records(built, splits, make_data, tmp_path):
    again = quiet(make_data(tmp_path, splits), tmp_path)
    assert again.name == built.name and again.label_space.hash == built.label_space.hash
    for split in built.splits:
        for one, other in zip(built.split(split), again.split(split), strict=True):
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)


def test_granularity_rolls_codes_and_evidence_up(splits, make_data, tmp_path):
    options = dataclasses.replace(OPTIONS, labels=LabelOptions(granularity="category"))
    data = quiet(make_data(tmp_path, splits), tmp_path, options)
    assert data.label_space.codes == ("E11", "I10", "J45", "N39")
    for record, contact in zip(data.split("train"), splits["train"], strict=True):
        codes = {row.code[:3] for row in contact.codes}
        assert {data.label_space.codes[label] for label in record["labels"]} == codes
        gold = record["evidence"][record["evidence"][:, 3] == GOLD]
        assert len(gold) == len(contact.evidence)
        assert set(gold[:, 0].tolist()) == set(record["labels"].tolist())


def test_min_count_makes_rare_codes_missing(splits, make_data, make_contact, tmp_path):
    rare = {**splits, "train": [*splits["train"], make_contact(500, ["K35.80", "I10"])]}
    options = dataclasses.replace(OPTIONS, labels=LabelOptions(min_count=2))
    data = quiet(make_data(tmp_path, rare), tmp_path, options)
    assert "K35.80" not in data.label_space.index
    assert data.split("train")[60]["missing_codes"] == ("K35.80",)
    train = data.report["splits"]["train"]
    assert train["gold_outside_label_space"] == 1
    assert train["evidence"]["gold"]["outside_label_space"] == 1


def test_spans_that_are_cut_away_are_counted(splits, make_data, make_contact, tmp_path):
    contacts = [make_contact(i, ["I10", "J45.9"], filler=20) for i in range(20)]
    strange = dataclasses.replace(
        contacts[0],
        evidence=(*contacts[0].evidence, Evidence("J45.9", 3, 0, 4), Evidence("E11.9", 0, 0, 4)),
    )
    serialise = SerialiseOptions(sections=("notes",), max_tokens=32, demographics=False)
    options = dataclasses.replace(OPTIONS, serialise=serialise, mini=MiniOptions(per_contact=0.0))
    data = quiet(
        make_data(tmp_path, {"train": [strange, *contacts[1:], *splits["train"]]}),
        tmp_path,
        options,
    )
    train = data.report["splits"]["train"]
    assert train["tokens_per_record"]["max"] == 32 and train["tokens_cut"] > 20 * 20
    gold = train["evidence"]["gold"]
    assert gold["not_coded"] == 1 and gold["cut"] >= 21  # the second mentions, and a note not there
    records = data.split("train")
    labels = [records[1]["evidence"][:, 0].tolist(), data.label_space.index["I10"]]
    assert labels[1] in labels[0] and data.label_space.index["J45.9"] not in labels[0]
    assert "mini" not in data.splits


def test_a_tokenizer_from_a_folder(built, splits, make_data, tmp_path):
    path = TokenizerOptions(path=str(built.tokenizer_dir), vocab_size=300)
    data = quiet(
        make_data(tmp_path, splits), tmp_path, dataclasses.replace(OPTIONS, tokenizer=path)
    )
    assert data.name != built.name
    one, other = built.split("train")[9]["tokens"], data.split("train")[9]["tokens"]
    assert np.array_equal(one, other)


def test_descriptions_come_from_the_order_file(splits, make_data, tmp_path):
    table = tmp_path / "order.csv"
    table.write_text("code,billable,short,long\nI10,1,HTN,Essential (primary) hypertension\n")
    options = dataclasses.replace(OPTIONS, labels=LabelOptions(descriptions=str(table)))
    data = quiet(make_data(tmp_path, splits), tmp_path, options)
    described = dict(zip(data.label_space.codes, data.label_space.descriptions, strict=True))
    assert described["I10"] == "Essential (primary) hypertension" and described["J45.9"] == ""
    texts = [text_of(data, record, 0, None) for record in data.split("mini")]
    assert any("essential(primary)hypertension" in text for text in texts)


def test_half_built_truncated_or_edited_is_said(built, splits, make_data, tmp_path):
    contacts = make_data(tmp_path, splits)
    data = quiet(contacts, tmp_path)
    shard = next(path for path in data.path.iterdir() if "validation.array_record" in path.name)
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(UserError, match=r"validation.*truncated.*; delete .* and give the same"):
        builder.open_tokens(data.path)
    shard.write_bytes(content)
    LabelSpace(("I10",)).save(data.path / "label_space.json")
    with pytest.raises(UserError, match="label_space.json: hash .* expected"):
        builder.open_tokens(data.path)
    assert quiet(contacts, tmp_path, rebuild=True).label_space == data.label_space
    (data.path / "tokens_report.json").unlink()
    with pytest.raises(UserError, match="is not whole: no tokens_report.json"):
        builder.open_tokens(data.path)
    assert len(quiet(contacts, tmp_path).split("train")) == 60  # built anew
    (data.path / "sizes_train.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"sizes_train.npy: cannot be read"):
        builder.open_tokens(data.path).sizes("train")


def test_mistakes_are_one_clear_line(splits, make_data, tmp_path):
    contacts = make_data(tmp_path / "a", {"validation": splits["validation"]})
    with pytest.raises(UserError, match="has no split train.* it has validation"):
        quiet(contacts, tmp_path / "a")
    assert not (tmp_path / "a" / "token_records").exists()
    contacts = make_data(tmp_path / "b", splits)
    for values, message in (
        ({"tokenizer": {"path": str(tmp_path / "none")}}, "tokenizer.path = .*none: not found"),
        ({"labels": {"descriptions": "none.csv"}}, "labels.descriptions = none.csv: not found"),
        ({"labels": {"min_count": 1000}}, "min_count = 1000: leaves no code"),
    ):
        options = build_options(TokensOptions, values, "config.tokens")
        with pytest.raises(UserError, match=message):
            quiet(contacts, tmp_path / "b", options)
    assert not (tmp_path / "b" / "token_records").exists()
    with pytest.raises(UserError, match="config.tokens: mini_tokens = 9000"):
        build_options(TokensOptions, {"mini_tokens": 9000}, "config.tokens")


def test_a_pod_opens_what_one_machine_has_built(built, splits, make_data, tmp_path, monkeypatch):
    class Source:
        name = "memory"
        identity = {"source": "memory", "sizes": [len(each) for each in splits.values()]}

    monkeypatch.setattr(records_builder.RecordsOptions, "open", lambda self: Source())
    records = records_builder.RecordsOptions()
    folder = built.path.parent.parent.parent
    assert builder.open_built(records, OPTIONS, folder).path == built.path
    with pytest.raises(UserError, match="no token records of this config; run `jaxcoder tokens"):
        builder.open_built(records, TokensOptions(), folder)
    Source.identity = {"source": "memory", "sizes": [7]}
    with pytest.raises(UserError, match="holds contact records of another content"):
        builder.open_built(records, OPTIONS, folder)


def test_a_worker_of_a_pod_needs_no_extract(built, tmp_path):
    """`source_dir` is where the extract lay on the machine that built the records."""
    folder = built.path.parent.parent.parent
    given = {"source": "memory", "source_dir": str(tmp_path / "elsewhere")}
    records = records_builder.RecordsOptions(**given)
    assert builder.open_built(records, OPTIONS, folder).path == built.path
    nowhere = records_builder.RecordsOptions(source="memory")
    assert builder.open_built(nowhere, OPTIONS, folder).path == built.path
    for other in ({"source": "tables"}, {"options": {"language": "es"}}):
        with pytest.raises(UserError, match="is not there, nor .*elsewhere to build it from"):
            builder.open_built(
                records_builder.RecordsOptions(**{**given, **other}), OPTIONS, folder
            )


def test_contacts_that_were_replaced_are_not_taken_for_the_same(splits, make_data, tmp_path):
    data = quiet(make_data(tmp_path, splits), tmp_path)
    assert len(data.contacts().split("train")) == len(splits["train"])
    fewer = {name: contacts[:-1] or contacts for name, contacts in splits.items()}
    shutil.rmtree(data.contacts_path)
    shutil.copytree(make_data(tmp_path / "other", fewer).path, data.contacts_path)
    with pytest.raises(UserError, match="holds other contacts than those"):
        data.contacts()


def test_codiesp_evidence_survives(shared_data, make_data, tmp_path):
    """Of 8,305 annotated pieces, six end inside a word; every other decodes to the mention."""
    folder = shared_data / "codiesp/final_dataset_v4_to_publish"
    options = {"language": "es", "codes": "D"}
    source = records_builder.RecordsOptions("codiesp", str(folder), options).open()
    contacts = make_data(
        tmp_path, {split: list(source.contacts(split)) for split in ("train", "validation")}
    )
    options = dataclasses.replace(
        TokensOptions(), silver=SilverOptions(enabled=False), mini=MiniOptions(per_contact=0.0)
    )
    data = quiet(contacts, tmp_path, options)
    report = data.report["splits"]
    assert report["train"]["evidence"]["gold"] == {"kept": 8305}
    assert report["train"]["gold_label_coverage"] == 1.0
    assert data.report["num_labels"] == 1767
    outside = report["validation"]["gold_outside_label_space"]
    assert outside / (outside + report["validation"]["labels"]) == pytest.approx(0.178, abs=5e-4)
    whole = differ = 0
    for record, contact in zip(data.split("train"), contacts.split("train"), strict=True):
        found = {
            (data.label_space.codes[label], text_of(data, record, first, after))
            for label, first, after, _ in record["evidence"].tolist()
        }
        for row in contact.evidence:
            mention = squeezed(contact.notes[row.note].text[row.start : row.end])
            same = (row.code, mention) in found
            whole, differ = whole + same, differ + (not same)
    assert (whole, differ) == (8299, 6)
