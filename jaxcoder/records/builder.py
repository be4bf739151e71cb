"""Contact records: from a source to the TFDS data set that its contacts are kept in."""

import collections
import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from jaxcoder import settings
from jaxcoder.errors import UserError
from jaxcoder.records import writer
from jaxcoder.records.contact_features import encode, features
from jaxcoder.records.data import (
    DATA_SET,
    REPORT,
    VERSION,
    ContactData,
    contacts_folder,
    open_contacts,
    rebuilding,
)
from jaxcoder.records.findings import ASKED_FOR, Findings, as_json, line
from jaxcoder.records.report import SplitReport
from jaxcoder.records.runner import Local, Runner
from jaxcoder.records.sources import Part, Source, open_source


@dataclasses.dataclass(frozen=True)
class RecordsOptions:
    """Which contacts an experiment uses.

    Attributes:
      source: the source's name, one of `sources.NAMES`.
      source_dir: folder with its files; empty for a source that reads none.
      options: the source's own options, such as `{"language": "es"}`.
    """

    source: str = "synthetic"
    source_dir: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def open(self) -> Source:
        """The source, opened; raises UserError as `open_source` does."""
        return open_source(self.source, self.source_dir or None, self.options)


def build(
    source: Source,
    data_dir: epath.PathLike,
    rebuild: bool = False,
    say: Callable[[str], None] = print,
    source_dir: str | None = "",
    strict: bool = False,
    runner: Runner | None = None,
) -> ContactData:
    """Builds the contact records of a source, or reuses them where the same source has been built.

    Args:
      source: where the contacts come from.
      data_dir: the data set goes to `DATA_DIR/contact_records/NAME/VERSION`.
      rebuild: build even if there is a data set of that name.
      say: takes one line for the user.
      source_dir: where the source was opened, for messages; empty where it reads no files.
      strict: whether anything that is left out or emptied is an error, and nothing written.
      runner: where the parts are made; None for this process. It decides nothing of the records.

    Returns:
      The data set.

    Raises:
      UserError: a mistake in the source's files, or a data set of that name with another content.
    """
    path = contacts_folder(data_dir, source.name)
    if (path / REPORT).exists() and not rebuild:
        data = ContactData(path)
        check_same(source, data)
        say(f"Reusing contact records {path}")
        return data
    parts, left_out = source.parts(runner or Local())

    def report(folder: epath.Path, returned: dict[str, list[Any]]) -> dict[str, Any]:
        del folder  # nothing beside the records
        content = {"name": source.name, "identity": _identity(source), "source_dir": source_dir}
        content |= _joined(source, returned, left_out)
        if strict:
            check_nothing_dropped(content)
        return content | {"descriptions": _described(source, returned)}

    writer.write(path, features, parts, _records, report, REPORT, runner)
    return ContactData(path)


def _described(source: Source, returned: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """The descriptions of the codes that occur and of those above them, of the 95,000 there are."""
    codes = {
        code
        for states in returned.values()
        for state in states
        for code in state["report"]["codes"]
    }
    wanted = {code[:length].rstrip(".") for code in codes for length in range(1, len(code) + 1)}
    return {code: title for code, title in source.descriptions.items() if code in wanted}


def check(source: Source, runner: Runner | None = None) -> dict[str, Any]:
    """Reads every contact of a source, and writes nothing.

    Returns:
      What can be counted, as in `records_report.json`.

    Raises:
      UserError: a mistake in the source's files.
    """
    runner = runner or Local()
    parts, left_out = source.parts(runner)
    tasks = [(split, part) for split, mine in parts.items() for part in mine]
    apart = any(len(mine) > 1 for mine in parts.values())
    returned: dict[str, list[Any]] = {split: [] for split in parts}
    states = runner.map(_read, [part for _, part in tasks], apart)
    for (split, _), state in zip(tasks, states, strict=True):
        returned[split].append(state)
    return _joined(source, returned, left_out)


def _records(part: Part) -> writer.Stream:
    """The records of a part; returns the states of its report and its findings."""
    report, found = SplitReport(), Findings()
    for contact in report.watch(part(found)):
        yield encode(contact)
    return {"report": report.state(), "findings": found.state()}


def _read(part: Part) -> dict[str, Any]:
    """The same states, of records that nobody keeps."""
    report, found = SplitReport(), Findings()
    collections.deque(report.watch(part(found)), maxlen=0)
    return {"report": report.state(), "findings": found.state()}


def _joined(
    source: Source, returned: Mapping[str, Sequence[Any]], left_out: Findings
) -> dict[str, Any]:
    """The countable part of the report, from the states of the parts of each split."""
    reports: dict[str, SplitReport] = {}
    found = {"": left_out}
    for split, states in returned.items():
        reports[split], found[split] = SplitReport(), Findings()
        for state in states:
            reports[split].merge(SplitReport.from_state(state["report"]))
            found[split].merge(Findings.from_state(state["findings"]))
    if not any(report.contacts for report in reports.values()):
        why = f"; left out: {'; '.join(left_out.lines())}" if left_out else ""
        raise UserError(f"source {source.name}: no contacts in any split; expected some{why}")
    return summarise(reports, found)


def open_built(records: RecordsOptions, data_dir: epath.PathLike) -> ContactData:
    """Opens the contact records of an experiment; builds nothing.

    Where the source's files are at hand, the records must be what they would give now. On the
    workers of a pod they are not: there source and options alone say which records are meant.

    Args:
      records: which contacts.
      data_dir: where they lie.

    Raises:
      UserError: they are not there, or several are meant, or of another content.
    """
    if at_hand(records):
        source = records.open()
        path = contacts_folder(data_dir, source.name)
        if not (path / REPORT).exists():
            raise UserError(
                f"{path}: no such contact records; run `jaxcoder tokens --config CONFIG --data_dir "
                f"{data_dir}` once, on one machine, with the same config: it makes both kinds"
            )
        data = open_contacts(path)
        check_same(source, data)
        return data
    root = epath.Path(data_dir) / DATA_SET
    reports = [folder / VERSION / REPORT for folder in (root.iterdir() if root.exists() else ())]
    found = [open_contacts(report.parent) for report in reports if report.exists()]
    meant = [each for each in found if _is_of(records, each)]
    if len(meant) == 1:
        return meant[0]
    place = records.source_dir or "its folder"
    options = f" with options {dict(records.options)}" if records.options else ""
    here = f"{root}: source {records.source}{options}"
    if meant:
        raise UserError(
            f"{here} may be {' or '.join(sorted(each.name for each in meant))}, and "
            f"{place} is not here to tell; set config.records.options.name"
        )
    raise UserError(
        f"{here} is not there, nor {place} to build it from; run `jaxcoder records` "
        "where its files are and copy the records here, or set config.records.source_dir to them"
    )


def _is_of(records: RecordsOptions, data: ContactData) -> bool:
    there, wanted = data.identity.get("options", {}), json.loads(json.dumps(dict(records.options)))
    return data.identity.get("source") == records.source and all(
        there.get(key) == value or str(there.get(key)) == str(value)  # typed, it is text
        for key, value in wanted.items()
    )


def at_hand(records: RecordsOptions) -> bool:
    """Whether the source of an experiment is on this machine, as far as its place tells."""
    if records.source == "synthetic" or "://" in records.source_dir:
        return True
    return bool(records.source_dir) and epath.Path(records.source_dir).exists()


def check_same(source: Source, data: ContactData) -> None:
    """Checks that contact records are what a source would give now.

    Raises:
      UserError: they are not, with what differs.
    """
    now = _identity(source)
    other = ", ".join(
        "its files have changed" if key == "files" else f"{key}: {there!r} there, {here!r} here"
        for key, there, here in settings.changes(data.identity, now, "")
    )
    if other:
        command = rebuilding({**data.report, "identity": now}, data.path.parent.parent.parent)
        has_name = "name" in now.get("options", {})
        named = ", give the source a name of its own (its option name)" if has_name else ""
        raise UserError(
            f"{data.path}: holds contact records of another content ({other}); replace them with "
            f"`{command}`{named}, or choose another data_dir"
        )


def check_nothing_dropped(report: Mapping[str, Any]) -> None:
    """Checks that nothing of a source was left out or emptied, but what the options left out.

    Raises:
      UserError: something was, with the most frequent reason.
    """
    found: collections.Counter[str] = collections.Counter()
    examples: dict[str, str] = {}
    for part in (report, *report["splits"].values()):
        found.update(
            {
                reason: count
                for reason, count in part["dropped"].items()
                if not reason.endswith(ASKED_FOR)
            }
        )
        examples |= part.get("examples", {})
    if found:
        (reason, count), *others = found.most_common()
        more = f", and {len(others)} more reasons" if others else ""
        raise UserError(
            f"--strict: {line(count, reason, examples)}{more}; mend them, or leave out --strict"
        )


def _identity(source: Source) -> dict[str, Any]:
    identity = json.loads(json.dumps(dict(source.identity)))
    return {**identity, "version": VERSION}


def summarise(reports: Mapping[str, SplitReport], found: Mapping[str, Findings]) -> dict[str, Any]:
    """The countable part of `records_report.json`.

    Args:
      reports: of every split, after its end; one without contacts is left out.
      found: the findings of every split, and under `""` those of none.
    """
    reports = {split: report for split, report in reports.items() if report.contacts}
    train = reports.get("train")
    summaries = {
        split: report.summary(found[split], None if split == "train" else train)
        for split, report in reports.items()
    }
    several = sum(
        first.overlap(second) for first, second in itertools.combinations(reports.values(), 2)
    )
    return {
        "splits": summaries,
        **as_json(found[""]),
        "patients_in_several_splits": several,
    }
