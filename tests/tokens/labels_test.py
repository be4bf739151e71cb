import numpy as np
import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Code, Contact
from jaxcoder.tokens.labels import LabelOptions, gold, make_label_space


def contact(*codes):
    return Contact("c1", "p", codes=tuple(Code(code, "icd10", role) for code, role in codes))


CONTACTS = [
    contact(("E11.9", "primary"), ("E11.65", "secondary"), ("I10", "secondary")),
    contact(("I10", "unknown"), ("I10", "primary")),
    contact(("J45.9", "secondary")),
]


def test_a_code_counts_once_a_contact():
    space = make_label_space(CONTACTS, LabelOptions(min_count=2), {"I10": "High blood pressure"})
    assert space.codes == ("I10",)
    assert space.descriptions == ("High blood pressure",)
    rolled = make_label_space(CONTACTS, LabelOptions(granularity="category"), {})
    assert rolled.codes == ("E11", "I10", "J45")


def test_gold_codes_collapse_under_roll_up_with_the_weightiest_role():
    found = gold(CONTACTS[0], LabelSpace(("E11", "J45"), granularity="category"))
    assert found.labels.tolist() == [0] and found.labels.dtype == np.int32
    assert found.roles.tolist() == [1] and found.roles.dtype == np.uint8
    assert found.missing == ("I10",)
    assert gold(CONTACTS[1], LabelSpace(("I10",))).roles.tolist() == [1]


def test_labels_rise_and_roles_go_with_them():
    found = gold(CONTACTS[0], LabelSpace(("E11.65", "E11.9", "I10")))
    assert found.labels.tolist() == [0, 1, 2] and found.roles.tolist() == [2, 1, 2]


def test_extra_codes_need_no_training_contact(tmp_path):
    path = tmp_path / "codes.txt"
    path.write_text("K35.80\n\nI10\n")
    options = LabelOptions(min_count=2, granularity="category", extra=str(path))
    assert make_label_space(CONTACTS, options, {}).codes == ("I10", "K35")
    with pytest.raises(UserError, match=r"labels.extra = .*none.txt: not found"):
        make_label_space(CONTACTS, LabelOptions(extra=str(tmp_path / "none.txt")), {})
    for wrong in ("k35.80", "K3580", "# appendicitis"):
        path.write_text(f"I10\n{wrong}\n")
        with pytest.raises(UserError, match=rf"codes.txt, line 2: '{wrong}' is no code"):
            make_label_space(CONTACTS, LabelOptions(extra=str(path)), {})


def test_mistakes_are_said():
    with pytest.raises(UserError, match="min_count = 9: leaves no code.* 4 codes.* in 2 contacts"):
        make_label_space(CONTACTS, LabelOptions(min_count=9), {})
    with pytest.raises(UserError, match="training split has no codes to learn from"):
        make_label_space([contact()], LabelOptions(), {})
    with pytest.raises(UserError, match=r"contact c1: .*another config.tokens.labels.granularity"):
        make_label_space([contact(("?", "primary"))], LabelOptions(granularity="chapter"), {})
    with pytest.raises(ValueError, match="granularity = 'block'"):
        LabelOptions(granularity="block")
