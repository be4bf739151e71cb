import json
import pickle

from jaxcoder.records.findings import Findings, as_json, shown


def test_the_first_example_of_a_reason_is_kept():
    findings = Findings()
    findings.add("a reason", "02")
    findings.add("a reason", "01", 3)
    findings.add("another", None, 2)
    findings.add("none", "03", 0)
    assert findings == {"a reason": 4, "another": 2}
    assert findings.examples == {"a reason": "'02'"}
    assert as_json(findings) == {
        "dropped": {"a reason": 4, "another": 2},
        "examples": {"a reason": "'02'"},
    }
    assert as_json({"b": 1, "a": 2}) == {"dropped": {"a": 2, "b": 1}}


def test_text_where_an_id_should_be_is_not_shown():
    assert shown("1.0") == "'1.0'"
    assert shown("ab" * 32) == repr("ab" * 32)
    assert shown("a note") == shown("a" * 65) == shown("") == "(not shown)"


def halves():
    first, second = Findings(), Findings()
    first.add("a reason", "02")
    first.add_failed_code("icd10", "K", "02")
    first.add_failed_code("icd10", "DX1", "02")
    second.add("another", "03", 2)
    second.add("a reason", "01", 3)
    second.add_failed_code("icd10", "DX1", "04")
    return first, second


def test_merging_counts_what_one_pass_counts():
    whole, (first, second) = Findings(), halves()
    whole.add("a reason", "02")
    whole.add_failed_code("icd10", "K", "02")
    whole.add_failed_code("icd10", "DX1", "02")
    whole.add("another", "03", 2)
    whole.add("a reason", "01", 3)
    whole.add_failed_code("icd10", "DX1", "04")
    first.merge(second)
    assert first == whole and as_json(first) == as_json(whole)
    assert as_json(first) == {
        "dropped": {"a reason": 4, "another": 2, "codes: malformed icd10 code": 3},
        "examples": {
            "a reason": "'02'",
            "another": "'03'",
            "codes: malformed icd10 code": "'02'",
        },
        "failed_codes": {"icd10 DX1": 2, "icd10 (not shown)": 1},
        "failed_codes_beyond": 0,
    }
    assert list(as_json(first)["failed_codes"]) == ["icd10 DX1", "icd10 (not shown)"]
    assert as_json(second)["examples"]["a reason"] == "'01'"  # what is merged stays as it is


def test_another_process_may_send_them():
    for each in halves():
        there = Findings.from_state(json.loads(json.dumps(each.state())))
        assert as_json(there) == as_json(each) and there == each
        assert as_json(pickle.loads(pickle.dumps(each))) == as_json(each)


def test_the_report_has_the_most_frequent_failed_codes_and_memory_has_an_end(monkeypatch):
    found = Findings()
    for number in range(1_200):
        for _ in range(2 if number >= 1_100 else 1):
            found.add_failed_code("sks", f"A{number:04d}", "c")
    content = as_json(found)
    assert len(content["failed_codes"]) == 1_000 and content["failed_codes_beyond"] == 200
    assert list(content["failed_codes"])[:2] == ["sks A1100", "sks A1101"]
    assert list(content["failed_codes"].values()) == [2] * 100 + [1] * 900
    monkeypatch.setattr("jaxcoder.records.findings._COUNTED", 2)
    few, more = Findings(), Findings()
    for code in ("A01", "B02", "C03", "A01", "D04"):
        few.add_failed_code("sks", code, "c")
    assert few.failed_codes == {"sks A01": 2, "sks B02": 1, "sks (not shown)": 2}
    for code in ("E05", "B02"):
        more.add_failed_code("sks", code, "c")
    few.merge(more)
    assert few.failed_codes == {"sks A01": 2, "sks B02": 2, "sks (not shown)": 3}
    assert few == {"codes: malformed sks code": 7}
