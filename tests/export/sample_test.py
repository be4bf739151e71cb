"""What an export is compared on."""

import dataclasses

import numpy as np
import pytest

from jaxcoder.errors import UserError
from jaxcoder.export import sample
from jaxcoder.export.__main__ import restore
from jaxcoder.export.parity import Reference
from jaxcoder.records.contact_json import contact_of
from jaxcoder.records.schema import Contact, Lab, Note


class Records:
    """Token records of one split."""

    path = "data/token_records"
    splits = ("validation",)

    def __init__(self, contacts):
        self._contacts = contacts

    def contacts(self):
        return self

    def split(self, name):
        return self._contacts

    def lengths(self, name):
        return np.array([sum(len(note.text) for note in each.notes) for each in self._contacts])


def contact(number, text):
    return Contact(contact_id=f"c{number}", patient_id="p", notes=(Note(text=text),))


@pytest.fixture
def coder(workdir):
    return restore(workdir)


@pytest.fixture
def with_records(monkeypatch, workdir):
    def make(contacts):
        monkeypatch.setattr(type(workdir), "open_tokens", lambda *_: Records(contacts))

    return make


def test_the_longest_and_some_of_every_length(workdir, coder, with_records):
    with_records([contact(number, "a" * (number + 1)) for number in range(100)])
    drawn = sample.draw(workdir, coder, "", size=8)
    lengths = [len(each["notes"][0]["text"]) for each in drawn.contacts]
    assert lengths == [100, 99, 98, 97, 96, 65, 33, 1]
    assert drawn.origin == "contacts of the validation split" and not drawn.without
    assert "codes" not in drawn.contacts[0] and drawn.trained_on is None
    for each in drawn.contacts:  # an exported folder reads it as it stands
        assert contact_of(each, ("notes",), lambda *_: None).notes[0].text == "a" * len(
            each["notes"][0]["text"]
        )


def test_a_contact_of_blank_notes_is_not_compared(workdir, coder, with_records):
    with_records([contact(0, " \n"), contact(1, "fever"), contact(2, "")])
    drawn = sample.draw(workdir, coder, "")
    assert [each["contact_id"] for each in drawn.contacts] == ["c1"]
    Reference(coder, drawn.contacts)


def test_made_up_texts_say_why(workdir, coder, with_records):
    drawn = sample.draw(workdir, coder, "", size=4)
    assert drawn.origin == sample.MADE_UP and len(drawn.contacts) == 4 and drawn.without
    with pytest.raises(UserError):  # asked for, and not there
        sample.draw(workdir, coder, "nowhere")
    with_records([Contact(contact_id="c", patient_id="p", labs=(Lab(name="Hb", value="7"),))] * 2)
    coder = dataclasses.replace(coder, experiment=reads_notes_alone(coder.experiment))
    drawn = sample.draw(workdir, coder, "")
    assert drawn.origin == sample.MADE_UP and "no contact has anything to code" in drawn.without


def reads_notes_alone(options):
    serialise = dataclasses.replace(options.tokens.serialise, sections=("notes",))
    return dataclasses.replace(
        options, tokens=dataclasses.replace(options.tokens, serialise=serialise)
    )
