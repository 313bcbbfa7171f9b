"""The pages themselves: the right metrics in the right cells, nothing fetched from elsewhere, nothing broken."""

import json
import re
import shutil
import statistics
from xml.etree import ElementTree

import pytest
from PIL import Image as Pixels

from minibench.report.document import Bullets, Cell, Image, Images, Row, Section, Table, Text
from minibench.report.pages import to_html, to_markdown
from minibench.report.write import write_report
from PADing.errors import UserError
from tests.minibench.benchmark_folder import (
    DATA,
    draw_data,
    instance_run,
    method,
    panoptic_run,
    run,
    write_results,
)

PANOPTIC = {
    "baseline": [(66.0, 0.0, 0.0), (64.0, 0.0, 0.0)],
    "pading": [(61.0, 20.0, 30.1), (63.0, 24.0, 34.8)],
    "pading_no_noise": [(62.0, 15.0, 24.2), (62.0, 16.0, None)],
}
INSTANCE = {"d2zero": [(70.0, 41.0, 51.7), (72.0, 43.0, 53.8)]}
METHODS = [
    method("baseline", title="Mask2Former, seen & known <only>"),
    method("pading", title="PADing"),
    method("pading_no_noise", title="PADing without noise", ablates="pading", removes="noise"),
    method("d2zero", task="instance", title="D2Zero"),
    method("d2zero_later", task="instance", title="D2Zero, later", extends="d2zero"),
]


def _runs(seeds: int) -> list[dict]:
    runs = []
    for name, values in PANOPTIC.items():
        for seed, metrics in enumerate(values[:seeds], start=1):
            runs.append(run(name, seed, dict.fromkeys(("panoptic_seg", "sem_seg", "segm"), metrics)))
    runs += [run("d2zero", seed, {"segm": v}) for seed, v in enumerate(INSTANCE["d2zero"][:seeds], start=1)]
    return runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A benchmark with predictions of seed 1, and its report."""
    folder = write_results(tmp_path_factory.mktemp("benchmark"), METHODS, _runs(2))
    data = draw_data(folder)
    panoptic_run(folder / "runs" / "pading-seed1-0123456789", data, {"striped disc": "striped bar", "teal waves": None})
    instance_run(folder / "runs" / "d2zero-seed1-0123456789", data, {"dotted bar": "plain bar"})
    (folder / "report" / "pictures").mkdir(parents=True)
    Pixels.new("RGB", (4, 4)).save(folder / "report" / "pictures" / "left_over.png")
    write_report(folder)
    return folder


def _page(folder) -> ElementTree.Element:
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    return ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def _cells(page, caption: str) -> dict[str, list[str]]:
    """First cell -> the others, of the table whose caption begins so."""
    table = next(t for t in page.iter("table") if t.get("aria-label").startswith(caption))
    rows = [["".join(cell.itertext()).strip() for cell in row] for row in table.find("tbody")]
    return {first: rest for first, *rest in rows}


def test_tables_hold_means_and_deviations_of_the_runs(folder):
    rows = _cells(_page(folder), "Panoptic segmentation")
    for name, title in (("baseline", METHODS[0]["title"]), ("pading", "PADing")):
        for index in range(3):
            values = [v[index] for v in PANOPTIC[name]]
            assert rows[title][index] == f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"
    assert rows["PADing"][3:] == ["", "2"]
    # Only seed 1 has a harmonic mean without noise, so the pair is 24.2 - 30.1, and n says that numbers differ.
    assert rows["PADing without noise"] == ["62.0 ± 0.0", "15.5 ± 0.7", "24.2", "−5.9", "1–2"]
    assert _cells(_page(folder), "Instance segmentation")["D2Zero"][1] == "42.0 ± 1.4"


def test_the_best_of_each_column_is_marked(folder):
    table = next(t for t in _page(folder).iter("table") if t.get("aria-label").startswith("Instance"))
    marked = ["".join(cell.itertext()).strip() for cell in table.iter("td") if "best" in (cell.get("class") or "")]
    assert marked == ["71.0 ± 1.4", "42.0 ± 1.4", "52.8 ± 1.5"]
    assert all(cell.find("strong") is not None for cell in table.iter("td") if "best" in (cell.get("class") or ""))


def test_methods_that_were_not_run_say_so(folder):
    assert _cells(_page(folder), "Instance segmentation")["D2Zero, later"] == ["not run", *["–"] * 4]
    assert "D2Zero, later" not in _cells(_page(folder), "Panoptic segmentation")


def test_the_page_needs_nothing_beside_it(folder):
    page = _page(folder)
    text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|<script|<link|@import|url\(", text)
    for image in page.iter("img"):
        assert image.get("src").startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
        assert len(image.get("alt")) > 10
    assert len(list(page.iter("img"))) > 12
    anchors = {element.get("id") for element in page.iter() if element.get("id")}
    assert {a.get("href").removeprefix("#") for a in page.iter("a")} <= anchors


def test_bars_by_class_show_what_each_evaluator_has_written(folder):
    """PQ of panoptic methods, AP50 of instance methods: that by which the tables judge them."""
    texts = ["".join(caption.itertext()) for caption in _page(folder).iter("figcaption")]
    (pading,) = (text for text in texts if text.startswith("PADing: PQ (%) by class"))
    assert "striped disc 0.0" in pading and "teal waves 0.0" in pading and "brown sand 10.0" in pading
    (d2zero,) = (text for text in texts if text.startswith("D2Zero: AP50 (%) by class"))
    assert "dotted bar 0.0" in d2zero and "striped disc 10.0" in d2zero
    assert "brown sand" not in d2zero and "plain bar" not in d2zero, "the text names unseen classes"


def test_markdown_links_resolve_and_nothing_else_is_left(folder):
    report = folder / "report"
    text = "".join((report / name).read_text(encoding="utf-8") for name in ("report.md", "pictures.md"))
    linked = set(re.findall(r"!\[[^\]]+\]\((pictures/[^)]+)\)", text))
    assert linked == {f"pictures/{path.name}" for path in (report / "pictures").iterdir()}
    for link in linked:
        with Pixels.open(report / link) as image:
            image.verify()
    assert text.count("](") == len(linked)
    assert "**71.0 ± 1.4**" in text and "| PADing | **62.0 ± 1.4** |" not in text
    assert sum(path.stat().st_size for path in (report / "pictures").iterdir()) < 1.5e6


def test_every_table_of_the_markdown_page_has_rows_of_one_length(folder):
    widths = []
    pages = [(folder / "report" / name).read_text(encoding="utf-8") for name in ("report.md", "pictures.md")]
    for line in "".join(pages).splitlines():
        if line.startswith("|"):
            widths.append(line.replace("\\|", "").count("|"))
        else:
            assert len(set(widths)) <= 1
            widths = []


def test_the_gallery_and_the_confusion_are_there(folder):
    page = _page(folder)
    names = ["".join(h.itertext()) for h in page.iter("h3")]
    assert [n.split(":")[0].split(" of ")[0] for n in names] == [
        f"{title}, {rank}" for title in ("PADing", "D2Zero") for rank in ("best", "median", "worst")
    ]
    rows = _cells(page, "The same in short")
    assert rows["teal waves"] == ["0 %", "0 %", "0 %", "100 %", "missed (100 %)"]
    assert rows["striped disc"][0] == "100 %"  # D2Zero's row comes later, and there it is right


def test_summary_is_strict_json_with_the_verdicts(folder):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    content = json.loads((folder / "report" / "summary.json").read_text(), parse_constant=refuse)
    metrics = content["methods"]["pading_no_noise"]["figures"]["panoptic_seg"]
    assert (metrics["PQ_hm"]["mean"], metrics["PQ_hm"]["sd"], metrics["PQ_hm"]["n"]) == (24.2, None, 1)
    found = {(c["upper"], c["lower"]): c for c in content["comparisons"]}
    comparison = found["pading", "pading_no_noise"]
    assert (comparison["claim"], comparison["verdict"]) == ("PADing is better with noise", "undecided")
    # Only seed 1 has a harmonic mean without noise, so there is no test.
    assert comparison["tests"]["panoptic_seg"] == {
        **{"mean": pytest.approx(5.9), "sd": None, "n": 1, "verdict": "undecided"},
        **dict.fromkeys(("low", "high", "p", "p_equivalent", "detectable", "p_holm", "p_equivalent_holm")),
    }
    assert found["d2zero_later", "d2zero"]["verdict"] == "not run"


def test_without_run_folders_the_metrics_remain(tmp_path):
    folder = write_results(tmp_path, METHODS, _runs(1))
    write_report(folder)
    page = _page(folder)
    rows = _cells(page, "Panoptic segmentation")
    # One seed has no deviation.
    assert rows["PADing"] == ["61.0", "20.0", "30.1", "", "1"]
    notes = " ".join("".join(p.itertext()) for p in page.iter("p"))
    assert "PADing: no metrics by class." in notes and "pictures.md" in (folder / "report" / "report.md").read_text()
    assert not (folder / "report" / "pictures.md").exists()


def test_a_report_without_runs_leaves_the_pictures_of_an_earlier_one(folder, tmp_path):
    """As the committed one, whose numbers are made again from results.json alone."""
    to = tmp_path / "to"
    shutil.copytree(folder / "report", to)
    before = {path: path.read_bytes() for path in [to / "pictures.md", *(to / "pictures").glob("*_best_*")]}
    write_report(write_results(tmp_path / "benchmark", METHODS, _runs(2)), to)
    assert len(before) > 3 and all(path.read_bytes() == content for path, content in before.items())
    assert not (tmp_path / "benchmark" / "report").exists()
    numbers = (to / "report.md").read_text().split("## Class by class")[0]
    assert numbers == (folder / "report" / "report.md").read_text().split("## Class by class")[0]


def test_a_damaged_run_costs_its_images_only(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    broken = copy / "runs" / "pading-seed1-0123456789" / "inference" / "predictions.json"
    broken.write_text("{")
    shutil.rmtree(copy / DATA / "mini" / "annotations")
    # As written by versions that had no metrics by class.
    (copy / "runs" / "d2zero-seed1-0123456789" / "inference" / "instance_results.json").write_text("{}")
    write_report(copy)
    assert _cells(_page(copy), "Panoptic segmentation")["PADing"][0] == "62.0 ± 1.4"
    notes = " ".join("".join(p.itertext()) for p in _page(copy).iter("p"))
    assert not list(_page(copy).iter("h3")) and notes.count("not available") == 5
    # Metrics by class and training curves need neither.
    assert len(list(_page(copy).iter("img"))) == 6


def test_nothing_at_all_is_an_answer_too(tmp_path):
    write_report(write_results(tmp_path / "empty", [], []))
    assert "Neither PADing nor D2Zero was run." in (tmp_path / "empty" / "report" / "report.md").read_text()
    with pytest.raises(UserError, match="does not exist"):
        write_report(tmp_path)


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a|b",
    "a\\|b",
    "line\nbreak\r\n| x |",
    "tick`s",
    "**half bold",
    "a `code **mixed` bold** b",
    "[link](javascript:alert(1))",
    "&lt;b&gt; &amp; & <b>",
    '" onload="alert(1)',
    "nul\x00 bell\x07 escape\x1b[31m",
    "surrogate \ud800",
    "]](x) ![x](y)",
    "# heading",
]


def _all_blocks(name: str) -> list[Section]:
    cells = [Cell(name), Cell("1.0", name, best=True), Cell(name, best=True)]
    table = Table(name, [name, "b", name], [Row([Cell(name)], "group"), Row(cells), Row(cells, "sub")], text=(2,))
    items = [Image("x.png", name, name), Image("x.png", name)]
    blocks = [Text(name), Text(name, "lead"), Text(name, "note"), Bullets([name]), table, Images(items)]
    return [Section(name, "key", [*blocks, Images(items, "strip", name)]), Section("plain", "plain", [Text(name)])]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_no_markup_on_the_web_page(tmp_path, name):
    """The page stays well-formed, holds no element and no attribute of the name's, and shows the name."""
    Pixels.new("RGB", (4, 4)).save(tmp_path / "x.png")
    text = to_html(name, _all_blocks(name), tmp_path).encode().decode()
    page, plain = (
        ElementTree.fromstring(t.removeprefix("<!DOCTYPE html>"))
        for t in (text, to_html("n", _all_blocks("n"), tmp_path))
    )
    markup = {"strong", "code"}
    assert [e.tag for e in page.iter() if e.tag not in markup] == [e.tag for e in plain.iter() if e.tag not in markup]
    for element, same in zip(page.iter("img"), plain.iter("img"), strict=True):
        assert element.keys() == same.keys()
    if not re.search(r"[*`\x00-\x1f\ud800]", name):
        assert name in [cell.text for cell in page.iter("th")]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_no_markup_in_markdown(name):
    """No tag, link or line of the name's own, and every row of the table has its three cells."""
    text = to_markdown(name, _all_blocks(name), "p")
    text.encode()
    assert "<" not in text and not re.search(r"(?<!!)(?<!\\)\[[^]]*(?<!\\)\]\(", text)
    assert text.count("![") == 2 + 2 and not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    plain = to_markdown("n", _all_blocks("n"), "p")
    assert text.count("\n") == plain.count("\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    # As code hosting sites split it: a backslash takes the next character with it.
    counts = [len(re.findall(r"\|", re.sub(r"\\.", "", row))) - 1 for row in rows]
    assert counts == [len(re.findall(r"\|", row)) - 1 for row in plain.splitlines() if row.startswith("| ")]
