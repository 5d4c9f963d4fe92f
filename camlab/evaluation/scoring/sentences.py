"""What a scoring has found, in plain sentences."""

from collections.abc import Iterator

from camlab.errors import listed
from camlab.evaluation.scoring.request import score_of_measure, signed, titled
from camlab.evaluation.scoring.rows import Row
from camlab.evaluation.scoring.summary import LEAST, Summary
from camlab.scores.statistics import Interval

_PLACE, _NEED = "auroc", "srg_"


def sentence(summary: Summary, row: Row) -> str:
    """One sentence about a method: finds the object or not, is needed or not, follows the weights or not.

    Args:
        summary: What the scoring has found.
        row: The row of a method.
    """
    verdict = summary.verdicts[row.name]
    if verdict.passes is None:
        if verdict.similarity.n == 0:
            return (
                f"{row.title} cannot be judged: no map could be compared with that of a network with random weights,"
                " because its cells are all the same, or because such a network gives no finite logits."
            )
        n, judged = len(summary.pictures), verdict.similarity.n
        if judged < n:
            return f"{row.title} cannot be judged: only {judged} of {n} pictures have a map whose cells differ."
        return f"{row.title} cannot be judged: {n} picture{' is' if n == 1 else 's are'} too few."
    parts = [part for part in (_place(summary, row), _need(summary, row)) if part]
    alike = f"Spearman {verdict.similarity.mean:.2f}"
    if verdict.passes:
        return f"{row.title} {_joined([*parts, f'changes with the weights ({alike} with a random network)'])}."
    found = f" It {_joined(parts)}, but that is no evidence about this network." if parts else ""
    return (
        f"{row.title} FAILS the sanity gate: its maps stay alike ({alike}) when all weights are random, so they do not"
        f" explain this network.{found}"
    )


def sentences(summary: Summary) -> list[str]:
    """All that the reader of the tables has to know: methods, pseudo-methods that win, imputers that disagree."""
    return [
        *summary.pictures.notes,
        *(f"{name} is left out: {reason}" for name, reason in summary.refused.items()),
        *_about_methods(summary),
        *_no_evidence(summary),
        *_imputers(summary),
    ]


def _about_methods(summary: Summary) -> list[str]:
    n = len(summary.pictures)
    if n < LEAST:
        return [f"No method can be judged: {n} picture{' is' if n == 1 else 's are'} too few."]
    return [sentence(summary, row) for row in summary.methods]


def _listed(measures: list[str]) -> str:
    titles = [titled(measure) for measure in measures]
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])}, and {parts[-1]}"


def _place(summary: Summary, row: Row) -> str | None:
    cell, centre = summary.cells[row.name].get(_PLACE), summary.beside("centre", row)
    if cell is None or cell.interval.n < LEAST or centre is None:
        return None
    figures = f"auroc {cell.interval.mean:.2f}, centre {summary.cells[centre][_PLACE].interval.mean:.2f}"
    if cell.interval.low <= 0.5:
        return f"does not find the object ({figures})"
    if not _is_above(summary.difference(_PLACE, row.name, centre)):
        return f"finds the object no better than the centre of the picture does ({figures})"
    edges = summary.beside("edges", row)
    if edges is not None and not _is_above(summary.difference(_PLACE, row.name, edges)):
        edge = summary.cells[edges][_PLACE].interval.mean
        return f"finds the object, though no better than an edge detector ({figures}, edges {edge:.2f})"
    return f"finds the object ({figures})"


def _need(summary: Summary, row: Row) -> str | None:
    measures = [measure for measure in summary.measures if measure.startswith(_NEED)]
    cells = {measure: summary.cells[row.name][measure] for measure in measures}
    centre = summary.beside("centre", row)
    if not measures or centre is None or any(cell.interval.n < LEAST for cell in cells.values()):
        return None
    figures = ", ".join(f"{titled(measure)} {signed(cell.interval.mean)}" for measure, cell in cells.items())
    needed = [cell.interval.low > 0 for cell in cells.values()]
    if not any(needed):
        return f"does not show what the network needs ({figures})"
    if not all(needed):
        return f"shows what the network needs by one imputer and not by another ({figures})"
    more = [_is_above(summary.difference(measure, row.name, centre)) for measure in measures]
    beside = f"{figures}; centre {', '.join(signed(summary.cells[centre][m].interval.mean) for m in measures)}"
    if all(more):
        return f"shows what the network needs ({beside})"
    return f"shows what the network needs no better than the centre of the picture does ({beside})"


def _no_evidence(summary: Summary) -> Iterator[str]:
    """Name the scores in which no method is better beyond doubt than some pseudo-method other than the mask."""
    for pseudo in (row for row in summary.rows if row.is_pseudo and row.method != "mask"):
        won = [measure for measure in summary.measures if _is_best(summary, pseudo, measure)]
        if won:
            yield (
                f"No method is better than {pseudo.title}, which knows nothing of the network, in"
                f" {_listed(won)}: on these pictures a good score there is no evidence."
            )


def _is_best(summary: Summary, pseudo: Row, measure: str) -> bool:
    """Whether no method is better than a pseudo-method beyond doubt."""
    score = score_of_measure(measure)
    if score.question not in ("place", "need"):
        return False
    found = [summary.difference(measure, row.name, pseudo.name) for row in summary.methods]
    known = [each for each in found if each is not None]
    sign = 1 if score.higher_is_better else -1
    return bool(known) and not any(each.excludes_zero and sign * each.mean > 0 for each in known)


def _imputers(summary: Summary) -> Iterator[str]:
    """Name the pairs of methods that two imputers rank in opposite order, each beyond doubt."""
    measures = [measure for measure in summary.measures if measure.startswith(_NEED)]
    for i, one in enumerate(measures):
        for other in measures[i + 1 :]:
            opposite = [
                f"{row.title} and {second.title}"
                for k, row in enumerate(summary.methods)
                for second in summary.methods[k + 1 :]
                if _order(summary, one, row, second) * _order(summary, other, row, second) < 0
            ]
            if opposite:
                yield f"{titled(one)} and {titled(other)} rank in opposite order: {listed(opposite, 5)}."
            elif _leaders(summary, one).isdisjoint(_leaders(summary, other)):
                yield f"{titled(one)} and {titled(other)} put different methods first, so neither can be called best."


def _order(summary: Summary, measure: str, row: Row, other: Row) -> int:
    found = summary.difference(measure, row.name, other.name)
    return 0 if found is None or not found.excludes_zero else 1 if found.mean > 0 else -1


def _leaders(summary: Summary, measure: str) -> set[str]:
    """Methods that no other method beats beyond doubt; all of them if there are too few pictures."""
    rows = summary.methods
    beaten = {row.name for row in rows for other in rows if _order(summary, measure, row, other) < 0}
    return {row.name for row in rows} - beaten


def _is_above(found: Interval | None) -> bool:
    return found is not None and found.low > 0
