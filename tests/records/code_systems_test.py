import pytest

from jaxcoder.records.code_systems import canonical_system, normalise


@pytest.mark.parametrize(
    ("written", "system", "expected"),
    [
        ("i109", "icd10", "I10.9"),
        (" I10.9 ", "ICD-10-CM", "I10.9"),
        ("I10", "icd10", "I10"),
        ("I10.-", "icd10gm", "I10"),
        ("H36.0*", "icd10", "H36.0"),
        ("E10.3†", "icd10", "E10.3"),
        ("s72001a", "icd10cm", "S72.001A"),
        ("C4A.9", "icd10cm", "C4A.9"),
        ("DI109", "sks", "I10.9"),
        ("di10", "SKS", "I10"),
        ("DD50", "sks", "D50"),  # only one D is the national prefix
        ("0dtj4zz", "icd10pcs", "0DTJ4ZZ"),
        ("bw03", "icd10pcs", "BW03"),
        ("25000", "icd9cm", "250.00"),
        ("042", "icd9cm", "042"),
        ("0389", "icd9cm", "038.9"),
        ("E8801", "icd9cm", "E880.1"),
        ("E880", "icd9cm", "E880"),
        ("V1046", "icd9cm", "V10.46"),
        ("3893", "icd9cm-proc", "38.93"),
        ("0331", "ICD-9-CM-proc", "03.31"),
    ],
)
def test_codes_are_written_in_one_form(written, system, expected):
    assert normalise(written, system) == expected
    if system.lower() != "sks":  # the normalised form has no prefix left
        assert normalise(expected, system) == expected


@pytest.mark.parametrize(
    ("written", "system"),
    [
        ("", "icd10"),
        ("I1", "icd10"),
        ("10.9", "icd10"),
        ("I1.09", "icd10"),  # the dot in the wrong place is a typing error, not another code
        ("I10.99999", "icd10"),
        ("I109", "sks"),  # an SKS diagnosis starts with D
        ("DKJAB00", "sks"),  # a procedure
        ("0DTJ4Z", "icd10pcs"),
        ("0DTJ4ZI", "icd10pcs"),  # PCS has no letter I
        ("42", "icd9cm"),  # lost its leading zero
        ("E88.01", "icd9cm"),
        ("25000.1", "icd9cm"),
        ("389.3", "icd9cm-proc"),
    ],
)
def test_malformed_codes_are_refused(written, system):
    with pytest.raises(ValueError):
        normalise(written, system)


def test_unknown_system_names_those_known():
    with pytest.raises(ValueError, match="snomed.*icd10cm"):
        canonical_system("snomed")
