"""Token records: from contact records to what a coder is trained on."""

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from tqdm import tqdm

from jaxcoder.errors import UserError
from jaxcoder.records import store, writer
from jaxcoder.records.builder import RecordsOptions
from jaxcoder.records.builder import open_built as open_records
from jaxcoder.records.codes import LabelSpace, read_descriptions
from jaxcoder.records.data import ContactData, open_contacts
from jaxcoder.records.runner import Runner
from jaxcoder.records.schema import Contact
from jaxcoder.tokens import evidence, identity, labels
from jaxcoder.tokens.data import (
    LABEL_SPACE,
    MINI,
    REPORT,
    TOKENIZER,
    TokenData,
    features,
    open_tokens,
    tokens_folder,
)
from jaxcoder.tokens.documents import DocumentEncoder
from jaxcoder.tokens.labels import LabelOptions
from jaxcoder.tokens.lexicon import Lexicon, LexiconOptions, SilverOptions
from jaxcoder.tokens.mini import Filled, Strings
from jaxcoder.tokens.minidocs import MiniOptions
from jaxcoder.tokens.preprocessor import Preprocessor
from jaxcoder.tokens.report import SplitReport
from jaxcoder.tokens.serialise import SerialiseOptions, serialise
from jaxcoder.tokens.tokenizer import (
    Tokenizer,
    TokenizerOptions,
    load_tokenizer,
    train_tokenizer,
)
from jaxcoder.whole_file import write_json

__all__ = ["TokenData", "TokensOptions", "build", "open_built", "open_tokens"]

_PART = 8192  # contacts of a part at most: some seconds of work, and a file of 30 MB
_MINI_CONTACTS = 20_000  # training contacts whose strings go into mini-documents, at most


@dataclasses.dataclass(frozen=True)
class TokensOptions:
    """How contacts become token records.

    Attributes:
      serialise: what of a contact is read.
      tokenizer: which tokenizer.
      labels: which codes are predicted.
      lexicon: how n-grams are counted against codes, for silver evidence.
      silver: which spans count as silver evidence.
      mini: mini-documents.
      mini_tokens: length that mini-documents are filled up to with pairs, so that one bucket holds
        them (see `mini.Filled`); 0 leaves as many pairs in each as `mini` says.
      train_share: of the training patients, in (0, 1], for a learning curve: the others are not
        there, neither as records nor for label space, tokenizer and lexicons.
    """

    serialise: SerialiseOptions = SerialiseOptions()
    tokenizer: TokenizerOptions = TokenizerOptions()
    labels: LabelOptions = LabelOptions()
    lexicon: LexiconOptions = LexiconOptions()
    silver: SilverOptions = SilverOptions()
    mini: MiniOptions = MiniOptions()
    mini_tokens: int = 128
    train_share: float = 1.0

    def __post_init__(self) -> None:
        if self.mini_tokens and not 16 <= self.mini_tokens <= self.serialise.max_tokens:
            raise ValueError(
                f"mini_tokens = {self.mini_tokens}: expected 0, or 16 to "
                f"serialise.max_tokens = {self.serialise.max_tokens}"
            )
        if not 0 < self.train_share <= 1:
            raise ValueError(f"train_share = {self.train_share}: expected a share in (0, 1]")


def build(
    contacts: ContactData,
    data_dir: epath.PathLike,
    options: TokensOptions,
    rebuild: bool = False,
    say: Callable[[str], None] = print,
    runner: Runner | None = None,
) -> TokenData:
    """Builds token records, or reuses them where the same contacts and options have been built.

    Args:
      contacts: the contact records.
      data_dir: the data set goes to `DATA_DIR/token_records/NAME-HASH/VERSION`.
      options: how.
      rebuild: build even if they are there.
      say: takes one line for the user.
      runner: where the parts are made; None for this process. It decides nothing of the records.

    Raises:
      UserError: contacts without a training split, a file that an option names and is not there or
        not readable, or no space to write.
    """
    decisive = identity.of(contacts, options)
    path = tokens_folder(data_dir, identity.name(contacts, decisive))
    if (path / REPORT).exists() and not rebuild:
        say(f"Reusing token records {path}")
        return TokenData(path)
    TokensBuild(contacts.taking(options.train_share), options).write(
        path, decisive, epath.Path(data_dir), runner
    )
    return TokenData(path)


def open_built(
    records: RecordsOptions, tokens: TokensOptions, data_dir: epath.PathLike
) -> TokenData:
    """Opens the token records of an experiment; builds nothing.

    Args:
      records: which contacts.
      tokens: how they became token records.
      data_dir: where both lie.

    Raises:
      UserError: they have not been built, with the command that does it.
    """
    contacts = open_records(records, data_dir)
    path = tokens_folder(data_dir, identity.name(contacts, identity.of(contacts, tokens)))
    if not (path / REPORT).exists():
        raise UserError(
            f"{path}: no token records of this config; run `jaxcoder tokens --config CONFIG "
            f"--data_dir {data_dir}` once, on one machine, with the same config"
        )
    return open_tokens(path)


class TokensBuild:
    """All that has to be known before the first record can be written."""

    def __init__(self, contacts: ContactData, options: TokensOptions) -> None:
        labelled = options.labels.enabled
        needed = {"train": "label space"} if labelled else {}
        needed |= (
            {} if options.tokenizer.path else dict.fromkeys(options.tokenizer.splits, "tokenizer")
        )
        for split, what in needed.items():
            if split not in contacts.splits:
                raise UserError(
                    f"{contacts.path}: has no split {split}, which the {what} comes from; "
                    f"it has {', '.join(contacts.splits)}"
                )
        self.contacts, self.options = contacts, options
        self.train: Sequence[Contact] = contacts.split("train") if labelled else ()
        self.table = (
            read_descriptions(options.labels.descriptions) if options.labels.descriptions else {}
        )
        known = {code: long for code, (_, _, long) in self.table.items()}
        # Of all codes, not only of those that are predicted: a code without a description of its
        # own has the words of the nearest one above it.
        self.descriptions = {**contacts.report["descriptions"], **known}
        self.space = labels.make_label_space(
            _shown(self.train, "label space"), options.labels, self.descriptions
        )
        self.tokenizer = self._make_tokenizer()
        self.encoder = DocumentEncoder(self.tokenizer, options.serialise)
        lexicon = self._fit_lexicon() if options.silver.enabled and labelled else None
        self.preprocessor = Preprocessor(self.space, self.encoder, lexicon, options.silver)
        sample = store.evenly(self.train, _MINI_CONTACTS)
        strings = Strings(
            sample, self.table, self.space, self.preprocessor.silver_spans, self.encoder
        )
        self.minis = Filled(
            strings.fragments(options.mini) if options.mini.per_contact else [],
            options.mini,
            options.mini_tokens,
            round(options.mini.per_contact * len(self.train)),
            self.encoder,
        )

    def write(
        self,
        path: epath.Path,
        decisive: Mapping[str, Any],
        data_dir: epath.Path,
        runner: Runner | None = None,
    ) -> None:
        splits = {split: ranges(len(self.contacts.split(split))) for split in self.contacts.splits}
        if len(self.minis):
            splits[MINI] = [(0, len(self.minis))]
        parts = {split: [(split, *each) for each in mine] for split, mine in splits.items()}

        def finish(folder: epath.Path, returned: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
            splits = leave_beside(folder, self.space, self.tokenizer, returned)
            return {
                "name": path.parent.name,
                "identity": decisive,
                "contacts": store.below(self.contacts.path, data_dir),
                "label_space": self.space.hash,
                "num_labels": len(self.space),
                "vocab_size": self.tokenizer.vocab_size,
                "splits": splits,
                "records": self.contacts.report,
            }

        records = _Records(
            self.preprocessor,
            self.contacts.path,
            self.options.train_share,
            self.minis,
            self._mini_provenance(),
        )
        writer.write(path, features, parts, records, finish, REPORT, runner)

    def _mini_provenance(self) -> int:
        """Of the spans of mini-documents.

        They are gold where annotated strings are among the sources and there are any, and silver
        otherwise, so that a loss on silver evidence alone sees them, and no annotated span of a
        contact.
        """
        annotated = "evidence" in self.options.mini.sources and any(
            contact.evidence for contact in store.evenly(self.train, _MINI_CONTACTS)
        )
        return evidence.GOLD if annotated else evidence.SILVER

    def _make_tokenizer(self) -> Tokenizer:
        options = self.options.tokenizer
        if options.path:
            return load_tokenizer(options.path)
        splits = [self.contacts.split(name) for name in options.splits]
        whole = sum(map(len, splits))
        most = [-(-options.train_contacts * len(each) // whole) for each in splits]
        samples = map(store.evenly, splits, most)
        sample = _shown(itertools.chain.from_iterable(samples), "tokenizer")
        return train_tokenizer(
            (serialise(contact, self.options.serialise).text for contact in sample), options
        )

    def _fit_lexicon(self) -> Lexicon:
        options = self.options.lexicon
        sample = _shown(store.evenly(self.train, options.max_contacts), "lexicon")
        first, second = itertools.tee(sample)  # read in step, so that nothing piles up
        return Lexicon.fit(
            (serialise(contact, self.options.serialise).text for contact in first),
            (sorted(labels.gold_codes(contact, self.space.granularity)) for contact in second),
            options,
            self.descriptions,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Records:
    """From a part of a split to its records, in any process: it can be pickled.

    Attributes:
      preprocessor: makes them.
      contacts: folder of the contact records.
      train_share: of the training patients.
      minis: the mini-documents.
      mini_provenance: of their spans.
    """

    preprocessor: Preprocessor
    contacts: epath.Path
    train_share: float
    minis: Filled
    mini_provenance: int

    def __call__(self, part: tuple[str, int, int]) -> writer.Stream:
        """The records of a range of a split; returns the state of their report."""
        split, start, stop = part
        report = SplitReport()
        if split == MINI:
            for number, (fragment, document) in enumerate(self.minis.documents()):
                name = f"{MINI}-{number:06d}"
                yield self.preprocessor.annotated_record(
                    name, fragment.spans, self.mini_provenance, document, report
                )
        else:
            contacts = open_contacts(self.contacts).taking(self.train_share).split(split)
            yield from self.preprocessor.records(
                contacts, report, silver=split == "train", start=start, stop=stop
            )
        return report.state()


def leave_beside(
    folder: epath.Path,
    space: LabelSpace,
    tokenizer: Tokenizer,
    returned: Mapping[str, Sequence[Any]],
) -> dict[str, Any]:
    """Writes what stands beside the records: label space, tokenizer, sizes, counts of codes.

    Args:
      folder: that is being written.
      space: the label space.
      tokenizer: the tokenizer.
      returned: states of the reports of each split's parts.

    Returns:
      A summary of each split.
    """
    space.save(folder / LABEL_SPACE)
    tokenizer.save(folder / TOKENIZER)
    reports = {split: SplitReport() for split in returned}
    for split, report in reports.items():
        for state in returned[split]:
            report.merge(SplitReport.from_state(state))
        with (folder / f"sizes_{split}.npy").open("wb") as file:
            np.save(file, report.sizes, allow_pickle=False)
        if split != MINI:
            write_json(folder / f"codes_{split}.json", report.code_counts())
    return {split: report.summary() for split, report in reports.items()}


def ranges(count: int) -> list[tuple[int, int]]:
    """Parts of about the same size, so that all processes end at about the same time."""
    parts = -(-count // _PART)
    ends = [count * number // max(1, parts) for number in range(parts + 1)]
    return list(itertools.pairwise(ends))


def _shown(contacts: Iterable[Contact], what: str) -> Iterator[Contact]:
    """The same contacts, with a progress bar on a terminal."""
    return iter(tqdm(contacts, desc=what, unit=" contacts", disable=not sys.stderr.isatty()))
