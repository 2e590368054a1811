"""What could be rebuilt: a grid of pictures, a table, and a sentence to quote. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dpaudit.evidence import Access, Rebuilt
from dpaudit.likeness import Panel, Score
from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import numbers, svg
from dpaudit.reports.drawing import INK, MUTED, Drawing, canvas
from dpaudit.reports.tables import Table

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

_RELEASED = "as released"
_HEADS = {
    "ssim": ("SSIM", "SSIM, others"),
    "rebuilt": ("SSIM ≥ 0.9",),
    "psnr": ("PSNR, dB", "PSNR, others"),
    "correlation": ("Correlation", "Correlation, others"),
    "average": ("Class average", "Other averages"),
    "features": ("Features",),
    "labels": ("Labels",),
    "mean record": ("Mean record, dB",),
    "beyond known": ("Nearer than known records",),
    "beyond others": ("Nearer than any other", "By chance"),
    "picked": ("Nearest of the candidates", "By chance"),
}
_MEASURES = {"ssim": "SSIM", "psnr": "PSNR in dB", "correlation": "correlation"}
"""By which one sentence tells how near an attack came: the first that there is."""
_MOST_ROWS = 6


def embeds_records(record: AuditRecord) -> bool:
    """Whether a picture of a real record is in it."""
    return any(panel.real for t in record.targets for item in t.rebuilt for panel in item.panels)


def sentence(target: TargetRecord) -> str:
    """What the strongest attack rebuilt of real records, to be quoted; empty where none was tried."""
    measured = [item for item in _of_updates(target) if item.real and not item.qualitative and item.scores]
    return " ".join(filter(None, (_of_update(target, measured), *map(_of_model, _released(target)))))


def _of_update(target: TargetRecord, measured: list[Rebuilt]) -> str:
    if not measured:
        return ""
    ssim = any(score.name == "ssim" for item in measured for score in item.scores)
    name = "ssim" if ssim else "psnr"
    released = [item for item in measured if item.condition == _RELEASED]
    best = max(released, key=lambda item: _mean(item, name))
    score = _score(best, name)
    if score is None or math.isnan(score.mean):
        return ""
    of = "one record" if best.batch == 1 else f"{best.batch} records"
    what = "structural similarity (SSIM; 1 is the same picture)" if ssim else "PSNR in dB"
    parts = [
        f"From one update of {of} as {target.name} released it, the most that was rebuilt had a mean {what} "
        f"of {_with_interval(score)}, by {best.method}, over {score.n} records"
    ]
    if score.blind is not None:
        parts.append(f"; compared with other records than its own, the same had {_value(name, score.blind)}")
    bare = [_mean(item, name) for item in measured if item.condition != _RELEASED]
    if bare:
        parts.append(f". Without clip and noise it was {_value(name, max(bare))}")
    return "".join(parts) + ". This describes these attacks on one step; another attack may rebuild more."


def table(target: TargetRecord) -> Table:
    """Every attack on real records with its scores; on what the audit made itself where there are none."""
    tried = _of_updates(target)
    real = [item for item in tried if item.real]
    shown = sorted(real or tried, key=lambda item: (item.condition != _RELEASED, item.method))
    names = [name for name in _HEADS if any(_score(item, name) for item in shown)]
    bounded = any(score.bound is not None for item in shown for score in item.scores)
    return Table(
        caption=f"What could be rebuilt from one update of {target.name}",
        columns=(
            ("Attack", "text"),
            ("Update", "text"),
            *((head, "number") for name in names for head in _HEADS[name]),
            *((("Without a prior", "text"),) if bounded else ()),
            ("n", "number"),
        ),
        rows=tuple(
            (
                f"{item.method}{' (qualitative)' if item.qualitative else ''}",
                f"{item.condition}, {item.batch} {'record' if item.batch == 1 else 'records'}",
                *(cell for name in names for cell in _cells(item, name)),
                *((_bound(item),) if bounded else ()),
                numbers.count(item.scores[0].n) if item.scores else numbers.NONE,
            )
            for item in shown
        ),
        empty=f"Nothing was tried to rebuild records from single updates of {target.name}.",
    )


def released_table(target: TargetRecord) -> Table:
    """Every attack on the final model with its scores, and the same for records that are not the ones."""
    shown = _released(target)
    names = [name for name in _HEADS if any(_score(item, name) for item in shown)]
    heads = [(head, "number") for name in names for head in _HEADS[name]]
    return Table(
        caption=f"What could be rebuilt from the final model of {target.name}",
        columns=(("Attack", "text"), ("Rebuilt", "text"), *heads, ("n", "number")),
        rows=tuple(
            (
                f"{item.method}{' (qualitative)' if item.qualitative else ''}",
                item.subject,
                *(cell for name in names for cell in _cells(item, name)),
                numbers.count(item.scores[0].n) if item.scores else numbers.NONE,
            )
            for item in shown
        ),
        empty=f"Nothing was tried to rebuild records from the final model of {target.name}.",
    )


def _of_updates(target: TargetRecord) -> list[Rebuilt]:
    return [item for item in target.rebuilt if item.access is not Access.FINAL_MODEL]


def _released(target: TargetRecord) -> list[Rebuilt]:
    return [item for item in target.rebuilt if item.access is Access.FINAL_MODEL]


def _of_model(item: Rebuilt) -> str:
    """What one attack rebuilt from the final model, to be quoted."""
    name = next((name for name in _MEASURES if _score(item, name)), "psnr")
    score, measure = _score(item, name), _MEASURES[name]
    if score is None or score.blind is None or math.isnan(score.mean):
        return ""
    beyond = _score(item, "beyond others")
    if beyond is not None and beyond.blind is not None:
        return (
            f"Qualitative: what a search of the weights of the final model found has a mean {measure} of "
            f"{_with_interval(score)} with the records that were trained on, and of "
            f"{_value(name, score.blind)} with as many that were not; {_value(beyond.name, beyond.mean)} of "
            f"the former came nearer than any of the latter, {_value(beyond.name, beyond.blind)} by chance. "
            "No epsilon is compared with this."
        )
    if item.qualitative:
        return (
            f"Qualitative: {item.subject} of the final model have a mean {measure} of "
            f"{_with_interval(score)} with the nearest record of their class that was trained on, and of "
            f"{_value(name, score.blind)} with the nearest of as many that were not. "
            "No epsilon is compared with this."
        )
    return (
        f"From the final model, whoever knows all other records rebuilt {item.subject} with a mean {measure} "
        f"of {_with_interval(score)}, over {score.n} records; compared with other records than its own, the "
        f"same had {_value(name, score.blind)}.{_beside(item)}"
    )


def _beside(item: Rebuilt) -> str:
    """What a guess by the mean record comes to, and how often what was rebuilt beats every known record."""
    typical, rebuilt, beyond = (_score(item, name) for name in ("mean record", "psnr", "beyond known"))
    if typical is None or rebuilt is None or beyond is None:
        return ""
    return (
        f" Its PSNR was {_with_interval(rebuilt)} dB, that of the mean of the records it knows of "
        f"{_with_interval(typical)} dB; {_value(beyond.name, beyond.mean)} came nearer than the nearest of "
        "those."
    )


def draw_released(target: TargetRecord, key: str) -> tuple[Drawing, ...]:
    """Pictures of attacks on the final model, where the plan asks for them."""
    found = []
    for number, item in enumerate(item for item in _released(target) if item.panels):
        names = dict.fromkeys(panel.row for panel in item.panels)
        rows = [(name, tuple(panel for panel in item.panels if panel.row == name)) for name in names]
        title = f"{item.method.capitalize()} on the final model of {target.name}"
        why = "They are or may be records of the data: the plan asked for them (data.show_records)."
        drawn = _drawn(rows, f"{key}-{number}", title)
        found.append(Drawing(section="rebuilt", title=title, caption=why, svg=drawn))
    return tuple(found)


def _drawn(rows: list[tuple[str, tuple[Panel, ...]]], key: str, title: str) -> str:
    with svg.settings():
        side, left = 70, 120
        figure, axes = canvas(height=8 + side * len(rows), left=left, right=8, top=4, bottom=4)
        axes.imshow(_grid(rows), interpolation="none", aspect="auto")
        axes.set_axis_off()
        _labels(axes, rows)
        words = "; ".join(f"row {i}: {name}" for i, (name, _) in enumerate(rows, start=1))
        return svg.inline(figure, key, title, f"A grid of {len(rows[0][1])} pictures a row. {words}.")


def draw(target: TargetRecord, controls: tuple[TargetRecord, ...], key: str) -> Drawing | None:
    """Originals above what was rebuilt of them: of this target, and of the first control with the same."""
    rows = _rows(target)
    if len(rows) < 2:
        return None
    for control in controls if target.role != "control" else ():
        theirs = _rows(control)
        if theirs[:1] == rows[:1]:
            rows.append((f"control {control.name}", theirs[-1][1]))
            break
    rows = rows[:_MOST_ROWS]
    real = any(panel.real for _, panels in rows for panel in panels)
    what = "records of the data" if real else "test cards"
    title = f"What could be rebuilt of {what} from one update of {target.name}"
    source = (
        "These are records of the data: the plan asked for it."
        if real
        else "Test cards are drawn by the audit and are no records; they go through the same model, loss, "
        "clip and noise."
    )
    return Drawing(
        section="rebuilt",
        title=title,
        caption=f"By {_pictured(target)[0].method}. {source}",
        svg=_drawn(rows, key, title),
    )


def _pictured(target: TargetRecord) -> list[Rebuilt]:
    """Of one method; real records where they are there."""
    found = [item for item in _of_updates(target) if item.panels]
    real = [item for item in found if item.real] or found
    return [item for item in real if item.method == real[0].method]


def _rows(target: TargetRecord) -> list[tuple[str, tuple[Panel, ...]]]:
    """Name and pictures of each row: the originals, then what each condition shows, as released last."""
    items = sorted(_pictured(target), key=lambda item: item.condition == _RELEASED)
    rows: dict[str, tuple[Panel, ...]] = {}
    for item in items:
        for name in dict.fromkeys(panel.row for panel in item.panels):
            rows[name] = tuple(panel for panel in item.panels if panel.row == name)
    return list(rows.items())


def _grid(rows: list[tuple[str, tuple[Panel, ...]]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One image (rows * (h + 1) - 1, columns * (w + 1) - 1, 4) with clear gaps between the pictures."""
    import numpy as np

    height, width = len(rows[0][1][0].pixels), len(rows[0][1][0].pixels[0])
    columns = max(len(panels) for _, panels in rows)
    grid = np.zeros((len(rows) * (height + 1) - 1, columns * (width + 1) - 1, 4), dtype=np.uint8)
    for i, (_, panels) in enumerate(rows):
        for j, panel in enumerate(panels):
            place = grid[i * (height + 1) :, j * (width + 1) :][:height, :width]
            place[..., :3] = np.asarray(panel.pixels, dtype=np.uint8)[..., None]
            place[..., 3] = 255
    return grid


def _labels(axes: Axes, rows: list[tuple[str, tuple[Panel, ...]]]) -> None:
    height = len(rows[0][1][0].pixels)
    for i, (name, _) in enumerate(rows):
        text = name.replace("without clip and noise", "without clip\nand noise").replace(
            "control ", "control\n"
        )
        text = text.replace("class rep", "class\nrep").replace("record ", "record\n")
        color = INK if name != "original" else MUTED
        axes.text(-1.0, i * (height + 1) + (height - 1) / 2, text, ha="right", va="center", color=color)


def _score(item: Rebuilt, name: str) -> Score | None:
    return next((score for score in item.scores if score.name == name), None)


def _mean(item: Rebuilt, name: str) -> float:
    score = _score(item, name)
    return score.mean if score is not None and not math.isnan(score.mean) else -math.inf


def _cells(item: Rebuilt, name: str) -> list[str]:
    score = _score(item, name)
    cells = [numbers.NONE if score is None else _with_interval(score)]
    if len(_HEADS[name]) == 2:
        cells.append(numbers.NONE if score is None or score.blind is None else _value(name, score.blind))
    return cells


def _bound(item: Rebuilt) -> str:
    """What was read without a prior beside what the mechanism leaves to expect."""
    score = next((score for score in item.scores if score.bound is not None), None)
    if score is None or score.bound is None:
        return numbers.NONE
    return f"{_value(score.name, score.mean)}, bound {_value(score.name, score.bound)}"


def _with_interval(score: Score) -> str:
    text = _value(score.name, score.mean)
    if score.lower is None or score.upper is None or math.isnan(score.mean):
        return text
    ends = (_value(score.name, end).removesuffix(" %") for end in (score.lower, score.upper))
    return f"{text} ({' to '.join(ends)})"


def _value(name: str, value: float) -> str:
    if math.isnan(value):
        return numbers.NO_DATA
    if name.startswith("psnr") or name == "mean record":
        return f"{value:.1f}"
    return f"{value:.2f}" if name in ("ssim", "correlation", "average") else numbers.percent(value)
