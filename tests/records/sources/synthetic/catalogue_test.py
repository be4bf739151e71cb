import csv
import importlib.resources
import re
import shutil

import pytest
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records import codes as icd
from jaxcoder.records.sources.synthetic.catalogue import COLUMNS, Catalogue
from jaxcoder.records.sources.synthetic.entries import KINDS

PACKAGED = importlib.resources.files("jaxcoder.records.sources.synthetic") / "tables"


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue()


@pytest.fixture
def copy(tmp_path):
    """A user's copy of the tables, and a way to change a cell of it."""
    folder = epath.Path(shutil.copytree(PACKAGED, tmp_path / "tables"))

    def change(table, column, value, **where):
        path = folder / f"{table}.csv"
        rows = list(csv.DictReader(path.read_text().splitlines()))
        place = next(
            number
            for number, row in enumerate(rows)
            if all(row[key] == wanted for key, wanted in where.items())
        )
        rows[place][column] = value
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return place + 2

    return folder, change


def rows(table):
    return list(csv.DictReader((PACKAGED / f"{table}.csv").read_text("utf-8").splitlines()))


def test_it_has_the_conditions_that_a_hospital_codes(catalogue):
    assert len(catalogue.conditions) >= 120
    chapters = {
        icd.roll_up(code.code, "chapter") for one in catalogue.conditions for code in one.codes
    }
    # Eye and ear share the letter H; external causes and codes for special purposes are no reason
    # for a contact (but U07.1, COVID-19, is).
    wanted = "A00 C00 D50 E00 F00 G00 H00 H60 I00 J00 K00 L00 M00 N00 O00 P00 Q00 R00 S00 Z00"
    assert {icd.roll_up(code, "chapter") for code in wanted.split()} <= chapters
    seen = {one.name for entry in catalogue.conditions for one in entry.specialties}
    assert len(seen) >= 20
    assert seen == set(catalogue.specialties), "a specialty that sees nobody"


def test_codes_of_all_tables_are_well_formed(catalogue):
    for entry in catalogue.conditions:
        for code in entry.codes:
            assert icd.normalise(code.code, "icd10cm") == code.code
        for drug in entry.drugs:
            assert re.fullmatch(r"[A-Z]\d\d[A-Z]{1,2}(\d\d)?", drug.atc)
    for tests in catalogue.labs.values():
        assert all(re.fullmatch(r"\d+-\d", test.loinc) for test in tests)


def test_codes_and_titles_are_those_of_the_official_file(catalogue, shared_data):
    official = icd.read_descriptions(shared_data / "code_tables" / "icd10cm-order-Jan-2021.csv.gz")
    for entry in catalogue.conditions:
        for code in entry.codes:
            billable, _, title = official[code.code]
            assert billable, code.code
            assert code.title == title


def test_every_condition_has_four_ways_of_being_mentioned():
    kinds = {}
    for row in rows("mentions"):
        kinds.setdefault(row["condition"], set()).add(row["kind"])
    assert len(kinds) >= 120
    for condition, found in kinds.items():
        assert set(KINDS) <= found, condition


def test_the_texts_of_a_code_tell_it_from_its_siblings(catalogue):
    several = 0
    for entry in catalogue.conditions:
        texts = [set(code.wordings.texts) for code in entry.codes]
        assert all(texts)
        assert sum(map(len, texts)) == len(set().union(*texts)), entry.key
        several += len(texts) > 1
    assert several >= 30


def test_flags_follow_from_the_reference_range(catalogue):
    flags = {
        (entry.key, sign.lab): sign.flag
        for entry in catalogue.conditions
        for sign in entry.signatures
    }
    assert flags["hypokalaemia", "potassium"] == "L"
    assert flags["hyperkalaemia", "potassium"] == "H"
    assert flags["influenza", "influenza_rna"] == "A"


def test_what_may_show_outside_the_notes_alone_has_a_sign_of_its_own(catalogue):
    users = {}
    for entry in catalogue.conditions:
        for drug in entry.drugs:
            users.setdefault(drug.atc, set()).add(entry.key)
        for sign in entry.signatures:
            users.setdefault((sign.lab, sign.flag), set()).add(entry.key)
    hidden = [entry for entry in catalogue.conditions if entry.shows_in]
    assert {entry.shows_in for entry in hidden} == {"medications", "labs"}
    for entry in hidden:
        if entry.shows_in == "medications":
            own = [drug for drug in entry.drugs if users[drug.atc] == {entry.key}]
            assert own and not {drug.atc for drug in own} & {
                drug.atc for drug in catalogue.background
            }
        else:
            assert any(users[sign.lab, sign.flag] == {entry.key} for sign in entry.signatures)


def test_sentences_without_a_mention_speak_of_no_condition(catalogue):
    texts = {
        text
        for entry in catalogue.conditions
        for code in entry.codes
        for one in (*code.wordings.texts, *entry.absent.texts)
        for text in (one, one[0].upper() + one[1:])
    }
    for (slot, _, _), phrases in catalogue.phrases.items():
        for phrase in phrases:
            words = re.sub(r"\{\w+\}", "", phrase.before + (phrase.after or ""))
            found = [
                text
                for text in texts
                if text in words and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", words)
            ]
            assert not found, (slot, found)


def test_odds_work_both_ways(catalogue):
    for entry in catalogue.conditions:
        for number, factor in entry.odds.items():
            assert catalogue.conditions[number].odds[entry.number] == factor


def test_a_copy_can_be_read_and_changed(catalogue, copy):
    folder, change = copy
    assert Catalogue(folder).fingerprint == catalogue.fingerprint
    change("conditions", "primary", "99", condition="gout")
    changed = Catalogue(folder)
    assert next(one for one in changed.conditions if one.key == "gout").primary == 99
    assert changed.fingerprint != catalogue.fingerprint


@pytest.mark.parametrize(
    ("table", "column", "value", "where"),
    [
        ("conditions", "course", "lasting", {"condition": "gout"}),
        ("conditions", "coded", "1.5", {"condition": "gout"}),
        ("conditions", "sex", "X", {"condition": "gout"}),
        ("conditions", "age_peak", "99", {"condition": "gout"}),
        ("conditions", "specialties", "", {"condition": "gout"}),
        ("conditions", "specialties", "alchemy", {"condition": "gout"}),
        ("conditions", "contexts", "rumoured", {"condition": "gout"}),
        ("conditions", "shows_in", "labs", {"condition": "pneumonia"}),
        ("conditions", "primary", "many", {"condition": "gout"}),
        ("codes", "code", "M109", {"condition": "gout"}),
        ("codes", "code", "I10", {"condition": "gout"}),
        ("codes", "condition", "nobody", {"condition": "gout"}),
        ("codes", "share", "0", {"condition": "gout"}),
        ("mentions", "kind", "slang", {"condition": "gout"}),
        ("mentions", "code", "I10", {"condition": "gout"}),
        ("mentions", "text", "hypertension", {"condition": "gout"}),
        ("medications", "atc", "12345", {"condition": "gout"}),
        ("medications", "share", "2", {"condition": "gout"}),
        ("labs", "loinc", "2823-4", {"lab": "potassium"}),  # not its check digit
        ("labs", "low", "9", {"lab": "potassium"}),
        ("signatures", "lab", "phlogiston", {"condition": "gout"}),
        ("signatures", "low", "0.4", {"condition": "gout"}),  # within the range of men
        ("signatures", "value", "positive", {"condition": "gout"}),
        ("companions", "raised_by", "nobody", {"condition": "gout"}),
        ("phrases", "text", "No mention here.", {"slot": "negated"}),
        ("phrases", "text", "Seen on {weekday}.", {"slot": "filler"}),
        ("specialties", "days", "0", {"specialty": "cardiology"}),
    ],
)
def test_a_wrong_cell_is_named_by_file_row_and_column(copy, table, column, value, where):
    folder, change = copy
    row = change(table, column, value, **where)
    with pytest.raises(UserError) as raised:
        Catalogue(folder)
    message = str(raised.value)
    assert "\n" not in message
    assert f"{table}.csv, row {row}, column" in message, message
    assert "expected" in message


def test_a_missing_kind_of_mention_is_an_error(copy):
    folder, _ = copy
    path = folder / "mentions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("gout,,lay")))
    with pytest.raises(UserError, match=r"conditions.csv, row \d+, .*gout.*'lay'"):
        Catalogue(folder)


def test_missing_files_and_columns_are_named(copy):
    folder, _ = copy
    for table, columns in COLUMNS.items():
        path = folder / f"{table}.csv"
        text = path.read_text()
        path.unlink()
        with pytest.raises(UserError, match=f"{table}.csv: not found"):
            Catalogue(folder)
        first = columns.split()[0]
        path.write_text(text.replace(first, "other", 1))
        with pytest.raises(UserError, match=f"{table}.csv: column '{first}' is missing"):
            Catalogue(folder)
        path.write_text(text)
    (folder / "codes.csv").write_text(text := "condition,code,title,share,role\ngout,M10.9\n")
    with pytest.raises(UserError, match="codes.csv, row 2: 2 cells: expected 5"):
        Catalogue(folder)
    (folder / "codes.csv").write_text(text.splitlines()[0])
    with pytest.raises(UserError, match="codes.csv: has no rows"):
        Catalogue(folder)
