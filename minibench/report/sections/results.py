"""The figures: tables by task, what each component is worth, and how all that compares with expectations."""

from minibench.report import figures
from minibench.report.album import Album
from minibench.report.bench import INSTANCE, PANOPTIC, TASKS, Bench, Method
from minibench.report.document import Bullets, Note, Paragraph, Pictures, Section
from minibench.report.reading import Comparison, Expectation, contradictions
from minibench.report.statistics import paired, spread_of
from minibench.report.tables import groups, over_seeds, paired_table, reading_table, task_table

__all__ = ["difference_section", "reading_section", "results_section"]


def results_section(bench: Bench, album: Album) -> Section:
    section, charts = Section("Results", "results"), []
    for task in (PANOPTIC, INSTANCE):
        rows = []
        for _, methods in groups(bench):
            for method in (m for m in methods if task in m.tasks):
                rows.append((method, *(spread_of(bench, method.name, task, figure) for figure in task.figures)))
        rows = [row for row in rows if any(s.n for s in row[1:])]
        if rows:
            text = "; ".join(
                f"{m.title}: seen {s.text()}, unseen {u.text()}, harmonic mean {h.text()}" for m, s, u, h in rows
            )
            caption = f"**{task.title}**, {task.metric}: {over_seeds(s for row in rows for s in row[1:])}."
            charts.append(album.chart(f"overview_{task.key}", figures.overview(rows, task), f"{text}.", caption))
    section.blocks += [Pictures(charts)] if charts else []
    section.blocks += [table for table in (task_table(bench, task) for task in TASKS) if table]
    section.blocks.append(
        Note(
            "Seen, unseen: means over classes, in percent. Δ to full: difference of the harmonic mean to the full "
            "method, paired by seed. n: number of seeds; the deviation is that of a sample (n − 1). Bold: the best "
            "mean of a column. The instance methods train on all pictures without unseen things, the panoptic ones "
            "on those without any unseen class."
        )
    )
    return section


def difference_section(bench: Bench, album: Album) -> Section:
    section = Section("What each component is worth", "components")
    charts = []
    for full in bench.methods:
        variants = bench.variants(full)
        if not variants:
            continue
        task = variants[0].main_task
        rows = [(_short(m), paired(bench, m.name, full.name, task, task.harmonic)) for m in variants]
        if not any(difference.n for _, difference in rows):
            continue
        alt = f"{full.title} and variants. " + "; ".join(f"{title}: {d.text(signed=True)}" for title, d in rows) + "."
        caption = f"**{full.title}**: harmonic mean of {task.metric} minus that of the full method. Dots: seeds."
        chart = figures.difference_plot(rows, f"Δ harmonic mean of {task.metric} (points)")
        charts.append(album.chart(f"components_{full.name}", chart, alt, caption))
    section.blocks += [Pictures(charts)] if charts else []
    table = paired_table(bench)
    section.blocks.append(table or Note("No ablation was run."))
    return section


def reading_section(found: list[Expectation]) -> Section:
    section = Section("Reading", "reading")
    section.blocks.append(
        Paragraph(
            "What the two papers lead one to expect, against these numbers. A difference, paired by seed, **holds** "
            "when its mean is on the expected side and larger than its own standard deviation; it **does not hold** "
            "when it is so on the other side; otherwise it lies **within the spread**. Differences are those of the "
            "harmonic mean or of unseen classes, as each heading says; the verdict is that of the method's main task "
            "(PQ; AP50 where D2Zero takes part). The verdict of a heading is the weakest below it."
        )
    )
    section.blocks.append(reading_table(found))
    wrong = contradictions(found)
    if wrong:
        section.blocks.append(Paragraph("Against expectation on this data:"))
        section.blocks.append(Bullets([_contradiction(e, c) for e, c in wrong]))
    return section


def _contradiction(expectation: Expectation, comparison: Comparison) -> str:
    what = "harmonic mean" if expectation.figure == "harmonic" else "unseen classes"
    value = comparison.differences[comparison.main].text(signed=comparison.signed)
    return f"{comparison.text}: {value} {comparison.main.metric} ({what})"


def _short(variant: Method) -> str:
    return f"without {variant.removes}" if variant.removes else variant.title
