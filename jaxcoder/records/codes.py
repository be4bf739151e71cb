"""ICD codes: their coarser granularities, their descriptions, and the label space of a model."""

import csv
import dataclasses
import functools
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Mapping

from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.code_systems import PCS, canonical_system, normalise
from jaxcoder.whole_file import write_bytes

GRANULARITIES = ("full", "subcategory", "category", "chapter")

# Chapters by their last category, in order. ICD-10: WHO volume 1, with the wider end where
# ICD-10-CM goes further (D49).
_ICD10_CHAPTERS = """
    A00-B99 C00-D49 D50-D89 E00-E90 F00-F99 G00-G99 H00-H59 H60-H95 I00-I99 J00-J99 K00-K95 L00-L99
    M00-M99 N00-N99 O00-O9A P00-P96 Q00-Q99 R00-R99 S00-T98 U00-U99 V00-Y99 Z00-Z99"""
_ICD9_CHAPTERS = """
    001-139 140-239 240-279 280-289 290-319 320-389 390-459 460-519 520-579 580-629 630-679 680-709
    710-739 740-759 760-779 780-799 800-999 E000-E999 V01-V91"""


def roll_up(code: str, granularity: str, system: str = "") -> str:
    """The coarser code that a normalised code belongs to.

    | granularity | ICD-10 | ICD-9-CM | ICD-10-PCS | ICD-9-CM procedures |
    |---|---|---|---|---|
    | subcategory | `E11.65` → `E11.6` | `250.01` → `250.0` | 4 characters | `38.93` → `38.9` |
    | category | `E11` | `250`, `E880` | 3 characters: operation | `38` |
    | chapter | `E00-E90` | `240-279` | 1 character: section | `38` (has none: the category) |

    The system shows in a normalised code's form, except in V codes (ICD-9-CM supplementary or
    ICD-10 external causes), which count as ICD-10 unless `system` says otherwise; it matters for
    their chapter alone.

    Args:
      code: a code as `normalise` writes it.
      granularity: `full`, `subcategory`, `category` or `chapter`.
      system: its code system, where known.

    Returns:
      The code at that granularity; the code itself where it is already coarser.

    Raises:
      ValueError: an unknown granularity, or a chapter asked for a code of no known form.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(
            f"granularity = {granularity!r}: expected one of {', '.join(GRANULARITIES)}"
        )
    if granularity == "full":
        return code
    head, dot, tail = code.partition(".")
    if not dot and len(head) in (4, 7) and PCS.fullmatch(head):
        return head[: {"subcategory": 4, "category": 3, "chapter": 1}[granularity]]
    if granularity == "subcategory":
        return f"{head}.{tail[0]}" if tail else head
    if granularity == "category":
        return head
    if head.isdigit() and len(head) == 2:
        return head
    icd9 = (
        head.isdigit()
        or len(head) == 4
        or (head[:1] == "V" and system and canonical_system(system) == "icd9cm")
    )
    for chapter in (_ICD9_CHAPTERS if icd9 else _ICD10_CHAPTERS).split():
        first, last = chapter.split("-")
        # Strings of one length compare as categories do; V and E codes of ICD-9-CM stand after the
        # digits.
        if (
            len(head) == len(first)
            and head[0].isdigit() == first[0].isdigit()
            and first <= head <= last
        ):
            return chapter
    raise ValueError(f"{code!r} lies in no chapter of ICD-10 or ICD-9-CM")


def coarser(code: str, granularity: str) -> str:
    """As `roll_up`; a code that lies in no chapter stands for itself."""
    try:
        return roll_up(code, granularity)
    except ValueError:
        return code


def coarsenings(granularity: str) -> dict[str, Callable[[str], str]]:
    """From a granularity and each that is coarser to what rolls its codes up to them."""
    same, *others = GRANULARITIES[GRANULARITIES.index(granularity) :]
    rolled = {name: functools.partial(coarser, granularity=name) for name in others}
    return {same: str, **rolled}


@dataclasses.dataclass(frozen=True)
class LabelSpace:
    """The ordered list of codes that a model predicts; a label is an index into it.

    Attributes:
      codes: normalised codes at `granularity`, sorted, each once.
      descriptions: one a code, empty where unknown.
      granularity: what every gold code is rolled up to before it is looked up.
      min_count: the fewest training contacts that a code had to occur in.
    """

    codes: tuple[str, ...]
    descriptions: tuple[str, ...] = ()
    granularity: str = "full"
    min_count: int = 1

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise ValueError(
                f"granularity = {self.granularity!r}: expected one of {', '.join(GRANULARITIES)}"
            )
        if len(set(self.codes)) != len(self.codes):
            raise ValueError("codes: expected each code once")
        if not self.descriptions:
            object.__setattr__(self, "descriptions", ("",) * len(self.codes))
        if len(self.descriptions) != len(self.codes):
            raise ValueError(
                f"descriptions: {len(self.descriptions)}, expected one for each of "
                f"{len(self.codes)} codes"
            )

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        granularity: str = "full",
        min_count: int = 1,
        descriptions: Mapping[str, str] | None = None,
    ) -> "LabelSpace":
        """The codes that occur in at least `min_count` contacts, in the codes' order.

        Args:
          counts: from a code, already rolled up to `granularity`, to the number of training
            contacts that have it.
          granularity: that granularity.
          min_count: at least 1.
          descriptions: from a code to its description.

        Returns:
          The label space.
        """
        kept = sorted(code for code, count in counts.items() if count >= min_count)
        known = descriptions or {}
        return cls(tuple(kept), tuple(known.get(code, "") for code in kept), granularity, min_count)

    def __len__(self) -> int:
        return len(self.codes)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """From a code to its label."""
        return {code: label for label, code in enumerate(self.codes)}

    @functools.cached_property
    def hash(self) -> str:
        """16 hexadecimal digits over granularity and ordered codes: a checkpoint must match it."""
        return hashlib.blake2b(
            "\n".join((self.granularity, *self.codes)).encode(), digest_size=8
        ).hexdigest()

    def save(self, path: epath.PathLike) -> None:
        """Writes `label_space.json`."""
        content = {
            "granularity": self.granularity,
            "min_count": self.min_count,
            "hash": self.hash,
            "codes": list(self.codes),
            "descriptions": list(self.descriptions),
        }
        write_bytes(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: epath.PathLike) -> "LabelSpace":
        """Reads `label_space.json`.

        Raises:
          UserError: the file is missing, is not a label space, or was edited after it was saved.
        """
        path = epath.Path(path)
        try:
            content = json.loads(path.read_text())
            space = cls(
                tuple(content["codes"]),
                tuple(content["descriptions"]),
                content["granularity"],
                int(content["min_count"]),
            )
            found = content["hash"]
        except FileNotFoundError:
            raise UserError(
                f"{path}: not found; expected the label space that the token records came with"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: not a label space ({error}); rebuild the token records"
            ) from None
        if found != space.hash:
            raise UserError(
                f"{path}: hash {found} but its codes give {space.hash}: it was edited; "
                "restore the saved file"
            )
        return space


_ORDER_FILE = ("code", "billable", "short", "long")


def read_descriptions(path: epath.PathLike) -> dict[str, tuple[bool, str, str]]:
    """Reads the official ICD-10-CM order file.

    Args:
      path: the file as CMS publishes it (fixed width, `.txt`), or as CSV with columns code,
        billable, short, long; either may be gzipped (`.gz`).

    Returns:
      From a normalised code to whether it is billable (a full code, not a heading), its short and
      its long description, in the file's order.

    Raises:
      UserError: no such file, a missing column, or a row that is not a code.
    """
    path = epath.Path(path)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; expected the ICD-10-CM order file (code, billable, short, long)"
        ) from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read as text ({error}); expected CSV or the CMS order file"
        ) from None
    if path.name.removesuffix(".gz").endswith(".txt"):
        # CMS layout: order number 1-5, code 7-13, billable 15, short description 17-76, long
        # description from 78.
        rows = [
            (line[6:13], line[14:15], line[16:76].strip(), line[77:].strip())
            for line in text.splitlines()
            if line
        ]
    else:
        reader = csv.DictReader(io.StringIO(text))
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        for wanted in _ORDER_FILE:
            if wanted not in columns:
                raise UserError(
                    f"{path}: column {wanted!r} is missing; found {', '.join(columns) or 'none'}"
                )
        code, billable, short, long = (columns[key] for key in _ORDER_FILE)
        rows = [(row[code], row[billable], row[short] or "", row[long] or "") for row in reader]
    descriptions = {}
    for number, (code, billable, short, long) in enumerate(rows, start=2):
        try:
            descriptions[normalise(code, "icd10cm")] = (
                billable.strip() in ("1", "true", "True"),
                short,
                long,
            )
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}") from None
    return descriptions
