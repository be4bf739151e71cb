"""Code systems: their names, and the one written form of their codes."""

import re

# National modifications of ICD-10 write diagnoses alike: a letter, a digit, a digit or letter (C4A,
# M1A in ICD-10-CM), then up to four further characters after the dot.
_DIAGNOSIS_SYSTEMS = (
    "icd10",
    "icd10cm",
    "icd10gm",
    "icd10am",
    "icd10ca",
    "icd10se",
    "icd10no",
    "icd10fi",
    "sks",
)
SYSTEMS = (*_DIAGNOSIS_SYSTEMS, "icd10pcs", "icd9cm", "icd9cm-proc")

_ICD10 = re.compile(r"([A-Z][0-9][0-9A-Z])\.?([0-9A-Z]{0,4})")
# PCS uses every digit and letter but I and O. Seven characters are a whole code; four (section,
# body system, operation, body part) are what CodiEsp annotates when approach and device are not
# told.
PCS = re.compile(r"[0-9BCDFGHX](?:[0-9A-HJ-NP-Z]{3}|[0-9A-HJ-NP-Z]{6})")
_ICD9 = re.compile(r"(E[0-9]{3})\.?([0-9]{0,1})|(V[0-9]{2}|[0-9]{3})\.?([0-9]{0,2})")
_ICD9_PROCEDURE = re.compile(r"([0-9]{2})\.?([0-9]{0,2})")


def canonical_system(system: str) -> str:
    """The name of a code system as records write it: `ICD-10-CM` gives `icd10cm`.

    Args:
      system: a name in any case, with or without `-`, `_`, `.` or spaces.

    Returns:
      One of `SYSTEMS`.

    Raises:
      ValueError: not a system known here.
    """
    squeezed = re.sub(r"[-_. ]", "", system.lower())
    name = {"icd9": "icd9cm", "icd9cmproc": "icd9cm-proc", "icd9proc": "icd9cm-proc"}.get(
        squeezed, squeezed
    )
    if name not in SYSTEMS:
        raise ValueError(f"unknown code system {system!r}: expected one of {', '.join(SYSTEMS)}")
    return name


def normalise(code: str, system: str) -> str:
    """Writes a code in the one form that records hold: upper case, dotted, no national prefix.

    ICD-10 diagnoses have their dot after the third character, and lose the marks `+ * † !` and a
    trailing `-`; SKS diagnoses lose their `D` (`DI109` gives `I10.9`); ICD-10-PCS has no dot;
    ICD-9-CM diagnoses have it after the third character (after the fourth in E codes) and keep
    their leading zeros; ICD-9-CM procedures after the second.

    Args:
      code: the code, in any case, with or without its dot.
      system: its code system, as in `canonical_system`.

    Returns:
      The normalised code.

    Raises:
      ValueError: the code is not one of that system's form, or the system is unknown.
    """
    system = canonical_system(system)
    text = code.strip().upper()
    match: re.Match[str] | None
    if system in _DIAGNOSIS_SYSTEMS:
        if system == "sks":
            if not text.startswith("D"):
                raise ValueError(
                    f"{code!r} is not a diagnosis code of sks: expected a form such as DI109"
                )
            text = text[1:]
        match = _ICD10.fullmatch(text.rstrip("+*†!-"))
        parts = match.groups() if match else None
        example = "I10.9"
    elif system == "icd10pcs":
        match = PCS.fullmatch(text)
        parts = (text, "") if match else None
        example = "0DTJ4ZZ"
    elif system == "icd9cm":
        match = _ICD9.fullmatch(text)
        parts = tuple(group for group in match.groups() if group is not None) if match else None
        example = "042, 250.00, E880.1 or V10.1 (leading zeros kept)"
    else:
        match = _ICD9_PROCEDURE.fullmatch(text)
        parts = match.groups() if match else None
        example = "38.93 or 03.1 (leading zeros kept)"
    if parts is None:
        raise ValueError(f"{code!r} is not a code of {system}: expected a form such as {example}")
    head, tail = parts
    return f"{head}.{tail}" if tail else head
