import duckdb

from jaxcoder.records.sources.columns import literal
from jaxcoder.records.sources.prefixes import has, rest, system_of

CODES = ["A", "A//b", "A//b//c", "AB//c", "V/1", "V//2", "W", "it's//x"]


def of(sql):
    """What SQL gives of each code."""
    values = ", ".join(f"({literal(code)})" for code in CODES)
    rows = duckdb.sql(f"SELECT code, {sql} FROM (VALUES {values}) AS t(code)").fetchall()
    return {code: value for code, value in rows if value not in (None, False)}


def test_a_prefix_is_whole_parts_of_a_code_or_a_beginning_that_ends_in_a_slash():
    assert list(of(has(["A"]))) == ["A", "A//b", "A//b//c"]
    assert list(of(has(["V/", "it's"]))) == ["V/1", "V//2", "it's//x"]
    assert of(has([])) == {}


def test_the_longest_prefix_says_what_the_rest_and_the_system_are():
    assert of(rest(["A", "A//b", "V/"])) == {
        "A": "",
        "A//b": "",
        "A//b//c": "c",
        "V/1": "1",
        "V//2": "/2",
    }
    assert of(rest([])) == {}
    assert of(system_of({"A": "x", "A//b": "y", "it's": "z"})) == {
        "A": "x",
        "A//b": "y",
        "A//b//c": "y",
        "it's//x": "z",
    }
