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
