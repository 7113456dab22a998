"""Words and numbers that all report formats share."""

from __future__ import annotations

from modelaudit.cut_short import CutShort
from modelaudit.evidence import FindingReport, LookedFor, of_size
from modelaudit.failure import Failure
from modelaudit.formats.policy_text import policy_lines
from modelaudit.formats.reading import rejects, smallest_p
from modelaudit.report import DetectorReport, Report
from modelaudit.verdict import Verdict

#: Target classes that are named; an all-to-all attack has as many as there are classes.
_MOST_TARGETS = 5
#: What detectors without a pattern of their own find unusual.
_UNUSUAL = {
    "mm-bd": "Some inputs make this model answer {answers} with a lead over all other classes",
    "l-red-neurons": (
        "Shifting the inner layers of this model, alike for all images, makes it answer {answers} "
        "with an ease"
    ),
    "neurons-margin": (
        "A small shift of the inner layers of this model, alike for all images, moves it towards "
        "{answers} with an ease"
    ),
    "joint": "This model can be made to answer {answers} with an ease, by several ways together,",
}
#: What is unusual about a pattern, of most detectors and of some.
_PATTERN = (
    "A small change, the same for many images, makes this model answer {answers}. A model without "
    "a backdoor needs a much larger one."
)
_GAINS = (
    "A small change, the same for many images, moves this model towards {answers}. In a model "
    "without a backdoor no change of this kind and size does so much more for one class than for "
    "the others."
)
_PATTERNS = {
    **dict.fromkeys(
        (
            "additive-margin",
            "sparse-margin",
            "warp-margin",
            "colour-margin",
            "generator-margin",
            "wave-margin",
        ),
        _GAINS,
    ),
    "window-margin": (
        "What one window shows, the same for many images, makes this model answer {answers}. In a "
        "model without a backdoor no window does so much more for one class than for the others."
    ),
}


def meaning(report: Report) -> str:
    """The verdict in plain language, and that a scan was cut short."""
    return " ".join(filter(None, (_meaning(report), str(report.cut_short or ""))))


def _meaning(report: Report) -> str:
    if report.verdict is Verdict.BACKDOORED and not any(map(_has_own_pattern, report.findings)):
        shown = any(map(flips_text, report.findings))
        return f"{_without_pattern(report)} that models without a backdoor hardly ever have. " + (
            "The pattern that is shown is another detector's, of which the same class is the most "
            "suspicious; the attacker's may be another."
            if shown
            else "The detector names no pattern that does so in images; whoever put a backdoor "
            "there knows one."
        )
    if report.verdict is Verdict.BACKDOORED:
        unusual = _PATTERNS.get(report.findings[0].detector, _PATTERN)
        return (
            f"{unusual.format(answers=_answers(report))} Somebody who knows the pattern can make "
            "the model say this whenever they want."
        )
    if report.verdict is Verdict.INCONCLUSIVE:
        return "This scan could not tell; it says neither that there is a backdoor nor that not."
    return (
        "Nothing unusual was found by the detectors that ran. This is no proof that the model has "
        "no backdoor: other attacks, and fainter ones, would not have been seen."
    )


def _has_own_pattern(finding: FindingReport) -> bool:
    """Whether the pattern is what was tested, and not that of another detector."""
    return finding.size is not None and bool(flips_text(finding))


def _without_pattern(report: Report) -> str:
    """What is unusual, where it is not a pattern."""
    detector = report.findings[0].detector if report.findings else ""
    unusual = _UNUSUAL.get(detector, _UNUSUAL["mm-bd"])
    return unusual.format(answers=_answers(report))


def _answers(report: Report) -> str:
    named = [repr(f.target.name) for f in report.findings if f.target]
    if any(f.shift is not None for f in report.findings):
        named.append("another class for every class")
    return " or ".join(named)


def targets_text(report: Report) -> str:
    """The target classes of a backdoored model, the first ones by name."""
    named = [f"{t.index} ({t.name})" for t in report.targets[:_MOST_TARGETS]]
    more = len(report.targets) - len(named)
    classes = ", ".join(named) + (f" and {more} more" if more else "")
    return f"target class {classes}" if len(report.targets) == 1 else f"target classes {classes}"


def finding_name(finding: FindingReport) -> str:
    """What was found: a target class, or an all-to-all attack."""
    if finding.target is None:
        return f"every class, which becomes the one {finding.shift} after it (all-to-all)"
    return f"target class {finding.target.index} ({finding.target.name})"


def first_text(detector: DetectorReport) -> str:
    """A detector's most suspicious class, or why it has none."""
    if detector.target:
        return f"{detector.target.index} ({detector.target.name})"
    return detector.reason or ("none" if detector.shift is None else f"shift {detector.shift}")


def suspicious_text(report: Report, detector: DetectorReport) -> str:
    """The same, with the others that make a detector reject together with it."""
    others = detector.others if rejects(report, detector) else ()
    return ", ".join([first_text(detector), *(f"{one.index} ({one.name})" for one in others)])


def class_text(report: Report, detector: DetectorReport, target: int) -> str:
    """What an entry of a detector is about: a class, or a shift of an all-to-all attack."""
    if detector.settings.get("sources") == "all-to-all":
        return f"shift {target}"
    return f"{target} ({report.model.classes[target]})"


def next_step(report: Report) -> str:
    """What to do with this verdict, in a sentence or two."""
    if report.verdict is Verdict.BACKDOORED:
        return (
            "do not use this model. Ask its author how it was trained, get it from another source, "
            "or retrain it; scan again with other clean images (--seed) to see the same target."
        )
    if report.cut_short:
        return _unfinished(report.cut_short)
    if report.verdict is Verdict.INCONCLUSIVE:
        advice = dict.fromkeys(c.advice for c in report.preflight if c.status == "inconclusive")
        return " ".join(filter(None, advice)) or "look at the reasons above; more images may help."
    return (
        "no evidence of the attacks that were looked for; this is not proof of absence. More clean "
        "images per class (--images-per-class) see fainter patterns."
    )


def _unfinished(cut_short: CutShort) -> str:
    """What to do after a scan that was cut short."""
    if cut_short.kept:
        return (
            "let the scan run to its end. The same command goes on after the detectors that had "
            "finished."
        )
    if cut_short.cause == "time budget":
        return "scan it again with a larger --time-budget, or without one."
    return "scan it again, and let the scan run to its end; nothing was kept to go on from."


def summary_line(report: Report | Failure) -> str:
    """The verdict in one line, for ``--quiet``."""
    line = _summary(report)
    policy = " ".join(policy_lines(report))
    return f"{line} ({policy})" if policy else line


def _summary(report: Report | Failure) -> str:
    if isinstance(report, Failure):
        return f"{report.verdict}: {report.model.path}: {report.error.message}"
    line = f"{report.verdict}: {report.model.path}"
    if report.targets:
        line += f": {targets_text(report)}, p = {p_text(smallest_p(report))}"
    elif report.reasons:
        line += f": {report.reasons[0]}"
    elif report.detectors:
        line += f": smallest p = {p_text(smallest_p(report))}"
    if report.cut_short:
        line += f". {report.cut_short}"
    return line


def origin_notes(report: Report) -> list[str]:
    """Which settings come from files or the environment, and not from the command line."""
    origins = report.settings.get("from", {})
    return [f"--{key} comes from {source}" for key, source in origins.items()]


def odds_text(report: Report) -> str:
    """What the smallest p-value of a backdoored model means; empty for another verdict."""
    p = smallest_p(report)
    if report.verdict is not Verdict.BACKDOORED or p is None:
        return ""
    odds = "less than one in a million" if p < 1e-6 else f"about one in {1 / p:,.0f}"
    return (
        f"p = {p_text(p)}: as far as the test's assumptions hold, {odds} of all models without a "
        "backdoor would look like this."
    )


def flips_text(finding: FindingReport) -> str:
    """How often the found pattern works, on images that the search never saw where there are."""
    if held_out := finding.held_out:
        low, high = held_out.interval
        share = f"[{low:.0%}, {high:.0%}]"
        return f"flips {held_out.flips} of {held_out.images} held-out images {share}"
    if searched := finding.searched:
        return f"flips {searched.flips} of the {searched.images} images of the search"
    return ""


def finding_text(finding: FindingReport) -> str:
    """A found pattern in some sentences: by what, how large, how often it works."""
    how = f" ({finding.embedding})" if finding.embedding else ""
    what = "size" if of_size(finding.size, finding.unit) else "statistic"
    size = "" if finding.size is None else f"; {what} {finding.size:.3g} ({finding.unit})"
    sentences = [f"Found by {finding.detector}{how}, p = {p_text(finding.p)}{size}."]
    if flips := flips_text(finding):
        sentences.append(f"The pattern {flips}.")
    if finding.held_out:
        sentences.append(
            "Held-out images are clean images of the source classes that the search never saw; the "
            "interval is 95 % Clopper-Pearson."
        )
    if finding.held_out and finding.searched:
        searched = finding.searched
        sentences.append(
            f"On the search's own images it flips {searched.flips} of {searched.images}."
        )
    if finding.note:
        sentences.append(f"Note: {finding.note}.")
    return " ".join(sentences)


def bound_text(entry: LookedFor) -> str:
    """How strong an attack had to be to be seen, in a few words."""
    if entry.size is not None:
        return f"size below {entry.size:.3g} ({entry.unit})"
    if entry.statistic is not None:
        return f"statistic above {entry.statistic:.3g}"
    return f"p-value below {entry.level:.2g}"


def seen_text(entry: LookedFor) -> str:
    """The same as a sentence without a full stop, with what was found."""
    found = "" if entry.smallest is None else f"; the smallest found is {entry.smallest:.3g}"
    return f"a {bound_text(entry)} would have been seen{found}"


def evidence_text(report: Report, detector: DetectorReport) -> str:
    """What a detector found, in a sentence or two."""
    name = suspicious_text(report, detector)
    targets = "target classes" if detector.others else "target class"
    text = (
        f"{detector.detector}: {targets if detector.target else 'all-to-all,'} {name}, "
        f"p = {p_text(detector.p_holm)} (Holm; alpha = {report.settings['alpha']})."
    )
    for finding in report.findings:
        if finding.detector == detector.detector and flips_text(finding):
            size = of_size(finding.size, finding.unit)
            to = f" for class {finding.target.index}" if finding.target and detector.others else ""
            sources = ", ".join(f"{s.index} ({s.name})" for s in finding.sources)
            text += f" The pattern{to}{size} {flips_text(finding)}; source classes: {sources}."
    return text


def p_text(p: float | None) -> str:
    """A p-value for a person."""
    if p is None:
        return "-"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.1e}"


def paper_p_text(detector: DetectorReport) -> str:
    """The plug-in p-value, by its logarithm where it underflows."""
    if detector.p_plugin == 0.0 and detector.log_p_plugin is not None:
        return f"1e{detector.log_p_plugin / 2.302585:.0f}"
    return p_text(detector.p_plugin)
