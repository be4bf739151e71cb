"""The page in a browser: its table is searched, sorted and turned over, and nothing is fetched."""

import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from jaxcoder import cli

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@pytest.fixture(scope="module")
def browser():
    """A browser of this machine: none is downloaded."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not path:
        pytest.skip(f"none of {', '.join(BROWSERS)} on PATH: the page is not opened")
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=[*FLAGS])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(finished, tmp_path_factory):
    """Where the page lies."""
    folder = tmp_path_factory.mktemp("browser")
    cli.main(["report", "--workdir", str(finished), "--output", str(folder), "--no_evaluate"])
    return (folder / "index.html").as_uri()


@pytest.fixture
def page(browser, address):
    """The page, opened; afterwards nothing was fetched, and nothing complained of."""
    fetched, complaints = [], []
    opened = browser.new_page(viewport={"width": 390, "height": 844})
    opened.on("request", lambda request: fetched.append(request.url))
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(address)
    yield opened
    opened.close()
    assert [url for url in fetched if not url.startswith("data:")] == [address]
    assert complaints == []


def column(page, place):
    cells = page.locator("#codes tbody tr").locator("td, th")
    width = page.locator("#codes thead th").count()
    return cells.all_text_contents()[place::width]


def test_the_codes_are_searched_sorted_and_turned_over(page):
    status = page.locator("#codes .status")
    assert status.text_content() == "1–25 of 30"
    given = [int(each) for each in column(page, 3)]
    assert given == sorted(given, reverse=True), "the most frequent first"

    page.get_by_role("button", name="Next").click()
    assert status.text_content() == "26–30 of 30"
    assert len(column(page, 0)) == 5
    assert page.get_by_role("button", name="Next").is_disabled()

    head = page.locator("#codes th", has=page.get_by_role("button", name="F1", exact=True))
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("[aria-sort]").count() == 1
    falling = [float(each) for each in column(page, 8)]
    assert falling == sorted(falling, reverse=True) and len(falling) == 25
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"

    page.get_by_role("button", name="code", exact=True).click()
    assert column(page, 0) == sorted(column(page, 0))

    page.get_by_label("Search").fill("FINDING j10")
    expect(status).to_have_text("1–5 of 5, out of 30")
    assert all(code.startswith("J10") for code in column(page, 0))
    page.get_by_label("Search").fill("nothing of the kind")
    expect(status).to_have_text("none of 30")
    assert column(page, 0) == []


def test_a_phone_scrolls_tables_and_not_the_page(page):
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == 390
    assert page.locator("#codes .scroll").evaluate("each => each.scrollWidth > each.clientWidth")
