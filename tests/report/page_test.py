"""The page: one file, whatever stands in a name."""

import json
import re

from jaxcoder.report.page import (
    Absent,
    Beside,
    Folded,
    Listing,
    Section,
    Table,
    Tile,
    Words,
    render,
)

EVIL = '</script><img src=x onerror="alert(1)">&'


def page(*parts):
    return render(EVIL, EVIL, [Tile(EVIL, EVIL, EVIL)], [Section("one", EVIL, EVIL, parts)])


def test_nothing_in_a_name_becomes_markup():
    table = Table(EVIL, (EVIL, "b"), [(EVIL, EVIL)])
    listing = Listing(EVIL, [("code", EVIL, "text")], {"code": [EVIL]}, EVIL)
    parts = (table, listing, Words(EVIL), Absent(EVIL, EVIL, EVIL), Folded(EVIL, EVIL))
    html = page(*parts, Beside([table, Words(EVIL)]))
    assert "<img" not in html
    assert html.count("</script>") == 2, "that of the data and that of the script"


def test_a_listing_comes_back_as_it_was():
    values = {"code": ["A00", EVIL], "f1": [0.5, None]}
    columns = [("code", "code", "text"), ("f1", "F1", "percent")]
    html = page(Listing("codes", columns, values, "codes.csv"))
    inside = re.search(r'<script type="application/json" id="listing-one">(.*?)</script>', html)[1]
    content = json.loads(inside)
    assert content["values"] == values
    assert [column["kind"] for column in content["columns"]] == ["text", "percent"]


def test_a_cell_of_text_stands_left_and_a_number_right():
    html = page(Table("t", ("name", "n", "note"), [("a", "1", "x")], texts=("note",)))
    assert '<th scope="row">a</th><td>1</td><td class="text">x</td>' in html
    assert '<th scope="col" class="text">name</th><th scope="col">n</th>' in html


def test_folded_tables_open_when_asked():
    html = page(Table("t", ("name",), [("a",)], folded=True))
    assert "<details>\n<summary>t</summary>" in html
