"""The coder in PyTorch: from hospital contacts to ICD codes with probabilities."""

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import nn
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import cached_file

from jaxcoder.export.network import ENCODERS, HEADS
from jaxcoder.records.contact_json import contact_of
from jaxcoder.records.schema import Contact
from jaxcoder.tokens.serialise import SerialiseOptions, kept_tokens, serialise

logger = logging.getLogger(__name__)

CODE = "modeling_jaxcoder.py"
FILES = (CODE, "tokenizer.json", "tokenizer_config.json", "label_space.json")
"""What a folder of a coder has beside weights and config."""

BATCH_TOKENS = 16_384
"""Tokens, padding included, that `predict` computes at a time."""


class JaxcoderConfig(PretrainedConfig):
    """What `config.json` says.

    Attributes:
      encoder: the shape of the encoder: family, width, layers, window, ...
      head: that of the label attention: kind, num_labels, width.
      reading: which sections of a contact are read, and how many tokens of them.
      special: ids of the start and the end token of a document.
      threshold: probability that an assigned code exceeds.
      fusion: how network and lexicon are fused; None where the network stands alone.
    """

    model_type = "jaxcoder"

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        reading: Mapping[str, Any] | None = None,
        special: Mapping[str, int] | None = None,
        threshold: float = 0.5,
        fusion: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.encoder, self.head = dict(encoder or {}), dict(head or {})
        self.reading, self.special = dict(reading or {}), dict(special or {})
        self.threshold, self.fusion = threshold, fusion
        super().__init__(**kwargs)


class Reader:
    """From contacts to token ids: serialised, tokenised and cut as in training.

    Attributes:
      options: which sections, and how many tokens of them.
      codes: what the labels are.
      descriptions: of the codes, empty where unknown.
      files: paths of the files that belong to the coder, by name.
    """

    def __init__(self, files: Mapping[str, str], config: JaxcoderConfig) -> None:
        """Reads tokenizer and label space."""
        self.files = dict(files)
        reading = {**config.reading, "sections": tuple(config.reading["sections"])}
        self.options = SerialiseOptions(**reading)
        self._start, self._end = config.special["start_id"], config.special["end_id"]
        self._tokenizer = tokenizers.Tokenizer.from_file(self.files["tokenizer.json"])
        self._tokenizer.no_truncation()  # contacts are cut by section, and padded in batches
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # `</s>` in a note is text, and ends nothing
        with open(self.files["label_space.json"], encoding="utf-8") as file:
            labels = json.load(file)
        self.codes: list[str] = labels["codes"]
        self.descriptions: list[str] = labels["descriptions"]

    def contacts(self, values: Sequence[str | Mapping[str, Any]]) -> list[Contact]:
        """Reads texts, or objects as a line of `jaxcoder predict` has them.

        Raises:
          ValueError: one that is no contact, with its place and what is wrong, and no text of it.
        """
        found: Counter[str] = Counter()
        result = []
        for place, value in enumerate(values):
            if isinstance(value, str):
                value = {"contact_id": str(place), "text": value}
            try:
                contact = contact_of(
                    value, self.options.sections, lambda reason, _: found.update([reason])
                )
            except ValueError as error:
                raise ValueError(f"contacts[{place}]: {error}") from None
            result.append(contact)
        for reason, count in found.most_common():
            logger.warning("%d × %s", count, reason)
        return result

    def documents(self, contacts: Sequence[Contact]) -> list[tuple[str, list[int]]]:
        """The text of each contact, whole, and its token ids, cut to what the coder reads."""
        texts = [serialise(contact, self.options) for contact in contacts]
        encoded = self._tokenizer.encode_batch(
            [each.text for each in texts], add_special_tokens=False
        )
        documents = []
        for (text, segments), each in zip(texts, encoded, strict=True):
            offsets = np.array(each.offsets, np.int32).reshape(-1, 2)
            ids = [each.ids[token] for token in kept_tokens(offsets, segments, self.options)]
            documents.append((text, [self._start, *ids, self._end]))
        return documents


class JaxcoderModel(PreTrainedModel):
    """Encoder and label attention; `predict` takes contacts as they are.

    Weights of the encoder have the names of the published models of its family.
    """

    config_class = JaxcoderConfig
    files = FILES

    def __init__(self, config: JaxcoderConfig) -> None:
        super().__init__(config)
        shape, head = config.encoder, config.head
        self.encoder = ENCODERS[shape["family"]](shape)
        self.head = HEADS[head["kind"]](
            head["num_labels"], shape["width"], head["width"] or shape["width"]
        )
        self._reader: Reader | None = None
        self.post_init()

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Loads a coder; arguments as of `transformers.PreTrainedModel.from_pretrained`."""
        model = super().from_pretrained(name, *args, **kwargs)
        loaded = model[0] if isinstance(model, tuple) else model  # with output_loading_info
        hub = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        where = {key: kwargs[key] for key in hub if key in kwargs}
        loaded._read({file: str(cached_file(name, file, **where)) for file in cls.files})
        return model

    @property
    def reader(self) -> Reader:
        """What makes token ids of contacts."""
        if self._reader is None:
            raise ValueError("this model has no tokenizer: load it with from_pretrained")
        return self._reader

    def save_pretrained(self, folder: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Saves a coder with all that belongs to it, to be loaded as this one was."""
        super().save_pretrained(folder, *args, **kwargs)
        for file, path in self.reader.files.items():
            target = os.path.join(folder, file)
            if not (os.path.exists(target) and os.path.samefile(path, target)):
                shutil.copyfile(path, target)

    def _read(self, files: Mapping[str, str]) -> None:
        self._reader = Reader(files, self.config)

    def _init_weights(self, module: nn.Module) -> None:
        """Weights are loaded; those of a coder made without them stay as PyTorch makes them."""

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Computes the network's logits.

        Args:
          input_ids: int64 [B, T], as from `Reader.documents`; padding stands at the end.
          attention_mask: int64 [B, T], 0 on padding; None for no padding.

        Returns:
          `logits` float32 [B, L].
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        real_BxT = attention_mask != 0
        return SequenceClassifierOutput(
            logits=self.head(self.encoder(input_ids, real_BxT), real_BxT)
        )

    @torch.inference_mode()
    def predict(
        self,
        contacts: Sequence[str | Mapping[str, Any]],
        top: int = 15,
        *,
        threshold: float | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> list[dict[str, Any]]:
        """Codes contacts.

        Args:
          contacts: texts, or objects such as {"contact_id": "1", "notes": [{"kind": "discharge",
            "time": "2024-02-01", "text": "..."}], "medications": [{"code": "B01AC06"}], "labs":
            [{"name": "Troponin I", "value": "412", "unit": "ng/L", "high": 14}], "age": 63}.
          top: codes a contact, beside further assigned ones.
          threshold: probability that an assigned code exceeds; the tuned one when None.
          batch_tokens: tokens, padding included, computed at a time.

        Returns:
          For each contact {"contact_id", "codes": [{"code", "description", "probability",
          "assigned"}]}: the `top` most probable codes in falling order, and every assigned one.

        Raises:
          ValueError: a contact that is none, or holds nothing to code.
        """
        if isinstance(contacts, str | Mapping):
            raise ValueError("contacts: one contact; expected a list of them")
        self.eval()
        threshold = self.config.threshold if threshold is None else threshold
        read = self.reader.contacts(contacts)
        documents = self.reader.documents(read)
        batches = by_length([len(ids) for _, ids in documents], batch_tokens)
        found: dict[int, list[dict[str, Any]]] = {}
        for rows in tqdm(batches, unit="batch", disable=None, leave=False):
            logits_BxL = self._logits([documents[row] for row in rows])
            probabilities = torch.sigmoid(logits_BxL).float().cpu()
            for row, probability_L in zip(rows, probabilities, strict=True):
                found[row] = self._codes(probability_L, top, threshold)
        return [
            {"contact_id": contact.contact_id, "codes": found[row]}
            for row, contact in enumerate(read)
        ]

    def _logits(self, documents: Sequence[tuple[str, list[int]]]) -> torch.Tensor:
        """Logits of a batch of documents, float32 [B, L]."""
        if self.config.fusion:
            raise ValueError("this coder is fused with a lexicon: use FusedJaxcoderModel")
        return self.network_logits([ids for _, ids in documents])

    def network_logits(self, documents: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits of the network for documents of several lengths, float32 [B, L]."""
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in documents], True)
        lengths = torch.tensor([len(ids) for ids in documents])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        return self(tokens.to(self.device), mask.to(self.device)).logits.float()

    def _codes(
        self, probability_L: torch.Tensor, top: int, threshold: float
    ) -> list[dict[str, Any]]:
        # Of equal probabilities the smaller label stands first.
        values, labels = torch.sort(probability_L, descending=True, stable=True)
        assigned = values > threshold
        count = max(top, int(assigned.sum()))
        columns = (values[:count], labels[:count], assigned[:count])
        return [
            {
                "code": self.reader.codes[label],
                "description": self.reader.descriptions[label],
                "probability": float(f"{value:.6g}"),
                "assigned": is_assigned,
            }
            for value, label, is_assigned in zip(*(x.tolist() for x in columns), strict=True)
        ]


def by_length(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Batches of documents of like length, of at most so many tokens, padding included."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):  # memory shows at once
        if not batches or lengths[batches[-1][0]] * (len(batches[-1]) + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
