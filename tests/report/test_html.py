"""The page holds everything, loads nothing, runs nothing that a name says, and its tables sort."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import find_browser, open_page
from report_pages import full_report

from lowprec.errors import OutputError
from lowprec.report import LayerRecord, Report
from lowprec.report_html import render


class Outline(HTMLParser):
    """Tags opened and closed in order; elements by tag."""

    VOID = ("meta", "input", "br")

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.mistakes: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mistakes.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def count(self, tag: str, class_: str | None = None) -> int:
        return sum(
            name == tag and (class_ is None or class_ in (attributes.get("class") or "").split())
            for name, attributes in self.tags
        )


@pytest.fixture(scope="module")
def page() -> str:
    return full_report().to_html()


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_every_element_is_closed(outline: Outline) -> None:
    assert outline.mistakes == []
    assert outline.open == []


def test_every_part_is_there(outline: Outline) -> None:
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for part in ("layers", "others", "algorithms", "trials", "notes", "advice", "charts", "origin"):
        assert part in ids
    assert outline.count("svg", "range") == 10  # int8 layers
    assert outline.count("svg", "chart") == 5  # trials, times, expected noise, costs, gains
    text = " ".join(outline.text)
    for fact in ("0.8960", "−0.0040", "4.00 ms", "2.50 × as fast", "1.10 MB", "28.3 dB", "98.7 %"):
        assert fact in text


def test_every_picture_says_what_it_is(page: str) -> None:
    pictures = re.findall(r"<svg[^>]*>(.{7})", page)
    assert len(pictures) == 15
    assert set(pictures) == {"<title>"}
    assert page.count('role="img"') >= len(pictures)


def test_names_are_text(page: str, outline: Outline) -> None:
    assert outline.count("script") == 1
    assert outline.count("img") == 0
    assert not any(name.startswith("on") for _, attributes in outline.tags for name in attributes)
    assert "<script>document" not in page
    assert "\x00" not in page
    assert page.encode("utf-8").decode() == page
    assert "<script>document.title='owned'</script>" in "".join(outline.text)


def test_nothing_is_loaded(page: str, outline: Outline) -> None:
    for tag, attributes in outline.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_tables_have_heads_for_rows_and_columns(outline: Outline) -> None:
    scopes = [attributes.get("scope") for tag, attributes in outline.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}
    assert outline.count("caption") == outline.count("table") == 4


def test_a_json_file_gives_the_same_page(page: str) -> None:
    values = json.loads(full_report().to_json(times=True))
    assert render(values) == page


def test_a_report_without_measurements() -> None:
    report = replace(full_report(), times={}, speed={}, sensitivity=[], advice={}, trials=[])
    report = Report.from_json(report.to_json())
    outline = Outline(report.to_html())
    assert outline.mistakes == []
    heads = [a.get("data-label") for tag, a in outline.tags if tag in ("td", "th")]
    assert "range" in heads
    assert "ms float" not in heads
    assert "dB to win" not in heads


@pytest.mark.parametrize(
    "report",
    [
        Report(model="empty"),
        Report(model="", layers=[LayerRecord("only", "Gemm", "f32", "not worth it", macs=0)]),
        Report(model="one", layers=[LayerRecord("only", "Gemm", "bf16", "", macs=5)], total_macs=5),
    ],
)
def test_small_reports_are_pages_too(report: Report) -> None:
    outline = Outline(report.to_html())
    assert outline.mistakes == outline.open == []


def test_damaged_data_makes_a_page_with_less() -> None:
    """A report may come out of a strange file: what has the wrong kind is left out."""
    values = json.loads(full_report().to_json(times=True))
    for key in values:
        for wrong in (None, 3, "text", [3], {"a": 3}, [{"name": 3, "macs": "x", "scores": 4}]):
            outline = Outline(render({**values, key: wrong}))
            assert outline.mistakes == []
    for key in values["layers"][0]:
        layers = [{**values["layers"][0], key: wrong} for wrong in (None, "text", [1], {}, True)]
        assert Outline(render({**values, "layers": layers})).mistakes == []
    for key in values["trials"][0]:
        trials = [{**values["trials"][0], key: wrong} for wrong in (None, "text", [1], {}, True)]
        assert Outline(render({**values, "trials": trials})).mistakes == []
    values["histograms"]["x0"] = {"low": "a", "high": 3, "counts": ["b", -4, 1e400]}
    assert Outline(render(values)).mistakes == []


def test_the_file_is_written_or_an_error_says_why(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    assert full_report().to_html(target) == target.read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="does not exist"):
        full_report().to_html(tmp_path / "missing" / "report.html")


def test_the_ending_decides_the_form(tmp_path: Path) -> None:
    report = full_report()
    for name in ("r.html", "r.HTM"):
        report.save(tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == report.to_html()
    plain = replace(report, layers=[], notes=[], agreement=[], algorithms=[], trials=[])
    plain = replace(plain, model="m", accuracy={}, config={})
    plain.save(tmp_path / "r.json")
    assert Report.from_json((tmp_path / "r.json").read_text(encoding="utf-8")).model == "m"


# ---- In a browser --------------------------------------------------------------------------------

SORTED = """
<script>
  const click = (text) => [...document.querySelectorAll('#layers thead button')]
    .find((b) => b.textContent === text).click();
  const order = () => [...document.querySelectorAll('#layers tbody tr')].map((r) => r.rowIndex0);
  document.querySelectorAll('#layers tbody tr').forEach((r, i) => { r.rowIndex0 = i; });
  click('ms float'); const slowest = order()[0];
  click('ms float'); const fastest = order()[0];
  click('layer'); const first = document.querySelector('#layers tbody .node').textContent;
  const find = document.getElementById('find'); find.value = 'conv11';
  find.dispatchEvent(new Event('input'));
  const shown = [...document.querySelectorAll('#layers tbody tr')].filter((r) => !r.hidden).length;
  const choice = document.getElementById('sort'); choice.value = 0;
  choice.dispatchEvent(new Event('change'));
  document.body.dataset.result = JSON.stringify(
    [slowest, fastest, first.startsWith('<script>'), shown, order()[3], document.title]);
</script></body>"""


def test_in_a_browser_it_shows_tables_and_pictures_without_a_word(
    page: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    dom, console = open_page(file, tmp_path / "profile", "--dump-dom")
    assert console == []
    outline = Outline(dom)
    rows = [a for tag, a in outline.tags if tag == "tr" and a.get("data-precision")]
    assert len(rows) >= 12
    assert outline.count("svg", "range") == 10
    assert outline.count("svg", "chart") == 5
    assert outline.count("button") >= 20  # heads that sort
    controls = next(a for tag, a in outline.tags if "controls" in (a.get("class") or ""))
    assert "hidden" not in controls
    assert outline.count("img") == 0


def test_in_a_browser_the_layers_sort_and_are_found(page: str, tmp_path: Path) -> None:
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert without_policy != page
    file = tmp_path / "report.html"
    file.write_text(without_policy.replace("</body>", SORTED), encoding="utf-8")
    dom, console = open_page(file, tmp_path / "profile", "--dump-dom")
    assert console == []
    found = re.search(r'data-result="([^"]*)"', dom)
    assert found is not None
    result = json.loads(found[1].replace("&quot;", '"'))
    assert result[:5] == [11, 0, True, 1, 3]
    assert result[5] != "owned"


def test_a_browser_notices_what_is_wrong(page: str, tmp_path: Path) -> None:
    """The check above can fail: a script that the policy forbids is on the console."""
    file = tmp_path / "report.html"
    file.write_text(page.replace("</main>", "<script>1</script></main>"), encoding="utf-8")
    _, console = open_page(file, tmp_path / "profile", "--dump-dom")
    assert any("Content Security Policy" in line for line in console)


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(page: str, tmp_path: Path, width: int) -> None:
    frame = tmp_path / "frame.html"
    inner = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "inner.html").write_text(inner, encoding="utf-8")
    # A window has a least width of its own: the page is measured inside a frame.
    frame.write_text(
        f'<body><iframe id="f" style="width:{width}px;height:800px;border:0" '
        f'src="inner.html"></iframe><script>addEventListener("load", () => {{'
        f"const d = document.getElementById('f').contentDocument.documentElement;"
        f"document.body.dataset.width = d.scrollWidth; }})</script></body>",
        encoding="utf-8",
    )
    dom, _ = open_page(frame, tmp_path / "profile", "--allow-file-access-from-files", "--dump-dom")
    found = re.search(r'data-width="(\d+)"', dom)
    assert found is not None
    assert int(found[1]) <= width


def test_a_missing_browser_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        find_browser()
