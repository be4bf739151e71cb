import collections
import datetime
import itertools
import re

import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.sources import open_source
from jaxcoder.records.sources.synthetic.ceiling import Ceiling
from jaxcoder.records.split import split_of

PATIENTS = 700


def cohort(**options):
    return open_source("synthetic", None, options)


def contacts_of(source):
    return [contact for split in source.splits for contact in source.contacts(split)]


@pytest.fixture(scope="module")
def source():
    return cohort(patients=PATIENTS)


@pytest.fixture(scope="module")
def contacts(source):
    return contacts_of(source)


@pytest.fixture(scope="module")
def owners(source):
    """From a code to its condition."""
    return {code.code: entry for entry in source.catalogue.conditions for code in entry.codes}


@pytest.fixture(scope="module")
def texts(source):
    """From a code to all texts that mention it, as they are and with a capital letter."""
    return {
        code.code: {text for one in code.wordings.texts for text in (one, one[0].upper() + one[1:])}
        for entry in source.catalogue.conditions
        for code in entry.codes
    }


def mentioned(contact, texts):
    """Whether one of the texts stands in a note, as whole words."""
    notes = "\n".join(note.text for note in contact.notes)
    return any(
        text in notes and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", notes) for text in texts
    )


def test_the_same_seed_gives_the_same_cohort(contacts):
    assert contacts_of(cohort(patients=PATIENTS)) == contacts


def test_another_seed_gives_another_cohort_and_split(contacts):
    other = contacts_of(cohort(patients=PATIENTS, seed=1))
    by_id = {contact.contact_id: contact for contact in other}
    assert not any(by_id.get(contact.contact_id) == contact for contact in contacts)


def test_a_patient_does_not_depend_on_the_others(contacts):
    few = contacts_of(cohort(patients=50))
    ids = {contact.contact_id for contact in few}
    assert sorted(few, key=lambda one: one.contact_id) == sorted(
        (one for one in contacts if one.contact_id in ids), key=lambda one: one.contact_id
    )
    assert {one.patient_id for one in few} == set(sorted({c.patient_id for c in contacts})[:50])


def test_parts_of_a_cohort_make_the_whole(contacts):
    parts = [cohort(patients=200, first=0), cohort(patients=PATIENTS - 200, first=200)]
    for split in parts[0].splits:
        whole = [one for one in contacts if split_of(one.patient_id) == split]
        assert [one for part in parts for one in part.contacts(split)] == whole


def test_splits_are_by_patient_and_in_the_order_of_ids(source):
    for split in source.splits:
        ids = [(one.patient_id, one.contact_id) for one in source.contacts(split)]
        assert ids == sorted(ids, key=lambda pair: pair[1])
        assert {split_of(patient) for patient, _ in ids} == {split}
    shares = collections.Counter(split_of(f"P{number:09d}") for number in range(PATIENTS))
    assert shares["train"] > 0.7 * PATIENTS


def test_codes_are_the_coded_conditions_and_the_first_is_primary(contacts):
    for contact in contacts:
        codes = [code.code for code in contact.codes]
        assert codes == [one.code for one in contact.conditions if one.coded]
        assert [code.rank for code in contact.codes] == list(range(1, len(codes) + 1))
        roles = [code.role for code in contact.codes]
        assert roles == ["primary"] + ["secondary"] * (len(codes) - 1)
        assert contact.conditions[0].probability == 1.0
        assert len(set(codes)) == len(codes)


def test_secondary_conditions_are_coded_as_often_as_the_table_says(contacts, owners):
    expected, coded = 0.0, 0
    for contact in contacts:
        for one in contact.conditions[1:]:
            assert one.probability == owners[one.code].coded
            expected += one.probability
            coded += one.coded
    assert coded == pytest.approx(expected, rel=0.06)


def test_every_present_condition_can_be_seen(source, contacts, owners, texts):
    loinc = {key: tests[0].loinc for key, tests in source.catalogue.labs.items()}
    hidden = collections.Counter()
    for contact in contacts:
        given = {medication.code for medication in contact.medications}
        flags = {(lab.code, lab.flag) for lab in contact.labs}
        for one in contact.conditions:
            if mentioned(contact, texts[one.code]):
                hidden["notes"] += 1
                continue
            entry = owners[one.code]
            assert one is not contact.conditions[0], "the main condition is in the notes"
            hidden[entry.shows_in] += 1
            if entry.shows_in == "medications":
                assert given & {drug.atc for drug in entry.drugs if drug.specific}
            else:
                assert entry.shows_in == "labs"
                signs = {(loinc[sign.lab], sign.flag) for sign in entry.signatures if sign.specific}
                assert flags & signs
    assert hidden["medications"] > 0.02 * hidden.total()
    assert hidden["labs"] > 0.01 * hidden.total()


def test_nothing_is_hidden_when_so_asked(texts):
    for contact in contacts_of(cohort(patients=60, hidden=0.0)):
        assert all(mentioned(contact, texts[one.code]) for one in contact.conditions)


def test_evidence_is_a_mention_of_a_coded_condition(contacts, texts):
    coded, with_evidence = 0, 0
    for contact in contacts:
        codes = {code.code for code in contact.codes}
        places = [(row.note, row.start) for row in contact.evidence]
        assert places == sorted(places)
        for row in contact.evidence:
            assert row.code in codes
            assert contact.notes[row.note].text[row.start : row.end] in texts[row.code]
        assert [row.mention for row in contact.evidence] == list(range(len(contact.evidence)))
        coded += len(codes)
        with_evidence += len({row.code for row in contact.evidence})
    assert with_evidence > 0.8 * coded


def test_distractors_are_there_and_are_not_coded(source, texts):
    """A distractor must not be of a condition that is present, nor of one of its family."""
    writer, seen = source._writer, []
    plain = writer._absent

    def watched(dice, visit):
        chosen = plain(dice, visit)
        present = {one.condition for one in visit.present}
        families = {one.family for one in present if one.family}
        for context, condition in chosen:
            assert context in condition.contexts
            assert condition not in present
            assert condition.family not in families
        seen.append([context for context, _ in chosen])
        return chosen

    writer._absent = watched
    try:
        made = list(itertools.islice(source.contacts("train"), 400))
    finally:
        del writer._absent
    counts = collections.Counter(itertools.chain(*seen))
    assert set(counts) == {"negated", "family", "past", "suspected"}
    assert min(counts.values()) > 0.1 * len(made)
    # Most of what they say is nowhere in the codes of the contact.
    assert any("The mother had" in note.text for contact in made for note in contact.notes)


def test_no_distractors_when_so_asked():
    for contact in contacts_of(cohort(patients=30, distractors=0.0)):
        assert not any("The mother had" in note.text for note in contact.notes)


def test_chronic_conditions_carry_over(contacts, owners):
    """A chronic condition stays, unless its family or age takes it away, with the same code."""
    kept = 0
    for _, group in itertools.groupby(contacts, key=lambda one: one.patient_id):
        course = list(group)
        for before, after in itertools.pairwise(course):
            assert after.start > before.end or after.start == before.end
            now = {owners[one.code]: one.code for one in after.conditions}
            families = {entry.family for entry in now if entry.family}
            for one in before.conditions:
                entry = owners[one.code]
                if not entry.chronic or not entry.suits(after.sex, after.age):
                    continue
                if entry.family in families and entry not in now:
                    continue
                assert entry in now, entry.key
                kept += 1
                if not any(code.role for code in entry.codes):
                    assert now[entry] == one.code
    assert kept > 300


def test_a_code_for_one_role_has_that_role(contacts, owners):
    roles = {code.code: code.role for entry in owners.values() for code in entry.codes}
    for contact in contacts:
        for number, one in enumerate(contact.conditions):
            assert roles[one.code] in ("", "secondary" if number else "primary")


def test_sex_age_and_family_are_respected(contacts, owners):
    for contact in contacts:
        entries = [owners[one.code] for one in contact.conditions]
        assert all(entry.suits(contact.sex, contact.age) for entry in entries)
        families = [entry.family for entry in entries if entry.family]
        assert len(set(families)) == len(families)
        assert contact.specialty in {one.name for one in entries[0].specialties}


def test_newborns_are_newborn(contacts, owners):
    newborn = [one for one in contacts if owners[one.conditions[0].code].age_high == 0]
    assert newborn
    assert all(one.age * 365.25 <= 28 for one in newborn)


def test_times_are_in_order_and_within_the_contact(contacts):
    for contact in contacts:
        assert contact.start < contact.end
        for rows in (contact.notes, contact.medications, contact.labs):
            times = [row.time for row in rows]
            assert times == sorted(times)
            assert all(contact.start <= time <= contact.end for time in times)


def test_flags_agree_with_values(contacts):
    for contact in contacts:
        assert len({(lab.code, lab.name) for lab in contact.labs}) == len(contact.labs)
        for lab in contact.labs:
            if lab.low is None or lab.high is None:
                assert (lab.flag == "A") == (lab.value in ("detected", "positive"))
                continue
            value = float(lab.value)
            assert lab.flag == ("L" if value < lab.low else "H" if value > lab.high else "")


def test_words_follow_the_option():
    for words in (120, 400):
        made = contacts_of(cohort(patients=80, note_words=words))
        mean = sum(len(note.text.split()) for one in made for note in one.notes) / len(made)
        assert mean == pytest.approx(words, rel=0.15)


def test_contacts_per_patient_follow_the_option():
    made = contacts_of(cohort(patients=400, contacts_per_patient=4.0))
    assert len(made) / 400 == pytest.approx(4.0, rel=0.15)
    assert len(contacts_of(cohort(patients=20, contacts_per_patient=1.0))) == 20


def test_the_ceiling_leaves_something_to_learn_and_something_to_miss(contacts):
    ceiling = Ceiling()
    for contact in contacts:
        ceiling.add(contact)
    assert 0.85 < ceiling.micro_f1() < 0.92


def test_a_wide_range_of_codes_and_specialties_occurs(contacts):
    assert len({code.code for contact in contacts for code in contact.codes}) > 200
    assert len({contact.specialty for contact in contacts}) >= 20


def test_kinds_of_contacts_fit_their_length(contacts):
    days = collections.defaultdict(list)
    for contact in contacts:
        start, end = map(datetime.datetime.fromisoformat, (contact.start, contact.end))
        days[contact.kind].append((end - start).total_seconds() / 86400)
    assert days.keys() == {"inpatient", "outpatient", "emergency"}
    assert min(days["inpatient"]) > 0.2 > max(days["outpatient"] + days["emergency"])
    assert min(map(len, days.values())) > 0.05 * len(contacts)


def test_every_code_has_a_description(source, contacts):
    codes = {code.code for contact in contacts for code in contact.codes}
    assert codes <= source.descriptions.keys()
    assert source.descriptions["I50.22"] == "Chronic systolic (congestive) heart failure"


def test_the_name_and_identity_say_what_it_is(source):
    assert source.name == "synthetic"
    assert cohort(name="small").name == "small"
    assert source.identity["options"]["patients"] == PATIENTS
    assert source.identity != cohort(patients=PATIENTS, seed=1).identity
    assert source.dropped("train") == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("patients", "0"),
        ("hidden", "2"),
        ("contacts_per_patient", "0.5"),
        ("note_words", "1"),
        ("patients", "many"),
        ("people", "5"),
        ("name", "a b"),
    ],
)
def test_wrong_options_are_one_line(key, value):
    with pytest.raises(UserError, match=key) as raised:
        cohort(**{key: value})
    assert "\n" not in str(raised.value)
