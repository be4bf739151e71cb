"""The contacts that an export is checked on: some of the longest, some of every length."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxcoder.errors import UserError
from jaxcoder.records.contact_json import contact_of
from jaxcoder.records.schema import Contact
from jaxcoder.tokens.builder import TokenData
from jaxcoder.trained import TrainedCoder
from jaxcoder.workdir import Workdir

SIZE, LONGEST = 16, 4
"""Contacts of a sample, and of these those that are the split's longest."""
MADE_UP = "made-up texts"


class Sample(NamedTuple):
    """Contacts to be coded by both sides.

    Attributes:
      contacts: objects as `jaxcoder predict` reads them.
      origin: what they are, for the model card.
      trained_on: contacts of the training split; None where the records are not there.
      without: why there are none of the records; empty where there are.
    """

    contacts: list[dict[str, Any]]
    origin: str
    trained_on: int | None = None
    without: str = ""


def draw(workdir: Workdir, coder: TrainedCoder, data_dir: str, size: int = SIZE) -> Sample:
    """Draws a sample of the validation split, or of another where there is none.

    Args:
      workdir: of the coder.
      coder: decides what a contact with nothing to code is.
      data_dir: where the records lie; that of the config when empty. They need not be there.
      size: contacts, where there are as many.

    Returns:
      The sample; made-up texts of as many lengths where the records are not there.

    Raises:
      UserError: `data_dir` is given, and the records do not lie there.
    """
    try:
        data = workdir.open_tokens(data_dir)
    except UserError as error:
        if data_dir:
            raise
        return Sample(made_up(coder, size), MADE_UP, without=str(error))
    trained_on = len(data.lengths("train")) if "train" in data.splits else None
    for split in (each for each in ("validation", "test", "train") if each in data.splits):
        if contacts := _of_split(data, split, coder, size):
            return Sample(contacts, f"contacts of the {split} split", trained_on)
    without = f"{data.path}: no contact has anything to code"
    return Sample(made_up(coder, size), MADE_UP, trained_on, without)


def _of_split(data: TokenData, split: str, coder: TrainedCoder, size: int) -> list[dict[str, Any]]:
    contacts, lengths = data.contacts().split(split), data.lengths(split)
    by_length = np.argsort(lengths, kind="stable")[::-1]
    rest = by_length[LONGEST:]
    spread = (
        rest[np.linspace(0, len(rest) - 1, max(size - LONGEST, 0)).astype(int)]
        if len(rest)
        else rest
    )
    chosen = dict.fromkeys([*by_length[:LONGEST].tolist(), *spread.tolist()])
    found = (as_json(contacts[number]) for number in chosen)
    return [each for each in found if _can_be_coded(each, coder)]


def _can_be_coded(contact: dict[str, Any], coder: TrainedCoder) -> bool:
    """Whether it has anything that the coder reads: of others nothing is predicted."""
    try:
        contact_of(contact, coder.experiment.tokens.serialise.sections, lambda *_: None)
    except ValueError:
        return False
    return True


def as_json(contact: Contact) -> dict[str, Any]:
    """A contact as a line of `jaxcoder predict` has it, without its codes."""
    value = dataclasses.asdict(contact)
    for key in ("codes", "evidence", "conditions"):
        del value[key]
    return value


def made_up(coder: TrainedCoder, size: int) -> list[dict[str, Any]]:
    """Contacts of random tokens, from a few to more than the coder reads."""
    rng = np.random.default_rng(0)
    most = coder.experiment.tokens.serialise.max_tokens
    lengths = np.geomspace(4, most * 1.25, size).astype(int)
    contacts: list[dict[str, Any]] = []
    for number, length in enumerate(lengths):
        ids = rng.integers(0, coder.tokenizer.vocab_size, length)
        text = coder.tokenizer.decode(ids) or "."
        contacts.append(
            {
                "contact_id": str(number),
                "age": 20.0 + number,
                "sex": "FM"[number % 2],
                "notes": [{"kind": "note", "text": text}],
                "medications": [{"code": "B01AC06", "name": "acetylsalicylic acid"}],
                "labs": [{"name": "Troponin I", "value": "412", "unit": "ng/L", "high": 14.0}],
            }
        )
    return contacts
