"""Labels: the label space of a training split, and the labels of a contact in it."""

import collections
import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.code_systems import SYSTEMS, normalise
from jaxcoder.records.codes import GRANULARITIES, LabelSpace, roll_up
from jaxcoder.records.schema import ROLES, Contact

_RANK = {role: rank for rank, role in enumerate(("primary", "secondary", "unknown"))}


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """Which codes are predicted.

    Attributes:
      enabled: False for records without labels and evidence, to pretrain on; no code is read.
      granularity: what codes are rolled up to: `full`, `subcategory`, `category` or `chapter`.
      min_count: training contacts that a code must occur in.
      extra: text file of further codes to predict, one a line, written as in records (`I10.9`);
        empty for none. They are rolled up too.
      descriptions: the official ICD-10-CM order file, which gives codes their descriptions and
        mini-documents their strings; empty for none.
    """

    enabled: bool = True
    granularity: str = "full"
    min_count: int = 1
    extra: str = ""
    descriptions: str = ""

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"granularity = {self.granularity!r}: expected one of {', '.join(GRANULARITIES)}"
            )
        if self.min_count < 1:
            raise ValueError(f"min_count = {self.min_count}: expected at least 1")


class Gold(NamedTuple):
    """The gold codes of a contact, each once.

    Attributes:
      labels: int32 [k], rising.
      roles: uint8 [k], index into `ROLES`; of codes that roll up to one, the weightiest.
      missing: codes outside the label space, sorted.
      by_code: from every code, those outside the label space too, to its role.
    """

    labels: np.ndarray
    roles: np.ndarray
    missing: tuple[str, ...]
    by_code: Mapping[str, str]


def make_label_space(
    contacts: Iterable[Contact], options: LabelOptions, descriptions: Mapping[str, str]
) -> LabelSpace:
    """Counts the codes of the training contacts.

    Args:
      contacts: the training split, read once.
      options: which codes.
      descriptions: from a code to its description, where known.

    Returns:
      The label space; that of no code where labels are not enabled.

    Raises:
      UserError: no code is left, or a code cannot be rolled up.
    """
    if not options.enabled:
        return LabelSpace.from_counts({}, options.granularity)
    counts: collections.Counter[str] = collections.Counter()
    for contact in contacts:
        counts.update(gold_codes(contact, options.granularity).keys())
    if options.extra:
        for code in _read_codes(options.extra):
            counts[_rolled(code, "", options.granularity, options.extra)] += options.min_count
    space = LabelSpace.from_counts(counts, options.granularity, options.min_count, descriptions)
    if not counts:
        raise UserError(
            "the training split has no codes to learn from; check the relation codes of the source "
            "with `jaxcoder records --check`; records to pretrain on need none: "
            "config.tokens.labels.enabled=False"
        )
    if not len(space):
        most = max(counts.values(), default=0)
        raise UserError(
            f"config.tokens.labels.min_count = {options.min_count}: leaves no code to predict; "
            f"the training split has {len(counts)} codes, the most frequent in {most} contacts"
        )
    return space


def gold_codes(contact: Contact, granularity: str) -> dict[str, str]:
    """From each code of a contact, rolled up, to its role."""
    where = f"contact {contact.contact_id}"
    roles: dict[str, str] = {}
    for row in contact.codes:
        code = _rolled(row.code, row.system, granularity, where)
        roles[code] = min(roles.get(code, "unknown"), row.role, key=_RANK.__getitem__)
    return roles


def gold(contact: Contact, space: LabelSpace) -> Gold:
    """The gold codes of a contact as labels."""
    roles = gold_codes(contact, space.granularity)
    known = sorted(
        (space.index[code], ROLES.index(roles[code])) for code in roles if code in space.index
    )
    return Gold(
        np.array([label for label, _ in known], np.int32),
        np.array([role for _, role in known], np.uint8),
        tuple(sorted(code for code in roles if code not in space.index)),
        roles,
    )


def _rolled(code: str, system: str, granularity: str, where: str) -> str:
    try:
        return roll_up(code, granularity, system)
    except ValueError as error:
        raise UserError(
            f"{where}: {error}; choose another config.tokens.labels.granularity"
        ) from None


def _read_codes(path: epath.PathLike) -> list[str]:
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"config.tokens.labels.extra = {path}: not found; expected one code a line")
    codes = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        code = line.strip()
        if code and not _is_normalised(code):
            raise UserError(
                f"config.tokens.labels.extra = {path}, line {number}: {code[:20]!r} is no code as "
                "records write it, such as I10.9 (upper case, dotted)"
            )
        codes += [code] if code else []
    return codes


def _is_normalised(code: str) -> bool:
    for system in SYSTEMS:
        with contextlib.suppress(ValueError):
            if normalise(code, system) == code:
                return True
    return False
