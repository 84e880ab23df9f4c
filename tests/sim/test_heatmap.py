"""The heat map is well-formed, complete, and tells of every cell what is to be known."""

import re
from xml.etree import ElementTree

import pytest

from chimney.sim import coverage, heatmap
from chimney.sim.outcome import Cell

SVG = "{http://www.w3.org/2000/svg}"
POSSIBLE = Cell("ESTABLISHED", "data", "kernel")
IMPOSSIBLE = Cell("LAST-ACK", "data", "cut")


def cells_of(picture):
    """Tip -> class and fill of every cell."""
    root = ElementTree.fromstring(picture)
    assert root.tag == SVG + "svg"
    cells = [rect for rect in root.iter(SVG + "rect") if "cell" in rect.get("class", "").split()]
    return {rect.find(SVG + "title").text: (rect.get("class"), rect.get("fill")) for rect in cells}


def test_every_cell_is_there_and_says_what_it_is():
    found = cells_of(heatmap.svg({POSSIBLE: 12_345}))
    assert len(found) == coverage.TOTAL
    assert found["data in ESTABLISHED, phase kernel\n12,345 visits"] == ("cell v4", None)
    assert found["data in ESTABLISHED, phase cut\nnot visited"] == ("cell missed", None)
    reason = coverage.unreachable(IMPOSSIBLE)
    assert found[f"data in LAST-ACK, phase cut\ncannot be: {reason}"] == ("cell", "url(#hatch)")


def test_a_cell_that_was_said_to_be_impossible_stands_out():
    found = cells_of(heatmap.svg({IMPOSSIBLE: 2}))
    assert [tip for tip, (kind, _) in found.items() if kind == "cell wrong"] == [
        f"data in LAST-ACK, phase cut\ncannot be: {coverage.unreachable(IMPOSSIBLE)}\nVisited all the same: 2"
    ]


@pytest.mark.parametrize(
    ("count", "step"), [(1, 0), (9, 0), (10, 1), (99, 1), (100, 2), (999_999, 5), (1_000_000, 6), (10**9, 6)]
)
def test_each_power_of_ten_has_its_colour(count, step):
    assert f"cell v{step}" in {kind for kind, _ in cells_of(heatmap.svg({POSSIBLE: count})).values()}


def test_names_and_legend_are_there_to_read():
    texts = {
        "".join(text.itertext()) for text in ElementTree.fromstring(heatmap.svg({}, "A <title>")).iter(SVG + "text")
    }
    read = "\n".join(texts)
    for word in (
        *coverage.STATES,
        *coverage.EVENTS,
        *coverage.PHASES,
        *coverage.EVENT_GROUPS,
        "A <title>",
        "1,000,000",
    ):
        assert word in read


def test_the_page_stands_alone():
    """Nothing is loaded from elsewhere, and nothing runs."""
    page = heatmap.page({POSSIBLE: 3}, "Coverage", {"runs": "10,000 <ten thousand>"})
    assert not re.search(r"<script|<link|<img|<iframe|@import|src=", page)
    addresses = re.findall(r"\w+://[^\s\"<]+", page)
    assert set(addresses) == {"http://www.w3.org/2000/svg"}, "the name of a language, not an address"
    assert "10,000 &lt;ten thousand&gt;" in page
    for group in coverage.UNREACHABLE:
        assert heatmap.escape(group.reason) in page
    assert "<td>data</td><td>ESTABLISHED (cut), " in page


def test_the_page_when_nothing_was_missed():
    every = {cell: 1 for cell in coverage.cells() if coverage.unreachable(cell) is None}
    assert "every cell that can be reached was visited" in heatmap.page(every)


def test_files(tmp_path):
    for name, start in (("map.svg", "<svg"), ("map.html", "<!DOCTYPE html>")):
        heatmap.write(tmp_path / name, {POSSIBLE: 1})
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)
    with pytest.raises(ValueError, match=r"\.svg or \.html"):
        heatmap.write(tmp_path / "map.png", {})
