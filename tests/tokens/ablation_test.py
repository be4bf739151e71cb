import dataclasses
import pathlib

import numpy as np
import pytest

from jaxcoder.errors import UserError
from jaxcoder.tokens import ablation, builder
from jaxcoder.tokens.builder import TokensOptions
from jaxcoder.tokens.serialise import serialise
from jaxcoder.tokens.tokenizer import TokenizerOptions


@pytest.fixture(scope="module")
def data(splits, make_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    options = TokensOptions(tokenizer=TokenizerOptions(vocab_size=400))
    return builder.build(make_data(folder, splits), folder, options, say=lambda line: None)


def test_only_the_tokens_of_what_is_left_out_are_gone(data, splits):
    found = ablation.without(data, "validation", ["medications"])
    assert found.splits == ("validation",)
    assert found.label_space.hash == data.label_space.hash
    options = dataclasses.replace(data.serialise, sections=("notes", "labs"))
    assert found.serialise == options
    shorter = 0
    for old, new, contact in zip(
        data.split("validation"), found.split("validation"), splits["validation"], strict=True
    ):
        expected = data.tokenizer.encode([serialise(contact, options).text])[0].ids
        np.testing.assert_array_equal(new["tokens"][1:-1], expected)
        shorter += len(new["tokens"]) < len(old["tokens"])
        for key in ("labels", "roles", "missing", "missing_codes", "contact_id", "specialty"):
            np.testing.assert_array_equal(new[key], old[key])
    assert shorter == sum(bool(contact.medications) for contact in splits["validation"]) > 0
    np.testing.assert_array_equal(
        found.lengths("validation"), [len(each["tokens"]) for each in found.split("validation")]
    )


def test_of_a_share_of_the_patients_it_reads_no_others(splits, make_data, tmp_path):
    options = TokensOptions(tokenizer=TokenizerOptions(vocab_size=400), train_share=0.5)
    half = builder.build(make_data(tmp_path, splits), tmp_path, options, say=lambda line: None)
    found = ablation.without(half, "train", ["labs"])
    names = [each["contact_id"] for each in half.split("train")]
    assert names == [each["contact_id"] for each in found.split("train")]
    assert names != [each.contact_id for each in splits["train"]][: len(names)]


def test_records_are_made_once_whatever_the_order_of_the_names(data):
    first = ablation.without(data, "validation", ["labs", "medications"])
    written = pathlib.Path(first.path, "features.json").stat().st_mtime_ns
    again = ablation.without(data, "validation", ["medications", "labs"], build=False)
    assert again.path == first.path
    assert pathlib.Path(again.path, "features.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("sections", "build", "message"),
    [
        (["radiology"], True, "--without radiology: .* from notes, medications, labs"),
        (["notes", "medications", "labs"], True, "leaves nothing to read"),
        (["notes"], False, "run the same command once as one process"),
    ],
)
def test_mistakes_name_the_remedy(data, sections, build, message):
    with pytest.raises(UserError, match=message):
        ablation.without(data, "validation", sections, build=build)
