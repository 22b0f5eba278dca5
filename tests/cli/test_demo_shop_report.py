"""The report of the shop's demo: what rows come to, the charts, and the page as a browser shows it."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli.shopdemo.charts import WIDTH, Chart, Limit, Mark, Scale, areas, lines, ticks
from pilothouse.cli.shopdemo.figures import Harm, failures_of, harm_of, per_second, windows
from pilothouse.cli.shopdemo.records import Row, pack, read_rows, rows_of
from pilothouse.cli.shopdemo.report import Fault, Moment, Recording, page
from support.browser import Page, browser
from support.shoprecording import BEGAN, DECISIONS, made_up

__all__ = ["browser"]


def row(
    sent: float, *, status: int = 200, latency: float = 0.01, version: int = 1, region: int = 0, user: int = 0
) -> Row:
    return Row(BEGAN + sent, latency, user, status, region, version)


# -- rows


def test_rows_are_the_same_from_a_file_and_a_half_written_one_is_left_out(tmp_path: Path) -> None:
    rows = [row(2.0, status=500, latency=0.5, user=29_999, region=2), row(1.0), row(3.0, status=0, version=0)]
    (tmp_path / "rows").write_bytes(pack(rows) + pack(rows)[:13])
    assert read_rows(tmp_path / "rows") == sorted(rows_of(pack(rows)))
    assert [(each.sent, each.status, each.user) for each in read_rows(tmp_path / "rows")] == [
        (BEGAN + 1, 200, 0), (BEGAN + 2, 500, 29_999), (BEGAN + 3, 0, 0)
    ]  # fmt: skip
    assert read_rows(tmp_path / "none") == []


def test_what_a_bad_answer_is() -> None:
    assert [(each.is_failed, each.is_bad) for each in (
        row(0), row(0, status=404), row(0, status=500), row(0, status=0), row(0, latency=0.81), row(0, latency=0.79)
    )] == [(False, False), (False, False), (True, True), (True, True), (False, True), (False, False)]  # fmt: skip


def test_the_harm_of_a_version_is_its_own_and_users_count_once() -> None:
    rows = [
        row(0, status=500, version=2, user=1),
        row(5, version=3, user=2),
        row(6, status=500, version=3, user=3),
        row(6.5, version=2, user=4),
        row(7, latency=1.0, version=3, user=3),
        row(8, version=3, user=2),
        row(9, version=2, user=5),
    ]
    assert harm_of(rows, 3) == Harm(BEGAN + 6.01, BEGAN + 8.0, BEGAN + 8.0, users=3, hit=1)
    assert harm_of(rows, 3).share == 1 / 3
    assert harm_of(rows, 4) == Harm(None, None, None, 0, 0)
    assert harm_of(rows, 4).share == 0
    assert failures_of(rows, BEGAN, BEGAN + 6) == 1
    assert failures_of(rows, BEGAN, BEGAN + 6.1) == 2


def test_windows_are_of_five_seconds_and_say_nothing_of_little() -> None:
    rows = [row(second / 20, status=500 if second == 30 else 200) for second in range(200)]  # 20 a second, for 10 s
    (found,) = windows(rows, BEGAN, 12).values()
    assert [each.at for each in found] == [*range(3, 11)]  # from 50 requests on, and not after the last
    errors = {each.at: each.errors for each in found}
    assert (errors[3], errors[5], errors[6], errors[7]) == (1 / 60, 0.01, 0.01, 0)
    assert windows(rows[:49], BEGAN, 12) == {}


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 4), st.integers(0, 2)), max_size=50))
def test_no_request_is_lost_by_counting(given: list[tuple[float, int, int]]) -> None:
    rows = [row(sent, version=version, region=region) for sent, version, region in given]
    assert per_second(rows, BEGAN).total() == len(rows)


# -- charts


@given(st.floats(1, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_few(high: float, most: int) -> None:
    found = ticks(high, most)
    assert found[0] == 0
    assert found[-1] <= high * (1 + 1e-6)
    assert 1 <= len(found) <= most + 1


@given(st.lists(st.floats(0, 60), max_size=20).map(sorted))
def test_no_number_covers_another(times: list[float]) -> None:
    chart = Chart("x", 60, Scale(0, 1), [Mark(at, number, "step", "") for number, at in enumerate(times)])
    places = [(row, chart.x(mark.at)) for mark, row in chart.rows]
    assert len(places) == len(times)
    for (row_one, one), (row_other, other) in itertools.combinations(places, 2):
        assert row_one != row_other or abs(one - other) >= 20
    assert all(20 * row < chart.top for row, _ in places)


def test_values_beyond_the_axis_stay_on_it_and_logarithms_are_even() -> None:
    assert [Scale(0, 10).place(value) for value in (-1, 0, 5, 10, 11)] == [0, 0, 0.5, 1, 1]
    log = Scale(1, 1000, is_log=True)
    assert [round(log.place(value), 9) for value in (1, 10, 100, 1000, 9999)] == [
        0,
        round(1 / 3, 9),
        round(2 / 3, 9),
        1,
        1,
    ]
    assert log.ticks == [1, 10, 100, 1000]


def test_areas_stand_on_each_other_and_lines_break_where_nothing_is_known() -> None:
    chart = Chart("x", 3, Scale(0, 4), height=100)
    first, second = re.findall(r'd="([^"]*)"', areas(chart, {"v1": [1, 1, 1], "v2": [1, 3, 0]}))
    top = re.findall(r"[\d.]+,([\d.]+)", first)[:6]
    assert [chart.y(1)] * 6 == [float(each) for each in top]
    assert [float(each) for each in re.findall(r"[\d.]+,([\d.]+)", second)][:6] == [
        chart.y(2), chart.y(2), chart.y(4), chart.y(4), chart.y(1), chart.y(1)
    ]  # fmt: skip
    assert lines(chart, {"v1": [(0, 1), (1, 1), (3, 2)]}).count("M") == 2
    assert areas(chart, {}) == ""


def test_a_chart_is_well_formed_whatever_is_in_it() -> None:
    chart = Chart("a < b & c", 60, Scale(0, 1, " %"), [Mark(3, 1, "commit", 'it\'s <bold> & "quoted"')])
    tree = ET.fromstring(chart.svg(lines(chart, {"v1": [(0, 0.5)]}), Limit(0.3, "limit <0.3 %>")))
    assert tree.attrib["viewBox"].startswith(f"0 0 {WIDTH} ")
    assert 'it\'s <bold> & "quoted"' in [each.text for each in tree.iter("title")]


# -- the page


class Finder(HTMLParser):
    """Finds what a page would fetch, and its texts."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [f"{tag} {name}={value}" for name, value in attrs if name in {"src", "href", "xlink:href"}]


def test_the_page_says_what_happened_and_needs_nothing_from_elsewhere() -> None:
    recording = made_up(scale=5)
    text = page(recording)
    finder = Finder()
    finder.feed(text)
    assert finder.fetched == []
    assert not re.search(r"url\(|@import|<script", text)
    assert finder.tags.count("svg") == 8
    assert finder.tags.count("tr") == len(recording.moments)
    assert "Version 2 reached everybody, region by region. Both bad versions were taken back" in text
    for version, decision in DECISIONS.items():
        harm = harm_of(recording.rows, version)
        assert harm.first_bad is not None
        assert f"taken back by itself <strong>{BEGAN + decision - harm.first_bad:.1f} s</strong>" in text
        assert f"<strong>{harm.hit:,} of {harm.users:,} users</strong>" in text
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(svg)


def test_each_answer_of_a_bad_version_is_a_dot_and_those_that_were_bad_stand_out() -> None:
    recording = made_up(scale=5)
    closer = re.findall(r'aria-label="Each answer of version (\d)".*?</svg>', page(recording), re.DOTALL)
    assert closer == ["3", "4"]
    for version in DECISIONS:
        (svg,) = re.findall(rf'aria-label="Each answer of version {version}".*?</svg>', page(recording), re.DOTALL)
        shown = {name: d.count("h0") for name, d in re.findall(r'class="dots (\w+)" d="([^"]*)"', svg)}
        own = [each for each in recording.rows if each.version == version]
        assert shown == {"fine": sum(not each.is_bad for each in own), "wrong": sum(each.is_bad for each in own)}
        assert 0 < shown["wrong"] < shown["fine"]
        assert ": first bad answer</title>" in svg


def test_texts_are_texts_and_the_same_recording_is_the_same_page() -> None:
    moment = Moment(BEGAN + 1, "note", "<script>alert(1)</script>", "a & b ${x}")
    recording = Recording(BEGAN, [row(1)], [moment], [Fault(3, "<i>")])
    text = page(recording)
    assert "<script>" not in text
    assert "Version 3: &lt;i&gt;" in text
    assert "a &amp; b ${x}" in text
    assert text == page(recording)


@pytest.mark.parametrize(
    ("recording", "said"),
    [
        (Recording(BEGAN, [], []), "No answer of version 3 was bad."),
        (Recording(BEGAN, [row(1), row(2, version=3)], []), "No answer of version 3 was bad."),
        (Recording(BEGAN, [row(1, version=3, status=500)], []), "Version 3 was not taken back."),
        (
            Recording(
                BEGAN,
                [row(1, version=3, status=500), row(2, version=4, latency=0.0)],
                [Moment(BEGAN + 2, "decision", "decision", version=3)],
                [Fault(3), Fault(4)],
            ),
            "1 of 2 bad versions was taken back",
        ),
    ],
)
def test_a_demo_that_was_cut_short_has_a_report_too(recording: Recording, said: str) -> None:
    assert said in page(recording)


async def test_a_browser_shows_it_in_light_and_dark(browser: Page, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(made_up(scale=5)), encoding="utf-8")
    papers = []
    for scheme in ("light", "dark"):
        await browser.page.emulate_media(color_scheme=scheme)
        await browser.goto(file.as_uri())
        papers.append(await browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(set(papers)) == 2
    assert browser.errors == []
    # nothing is wider than the page, and numbers of marks stand apart
    assert await browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert await browser.evaluate(
        """() => [...document.querySelectorAll('svg')].every(svg => {
             const boxes = [...svg.querySelectorAll('circle')].map(each => each.getBoundingClientRect())
             return boxes.every((one, i) => boxes.slice(i + 1).every(other =>
               Math.hypot(one.x - other.x, one.y - other.y) >= one.width))
           })"""
    )
