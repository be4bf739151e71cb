import os
import pathlib

import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.codes import roll_up
from jaxcoder.records.schema import Code, Evidence
from jaxcoder.records.sources import open_source

TEXT = "Paciente con dolor torácico.\r\nDiabetes; y, además, tos seca."


@pytest.fixture
def archive(tmp_path):
    """Two training documents, one of dev, one without codes, in the layout of the archive."""
    documents = {
        "train": {"B": "Nada.", "A": TEXT},
        "dev": {"C": "Tos."},
        "background": {"D": "Fiebre."},
    }
    for folder, texts in documents.items():
        for language in ("text_files", "text_files_en"):
            (tmp_path / folder / language).mkdir(parents=True)
            for name, text in texts.items():
                (tmp_path / folder / language / f"{name}.txt").write_bytes(text.encode())
    start = TEXT.index("Diabetes")
    cough = TEXT.index("tos"), TEXT.index("seca")
    (tmp_path / "train/trainD.tsv").write_text("A\tr07.9\nA\te11.9\nA\tr05\nA\tbad\n")
    (tmp_path / "train/trainP.tsv").write_text("A\tbw03zzz\n")
    (tmp_path / "train/trainX.tsv").write_text(
        f"A\tDIAGNOSTICO\te11.9\tDiabetes\t{start} {start + 8}\n"
        f"A\tDIAGNOSTICO\tr05\ttos seca\t{cough[0]} {cough[0] + 3};{cough[1]} {cough[1] + 4}\n"
        f"A\tPROCEDIMIENTO\tbw03zzz\tdolor\t13 18\n"
        f"A\tDIAGNOSTICO\tr07.9\tdolor torácic\t13 27\n"
        f"A\tDIAGNOSTICO\tr07.9\tdolor\t13 18;18 18\n"
        f"A\tDIAGNOSTICO\tj45\tasma\t1 3\n"
        f"A\tDIAGNOSTICO\tr07.9\tx\t400 410\n"
    )
    (tmp_path / "dev/devD.tsv").write_text("C\tr05\n")
    (tmp_path / "dev/devP.tsv").write_text("")
    (tmp_path / "dev/devX.tsv").write_text("C\tDIAGNOSTICO\tr05\tTos\t0 3\n")
    return tmp_path


def test_documents_become_contacts_in_the_order_of_their_names(archive):
    source = open_source("codiesp", archive, {"language": "es", "codes": "D"})
    assert source.name == "codiesp_es_D"
    assert source.splits == ("train", "validation", "background")
    first, second = source.contacts("train")
    assert (first.contact_id, second.contact_id) == ("A", "B")
    assert first.notes[0].text == TEXT  # \r\n kept: offsets count it
    assert first.codes == tuple(Code(code, "icd10cm") for code in ("R07.9", "E11.9", "R05"))
    assert second.codes == ()
    # What CodiEsp does not say is not invented.
    assert (first.sex, first.age, first.specialty, first.start) == ("U", None, "", "")
    assert {code.role for code in first.codes} == {"unknown"}
    assert not first.medications and not first.labs


def test_evidence_is_what_the_mention_says(archive):
    source = open_source("codiesp", archive, {})
    contact = next(source.contacts("train"))
    pieces: dict[tuple[str, int], list[str]] = {}
    for row in contact.evidence:
        text = contact.notes[row.note].text[row.start : row.end]
        pieces.setdefault((row.code, row.mention), []).append(text)
    assert pieces["E11.9", 0] == ["Diabetes"]
    assert pieces["R05", 1] == ["tos", "seca"]  # two pieces of one mention


def test_annotations_that_do_not_fit_are_counted(archive):
    source = open_source("codiesp", archive, {})
    list(source.contacts("train"))
    assert source.dropped("train") == {
        "codes: malformed icd10cm code": 1,
        "evidence: text at the offsets is not the mention's (kept)": 3,
        "evidence: empty piece": 1,
        "evidence: offsets outside the text": 1,
        "evidence: the document does not have the code": 1,
    }
    # `bad` looks like no code: it may be a name.
    assert source.dropped("train").failed_codes == {"icd10cm (not shown)": 1}


def test_procedures_and_english(archive):
    contact = next(open_source("codiesp", archive, {"codes": "P"}).contacts("train"))
    assert contact.codes == (Code("BW03ZZZ", "icd10pcs"),)
    assert contact.evidence == (Evidence("BW03ZZZ", 0, 13, 18),)
    english = next(open_source("codiesp", archive, {"language": "en"}).contacts("train"))
    assert english.evidence == ()  # offsets are into the Spanish text
    assert len(english.codes) == 3


def test_the_test_split_is_read_where_it_is_there(archive):
    (archive / "dev").rename(archive / "test")
    for kind in "DPX":
        (archive / f"test/dev{kind}.tsv").rename(archive / f"test/test{kind}.tsv")
    with pytest.raises(UserError, match="no folder dev/text_files"):
        open_source("codiesp", archive, {})
    (archive / "dev").mkdir()
    (archive / "dev/text_files").mkdir()
    source = open_source("codiesp", archive, {})
    assert source.splits == ("train", "validation", "test", "background")
    assert [contact.contact_id for contact in source.contacts("test")] == ["C"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train/trainD.tsv", "A\n", r"trainD.tsv, row 1: 1 columns; expected 2"),
        ("train/trainD.tsv", "Z\tr05\n", r"trainD.tsv, row 1: document 'Z' has no text file"),
        ("train/trainX.tsv", "A\tOTRO\tr05\tx\t1 2\n", r"trainX.tsv, row 1: kind 'OTRO'"),
        ("train/trainX.tsv", "A\tDIAGNOSTICO\tr05\tx\t1-2\n", r"row 1: offsets '1-2'"),
        ("train/text_files/A.txt", "  \n", r"A.txt: empty text"),
    ],
)
def test_broken_files_are_named(archive, file, content, message):
    (archive / file).write_text(content)
    with pytest.raises(UserError, match=message):
        list(open_source("codiesp", archive, {}).contacts("train"))


def test_wrong_options_and_folders_are_named(archive, tmp_path):
    with pytest.raises(UserError, match="codiesp: language = 'de': expected es or en"):
        open_source("codiesp", archive, {"language": "de"})
    with pytest.raises(UserError, match="codiesp.langage: unknown key; did you mean 'language'"):
        open_source("codiesp", archive, {"langage": "es"})
    with pytest.raises(UserError, match="no such folder"):
        open_source("codiesp", tmp_path / "none", {})
    with pytest.raises(UserError, match="needs --source_dir"):
        open_source("codiesp", None, {})
    with pytest.raises(UserError, match="unknown source; expected one of codiesp"):
        open_source("codesp", archive, {})


def test_identity_follows_options_and_files(archive):
    identity = open_source("codiesp", archive, {}).identity
    assert identity == open_source("codiesp", archive, {"language": "es"}).identity
    assert identity != open_source("codiesp", archive, {"codes": "P"}).identity
    (archive / "train/trainD.tsv").write_text("A\tr05\n")
    assert identity != open_source("codiesp", archive, {}).identity


@pytest.mark.shared_data
@pytest.mark.skipif(
    "JAXCODER_SHARED_DATA" not in os.environ, reason="JAXCODER_SHARED_DATA is not set"
)
@pytest.mark.parametrize(
    ("language", "codes", "train", "validation"),
    [
        ("es", "D", (500, 5639, 1767, 7209), (250, 2677, 1158, 3431)),
        ("en", "D", (500, 5639, 1767, 0), (250, 2677, 1158, 0)),
        ("es", "P", (500, 1550, 563, 1972), (250, 817, 375, 1046)),
    ],
)
def test_published_counts(language, codes, train, validation):
    folder = pathlib.Path(os.environ["JAXCODER_SHARED_DATA"])
    source = open_source(
        "codiesp",
        folder / "codiesp/final_dataset_v4_to_publish",
        {"language": language, "codes": codes},
    )
    known = set()
    for split, expected in (("train", train), ("validation", validation)):
        contacts = list(source.contacts(split))
        found = [code.code for contact in contacts for code in contact.codes]
        mentions = {
            (contact.contact_id, row.mention) for contact in contacts for row in contact.evidence
        }
        assert (len(contacts), len(found), len(set(found)), len(mentions)) == expected
        if split == "train":
            known = set(found)
    if codes == "D":
        unseen = sum(code not in known for code in found) / len(found)
        assert round(unseen, 3) == 0.178
        assert {len(roll_up(code, "category")) for code in known} == {3}
    background = list(source.contacts("background"))
    assert len(background) == 2751
    assert not any(contact.codes for contact in background)
