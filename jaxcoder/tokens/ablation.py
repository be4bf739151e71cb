"""Token records with inputs left out, to see what each of them brings to a trained coder."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records import writer
from jaxcoder.records.data import open_contacts
from jaxcoder.records.runner import Local
from jaxcoder.tokens import builder
from jaxcoder.tokens.data import REPORT, TokenData, features, open_tokens
from jaxcoder.tokens.documents import DocumentEncoder
from jaxcoder.tokens.lexicon import SilverOptions
from jaxcoder.tokens.preprocessor import Preprocessor
from jaxcoder.tokens.report import SplitReport


def without(
    data: TokenData, split: str, sections: Sequence[str], *, build: bool = True
) -> TokenData:
    """Builds the records of a split anew without some sections, or reuses them.

    Tokenizer and label space are those of `data`. They are kept beside its records, in
    `DATA_DIR/token_records/NAME-SPLIT-without-SECTIONS`.

    Args:
      data: token records.
      split: one of its splits.
      sections: which of `notes`, `medications`, `labs` to leave out.
      build: build them where they are not there.

    Raises:
      UserError: a section that the records do not have, or all of them; they are not there and not
        to be built; or the contact records are gone.
    """
    there = data.serialise.sections
    for section in sections:
        if section not in there:
            raise UserError(
                f"--without {section}: {data.path} was made from {', '.join(there)}; "
                "leave out some of these"
            )
    left = tuple(each for each in there if each not in sections)
    if not left:
        raise UserError(f"--without {','.join(sections)}: leaves nothing to read")
    name = "-".join([data.name, split, "without", *(each for each in there if each not in left)])
    path = data.path.parent.parent / name / data.path.name
    if (path / REPORT).exists():
        return open_tokens(path)
    if not build:
        raise UserError(f"{path}: no such records; run the same command once as one process")
    options = dataclasses.replace(data.serialise, sections=left)
    encoder = DocumentEncoder(data.tokenizer, options)
    preprocessor = Preprocessor(data.label_space, encoder, None, SilverOptions())
    contacts = data.contacts()
    content = {key: data.report[key] for key in data.report if key not in ("files", "splits")}
    content = json.loads(json.dumps(content)) | {"name": name}
    content["identity"]["options"]["serialise"] = dataclasses.asdict(options)

    def finish(folder: epath.Path, returned: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        reports = builder.leave_beside(folder, data.label_space, data.tokenizer, returned)
        return content | {"splits": reports}

    parts = {split: builder.ranges(len(contacts.split(split)))}
    records = _Records(preprocessor, contacts.path, contacts.train_share, split)
    writer.write(path, features, parts, records, finish, REPORT, Local(0))
    return open_tokens(path)


@dataclasses.dataclass(frozen=True, eq=False)
class _Records:
    """From a range of contacts to their records, in any process: it can be pickled."""

    preprocessor: Preprocessor
    contacts: epath.Path
    train_share: float
    split: str

    def __call__(self, part: tuple[int, int]) -> writer.Stream:
        report = SplitReport()
        contacts = open_contacts(self.contacts).taking(self.train_share).split(self.split)
        yield from self.preprocessor.records(contacts, report, False, *part)
        return report.state()
