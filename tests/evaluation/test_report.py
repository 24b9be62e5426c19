"""Reports: means as by hand, and nothing that breaks a format or a browser."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from maximir.errors import MaximirError
from maximir.evaluation import report
from maximir.evaluation.compare import compare
from maximir.evaluation.datasets import Case
from maximir.evaluation.evaluate import Evaluation
from maximir.evaluation.protocols import PROTOCOLS
from maximir.evaluation.scores import PICTURES, Score

INF = float("inf")
EVIL = "<script>alert('\"')</script>&amp;|x"


def score(name="a", psnr=30.0, ssim=0.9, *, set="", before=(20.0, 0.5), seconds=1.5, target=""):
    return Score(name, set, psnr, ssim, *before, 12, 10, seconds, "digest", target)


def evaluation(scores, *, protocol="rounded", left_out=(), beside=(), **facts):
    settings = {
        "protocol": protocol,
        "convention": PROTOCOLS[protocol].convention,
        "sha256": "0123abcd" * 8,
        "degrade": None,
        "ensemble": False,
        "precision": "fp32",
    }
    facts = {
        "title": "model on data",
        "source": PROTOCOLS[protocol].source,
        "weights": "model.npz",
        "data": "/data",
        "layout": "pairs",
        "ignored": 0,
        "notes": [],
        "device": "cpu",
        "versions": {"maximir": "9.8.7", "torch": "2.10"},
        "date": "2026-01-31",
        "command": "maximir evaluate --data /data",
    } | facts
    cases: tuple[Case, ...] = ()
    return Evaluation(
        cases, PROTOCOLS[protocol], *3 * [None], settings, facts, list(scores), list(left_out), list(beside)
    )


class Page(HTMLParser):
    """The page's text by element, and its links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.links, self.alternatives, self.tags, self.text = [], [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.alternatives += [value for name, value in attributes if name == "alt"]
        self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data.strip()


def page_of(evaluation, out):
    return Page(report.write(evaluation, out).read_text("utf-8"))


SETS = [
    score("x/a", 30.0, 0.9, set="x", before=(20.0, 0.5)),
    score("x/b", 32.0, 0.8, set="x", before=(22.0, 0.6)),
    score("x/c", 34.0, 0.7, set="x", before=(24.0, 0.7)),
    score("y/a", 40.0, 0.95, set="y", before=(30.0, 0.8)),
]


def test_means_over_images():
    summary = report.summarise(evaluation(SETS))
    assert summary["all"] == {
        "psnr": 34.0,
        "ssim": pytest.approx(3.35 / 4),
        "input_psnr": 24.0,
        "input_ssim": pytest.approx(2.6 / 4),
        "identical": 0,
        "identical_inputs": 0,
        "without_ssim": 0,
    }
    assert [(row["set"], row["images"], row["psnr"]) for row in summary["sets"]] == [
        ("x", 3, 32.0),
        ("y", 1, 40.0),
    ]
    assert (summary["scored"], summary["of"]) == (4, 4)


def test_what_has_no_finite_figure_is_counted_and_spoils_no_mean(tmp_path):
    same, small = score("s", INF, 1.0, before=(INF, 1.0)), score("t", 36.0, None, before=(21.0, None))
    perfect = score("p", INF, 1.0)
    found = evaluation([SETS[0], same, small, perfect])
    summary = report.summarise(found)
    assert (summary["all"]["psnr"], summary["all"]["input_psnr"]) == (33.0, pytest.approx(61 / 3))
    assert summary["all"]["ssim"] == pytest.approx(2.9 / 3)
    assert summary["all"]["input_ssim"] == pytest.approx(2.0 / 3)
    words = report.coverage(summary)
    assert "4 of 4 images" in words and "restored 2, inputs 1" in words and "mean of it: 1" in words
    for name in ("summary.md", "report.html"):
        report.write(found, tmp_path)
        assert "infinite" in (tmp_path / name).read_text() and "window" in (tmp_path / name).read_text()
    stored = json.loads((tmp_path / "summary.json").read_text())["all"]
    assert (stored["identical"], stored["identical_inputs"], stored["without_ssim"]) == (2, 1, 1)
    assert report.summarise(evaluation([perfect, same]))["all"]["psnr"] == INF  # of nothing else
    of_sets = report.summarise(
        evaluation([replace(perfect, set="x"), *SETS[3:], replace(small, set="z")], protocol="rain")
    )
    assert of_sets["all"]["psnr"] == 38.0 and "infinite" in report.coverage(of_sets)
    assert "infinite" not in report.coverage(report.summarise(evaluation(SETS)))


def test_files_are_no_images(tmp_path):
    found = evaluation(SETS[:1], left_out=[("a", "not restored")], beside=[("x.png", "belongs to no case")])
    words = report.coverage(report.summarise(found))
    assert words == "1 of 2 images, 1 left out; files that belong to no image: 1"
    page = page_of(found, tmp_path)
    assert "x.png" in page.text and "Not included in the means (1)" in page.text
    assert "- no image: x.png: belongs to no case" in (tmp_path / "summary.md").read_text()


def test_notes_of_the_data_are_in_all_reports(tmp_path):
    found = evaluation(SETS, notes=["without a list"])
    assert report.coverage(report.summarise(found)).endswith("; without a list")
    page_of(found, tmp_path)
    for name in ("summary.md", "report.html", "summary.json"):
        assert "without a list" in (tmp_path / name).read_text()


def test_of_the_rain_sets_the_mean_of_their_means():
    summary = report.summarise(evaluation(SETS, protocol="rain"))
    assert (summary["all"]["psnr"], summary["all"]["input_psnr"]) == (36.0, 26.0)
    assert summary["all"]["ssim"] == pytest.approx((0.8 + 0.95) / 2)
    assert report.rows_of(summary) == [
        ["x", "3", "22.00 / 0.6000", "32.00 / 0.8000"],
        ["y", "1", "30.00 / 0.8000", "40.00 / 0.9500"],
        ["all", "4", "26.00 / 0.7000", "36.00 / 0.8750"],
    ]
    one = report.summarise(evaluation([replace(each, set="") for each in SETS], protocol="rain"))
    assert one["all"]["psnr"] == 34.0 and one["sets"] == []


def test_without_inputs_or_scores():
    no_inputs = report.summarise(evaluation([score(before=(None, None)), score("b")]))
    assert no_inputs["all"]["input_psnr"] is None and no_inputs["all"]["psnr"] == 30.0
    assert report.rows_of(no_inputs) == [["all", "2", "– / –", "30.00 / 0.9000"]]
    nothing = report.summarise(evaluation([], left_out=[("a", "why")]))
    assert report.rows_of(nothing) == [["all", "0", "– / –", "– / –"]]
    assert report.coverage(nothing) == "0 of 1 images, 1 left out"


def test_coverage_counts_what_is_left_out():
    left_out = [("b", "no target"), ("c", "the file is empty")]
    summary = report.summarise(evaluation([score()], left_out=left_out))
    assert report.coverage(summary) == "1 of 3 images, 2 left out"
    assert summary["left_out"] == [{"what": what, "why": why} for what, why in left_out]
    assert report.coverage(report.summarise(evaluation([score()]))) == "1 of 1 images"


def test_json_is_json_also_with_exact_images(tmp_path):
    scores = [score("a", INF, 1.0, set="x", before=(INF, 1.0)), score("Infinity", set="y")]
    report.write(
        evaluation(scores, data="/Infinity", left_out=[("-Infinity", "NaN")], command="é \udcff"), tmp_path
    )
    loaded = json.loads((tmp_path / "summary.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert loaded["sets"][0]["psnr"] == loaded["sets"][0]["input_psnr"] == "inf"
    assert loaded["sets"][1]["psnr"] == loaded["all"]["psnr"] == 30.0
    assert loaded["data"] == "/Infinity" and loaded["left_out"] == [{"what": "-Infinity", "why": "NaN"}]
    assert loaded["command"] == "é \udcff"
    assert loaded["versions"]["maximir"] == "9.8.7" and loaded["sha256"].startswith("0123abcd")


def test_csv_reads_back(tmp_path):
    names = ["plain", 'comma, "quote"', "line\nbreak", EVIL]
    scores = [score(name, 20 / 3 + k, target="t") for k, name in enumerate(names)]
    scores.append(score("exact", INF, 1.0, before=(None, None)))
    report.write(evaluation(scores), tmp_path)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [each.name for each in scores]
    assert [float(row["psnr"]) for row in rows] == [each.psnr for each in scores]
    assert rows[0] | {"psnr": ""} == {
        "name": "plain",
        "set": "",
        "input_psnr": "20.0",
        "input_ssim": "0.5",
        "psnr": "",
        "ssim": "0.9",
        "width": "12",
        "height": "10",
        "seconds": "1.5",
        "target": "t",
    }
    assert rows[-1]["input_psnr"] == rows[-1]["input_ssim"] == ""


def test_markdown(tmp_path):
    odd = [replace(each, set="a|b\n" if each.set == "x" else "y") for each in SETS]
    report.write(evaluation(odd, left_out=[("c\nd", "no target")]), tmp_path)
    lines = (tmp_path / "summary.md").read_text("utf-8").splitlines()
    assert lines[:5] == [
        "| set | images | input PSNR / SSIM | restored PSNR / SSIM |",
        "| --- | --- | --- | --- |",
        r"| a\|b\n | 3 | 22.00 / 0.6000 | 32.00 / 0.8000 |",
        "| y | 1 | 30.00 / 0.8000 | 40.00 / 0.9500 |",
        "| all | 4 | 24.00 / 0.6500 | 34.00 / 0.8375 |",
    ]
    assert f"{PROTOCOLS['rounded'].convention}; 4 of 5 images, 1 left out." in lines
    assert "`maximir evaluate --data /data`" in lines and r"- left out: c\nd: no target" in lines


def test_the_page_says_how(tmp_path):
    page = page_of(evaluation(SETS, left_out=[("b", "no target")], protocol="rain", ignored=7), tmp_path)
    for words in (
        PROTOCOLS["rain"].convention,
        "rain (swz30/MPRNet",
        "0123abcd" * 8,
        "maximir 9.8.7, torch 2.10",
        "maximir evaluate --data /data",
        "2026-01-31",
        "4 of 5 images, 1 left out; 7 other images",
        "/data, layout pairs",
    ):
        assert words in " ".join(page.text.split())
    assert "b: no target" in page.text
    assert ["all", "4", "26.00 / 0.7000", "36.00 / 0.8750"] in page.cells


def test_the_page_needs_nothing_else(tmp_path):
    (tmp_path / PICTURES).mkdir()
    (tmp_path / PICTURES / "a.webp").write_bytes(b"webp")
    report.write(evaluation([score()]), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<base|<iframe", text, re.IGNORECASE)
    page = Page(text)
    assert page.links == ["data:image/webp;base64," + base64.b64encode(b"webp").decode()]
    assert page.tags.count("script") == page.tags.count("img") == 1


def test_names_cannot_be_anything_but_names(tmp_path):
    facts = dict.fromkeys(("title", "weights", "data", "layout", "device", "command", "date"), EVIL)
    scores = [score(EVIL, set=EVIL), score("b", set="\udcff\n")]
    picture = tmp_path / PICTURES / f"{EVIL}.webp"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"webp")
    page = page_of(evaluation(scores, left_out=[(EVIL, EVIL)], **facts), tmp_path)
    assert page.tags.count("script") == 1
    rows = [row for row in page.cells if row[:2] == [EVIL, EVIL]]
    assert len(rows) == 1 and page.text.count(EVIL) >= 9
    assert page.tags.count("img") == 1 and page.alternatives == [f"{EVIL}: before, after, original, error"]


def test_worst_first_and_no_more_than_some(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "WORST", 2)
    (tmp_path / PICTURES).mkdir()
    scores = [score(name, psnr) for name, psnr in (("a", 31.0), ("b", INF), ("c", 29.0), ("d", 30.0))]
    for each in scores:
        (tmp_path / PICTURES / f"{each.name}.webp").write_bytes(each.name.encode())
    page = page_of(evaluation(scores), tmp_path)
    assert [base64.b64decode(link.partition(",")[2]) for link in page.links] == [b"c", b"d"]
    assert [row[0] for row in page.cells if row[1:2] == ["20.00"]] == ["c", "d", "a", "b"]
    (tmp_path / PICTURES / "c.webp").unlink()  # a picture that is gone breaks nothing
    assert len(page_of(evaluation(scores), tmp_path).links) == 1


def test_gains():
    pairs = [(20.0, 30.0), (30.0, 20.0), (20.0, INF), (INF, 20.0), (INF, INF), (None, 20.0)]
    assert [report.gain(score(psnr=psnr, before=(before, 0.5))) for before, psnr in pairs] == [
        "+10.00",
        "-10.00",
        "+inf",
        "-inf",
        "–",
        "–",
    ]


def test_a_report_that_cannot_be_written(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(MaximirError, match=r"cannot be written to \(is a directory\)"):
        report.write(evaluation([score()]), tmp_path)


def printed(table, width):
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False)
    console.print(table)
    return console.file.getvalue()


def test_tables_on_the_terminal():
    odd = [replace(each, set="[/red] :dog:" if each.set == "x" else "esc\x1b[31m") for each in SETS]
    (table,) = report.tables(report.summarise(evaluation(odd)))
    text = printed(table, 100)
    assert "[/red] :dog:" in text and r"esc\x1b[31m" in text and "34.00 / 0.8375" in text
    a = [score(f"i{k}", 30.0 + k, 0.8, target=str(k)) for k in range(4)]
    b = [replace(each, psnr=each.psnr + 0.25 + 0.002 * k, ssim=0.81) for k, each in enumerate(a)]
    text = printed(*report.comparison_tables(compare(a, b)), 80)
    for words in ("31.500", "31.753", "+0.253", "+0.01000", "B is better"):
        assert words in text
    (psnr, _) = compare(a, b).differences
    assert f"{psnr.low:+.3f} … {psnr.high:+.3f}" in text


@pytest.mark.parametrize(
    ("count", "names"), [(0, []), (1, ["b", "c"]), (2, ["b", "d", "a", "c"]), (9, ["b", "d", "a", "c"])]
)
def test_extremes_without_repetition(count, names):
    a = [score(name, 30.0) for name in "abcd"]
    b = [score(name, psnr) for name, psnr in zip("abcd", (31.0, 29.0, 32.0, 30.5), strict=True)]
    lines = report.extremes(compare(a, b), count)
    assert [line.split()[-1] for line in lines] == names
    if count:
        assert lines[0] == "-1.000 dB  30.00 → 29.00  b"


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
def test_columns_sort_in_a_browser(tmp_path):
    """By value, and back: gains of any sign, and exact images, which are infinitely good."""
    psnrs = {"a10": 9.0, "a9": 100.0, "b": INF, "c": 30.0}
    scores = [score(name, psnr, before=(20.0, 0.5)) for name, psnr in psnrs.items()]
    report.write(evaluation(scores), tmp_path)
    text = (tmp_path / "report.html").read_text("utf-8")
    clicks = """<script>
    const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent).join(" ");
    const found = [order()];
    for (const column of [0, 3, 3, 2]) {
      table.tHead.rows[0].cells[column].querySelector("button").click();
      found.push(order());
    }
    const filter = document.getElementById("filter");
    filter.value = "A";
    filter.dispatchEvent(new Event("input"));
    for (const row of [...table.tBodies[0].rows]) if (row.hidden) row.remove();
    found.push(order());
    document.title = found.join("; ");
    </script></body>"""
    (tmp_path / "clicked.html").write_text(text.replace("</body>", clicks), "utf-8")
    options = (
        "headless no-sandbox disable-gpu disable-background-networking disable-component-update "
        f"disable-sync no-first-run dump-dom user-data-dir={tmp_path / 'profile'}"
    )
    done = subprocess.run(
        [CHROMIUM, *(f"--{option}" for option in options.split()), (tmp_path / "clicked.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    (title,) = re.findall("<title>(.*)</title>", done.stdout)
    assert title.split("; ") == [
        "a10 c a9 b",
        "a9 a10 b c",
        "a10 c a9 b",
        "b a9 c a10",
        "a10 c a9 b",
        "a10 a9",
    ]
