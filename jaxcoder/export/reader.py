"""What stands around the network: from contacts to token ids, and from logits to codes."""

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import tokenizers

from jaxcoder.records.contact_json import contact_of
from jaxcoder.records.schema import Contact
from jaxcoder.tokens.serialise import SerialiseOptions, kept_tokens, serialise

logger = logging.getLogger(__name__)

CONFIG, TOKENIZER, LABEL_SPACE = "config.json", "tokenizer.json", "label_space.json"


class Document(NamedTuple):
    """A contact as the coder reads it.

    Attributes:
      contact_id: the contact's.
      text: all of it that the coder could read.
      ids: its tokens, cut to what the coder reads; start and end token included.
    """

    contact_id: str
    text: str
    ids: list[int]


class Reader:
    """Reads contacts as in training: serialised, tokenised and cut; and writes what is predicted.

    Attributes:
      files: paths of the files that it is made from, by name.
      options: which sections of a contact, and how many tokens of them.
      threshold: probability that an assigned code exceeds.
      codes: what the labels are.
      descriptions: of the codes, empty where unknown.
    """

    names: tuple[str, ...] = (TOKENIZER, LABEL_SPACE)
    fuses = False

    def __init__(self, files: Mapping[str, str], config: Mapping[str, Any]) -> None:
        """Reads tokenizer and label space.

        Args:
          files: where the files of `names` lie.
          config: content of `config.json`.

        Raises:
          ValueError: it is that of a coder with a lexicon and this class has none, or the reverse.
        """
        if (config.get("fusion") is not None) != self.fuses:
            raise ValueError("a coder with a lexicon needs the class whose name begins with Fused")
        self.files = dict(files)
        reading = {**config["reading"], "sections": tuple(config["reading"]["sections"])}
        self.options = SerialiseOptions(**reading)
        self.threshold: float = config["threshold"]
        self._start, self._end = config["special"]["start_id"], config["special"]["end_id"]
        self._tokenizer = tokenizers.Tokenizer.from_file(self.files[TOKENIZER])
        self._tokenizer.no_truncation()  # contacts are cut by section, and padded in batches
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # `</s>` in a note is text, and ends nothing
        with open(self.files[LABEL_SPACE], encoding="utf-8") as file:
            labels = json.load(file)
        self.codes: list[str] = labels["codes"]
        self.descriptions: list[str] = labels["descriptions"]

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Self:
        """Makes the reader of an exported folder."""
        with open(os.path.join(folder, CONFIG), encoding="utf-8") as file:
            config = json.load(file)
        return cls({name: os.path.join(folder, name) for name in cls.names}, config)

    def documents(self, contacts: Sequence[str | Mapping[str, Any]]) -> list[Document]:
        """Reads texts, or objects as a line of `jaxcoder predict` has them.

        Keys that are not known and values that cannot be read are counted in a warning.

        Raises:
          ValueError: one that is no contact, with its place and what is wrong, and no text of it.
        """
        if isinstance(contacts, str | Mapping):
            raise ValueError("contacts: one contact; expected a list of them")
        read = self._contacts(contacts)
        texts = [serialise(contact, self.options) for contact in read]
        encoded = self._tokenizer.encode_batch(
            [each.text for each in texts], add_special_tokens=False
        )
        documents = []
        for contact, (text, segments), each in zip(read, texts, encoded, strict=True):
            offsets = np.array(each.offsets, np.int32).reshape(-1, 2)
            ids = [each.ids[token] for token in kept_tokens(offsets, segments, self.options)]
            documents.append(Document(contact.contact_id, text, [self._start, *ids, self._end]))
        return documents

    def _contacts(self, values: Sequence[str | Mapping[str, Any]]) -> list[Contact]:
        found: Counter[str] = Counter()
        contacts = []
        for place, value in enumerate(values):
            if isinstance(value, str):
                value = {"contact_id": str(place), "text": value}
            try:
                contacts.append(
                    contact_of(
                        value, self.options.sections, lambda reason, _: found.update([reason])
                    )
                )
            except ValueError as error:
                raise ValueError(f"contacts[{place}]: {error}") from None
        for reason, count in found.most_common():
            logger.warning("%d × %s", count, reason)
        return contacts

    @staticmethod
    def batch(documents: Sequence[Document]) -> tuple[np.ndarray, np.ndarray]:
        """Puts documents of several lengths together.

        Returns:
          Tokens int64 [B, T] and mask int64 [B, T], 1 on tokens and 0 on padding.
        """
        shape = len(documents), max(len(each.ids) for each in documents)
        tokens_BxT, mask_BxT = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, each in enumerate(documents):
            tokens_BxT[row, : len(each.ids)] = each.ids
            mask_BxT[row, : len(each.ids)] = 1
        return tokens_BxT, mask_BxT

    def predictions(
        self,
        documents: Sequence[Document],
        logits_BxL: np.ndarray,
        top: int = 15,
        threshold: float | None = None,
    ) -> list[dict[str, Any]]:
        """What is predicted of each document.

        Args:
          documents: of one batch.
          logits_BxL: the network's, float32.
          top: codes a contact, beside further assigned ones.
          threshold: probability that an assigned code exceeds; the tuned one when None.

        Returns:
          For each {"contact_id", "codes": [{"code", "description", "probability", "assigned"}]}:
          the `top` most probable codes in falling order, and every assigned one.
        """
        limit = np.float32(self.threshold if threshold is None else threshold)
        z_BxL = self._fused(documents, np.asarray(logits_BxL, np.float32))
        small_BxL = np.exp(-np.abs(z_BxL))  # does not overflow
        probability_BxL = np.where(z_BxL >= 0, 1, small_BxL) / (1 + small_BxL)
        return [
            {"contact_id": each.contact_id, "codes": self._codes(probability_L, top, limit)}
            for each, probability_L in zip(documents, probability_BxL, strict=True)
        ]

    def _fused(self, documents: Sequence[Document], logits_BxL: np.ndarray) -> np.ndarray:
        """What else is known of a document joins here."""
        return logits_BxL

    def _codes(
        self, probability_L: np.ndarray, top: int, limit: np.float32
    ) -> list[dict[str, Any]]:
        is_assigned_L = probability_L > limit
        count = max(top, int(is_assigned_L.sum()))
        # Of equal probabilities the smaller label stands first.
        order = np.argsort(-probability_L, kind="stable")[:count]
        return [
            {
                "code": self.codes[label],
                "description": self.descriptions[label],
                "probability": float(f"{probability_L[label]:.6g}"),
                "assigned": bool(is_assigned_L[label]),
            }
            for label in order.tolist()
        ]
