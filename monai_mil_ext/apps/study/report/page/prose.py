"""Methods of a study as a paragraph that is fit for a paper, with its references."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from monai_mil_ext.utils import quote_names

from .report_facts import ReportFacts
from .report_tables import format_number

__all__ = ["count_in_words", "has_thresholds", "join_words", "methods_text", "plan_words", "references"]

PAPERS = {
    "abmil": "Ilse M, Tomczak J, Welling M. Attention-based deep multiple instance learning. arXiv:1802.04712",
    "clam": "Lu MY et al. Data-efficient and weakly supervised computational pathology. arXiv:2004.09666",
    "qgmil": "Zedda L et al. QG-MIL. arXiv:2606.20027",
    "asmil": "Ye L et al. ASMIL: attention-stabilized multiple instance learning. arXiv:2603.06658",
    "transmil": "Shao Z et al. TransMIL: transformer based correlated multiple instance learning. arXiv:2106.00908",
    "additivemil": "Javed SA et al. Additive MIL: intrinsically interpretable MIL for pathology. arXiv:2206.01794",
    "dsmil": "Li B, Li Y, Eliceiri KW. Dual-stream multiple instance learning network. arXiv:2011.08939",
    "clammb": "Lu MY et al. Data-efficient and weakly supervised computational pathology. arXiv:2004.09666",
    "acmil": "Zhang Y et al. Attention-challenging multiple instance learning. arXiv:2311.07125",
    "smoothattention": "Castro-Macías F et al. Sm: enhanced localization in MIL. arXiv:2410.03276",
    "smap": "Castro-Macías F et al. Sm: enhanced localization in MIL. arXiv:2410.03276",
    "windowmil": "Estimators for a run of shifted means. arXiv:2510.25759",
    "markovmil": "Rabiner LR. A tutorial on hidden Markov models. Proc IEEE 1989;77:257-286",
    "instanceconv": "Harvey E, Loevlie D, Hughes MC. Normal guidance is what attention needs. arXiv:2605.27306",
    "centerprior": "Center baseline of arXiv:2604.26807",
    "ng": "Harvey E, Loevlie D, Hughes MC. Normal guidance is what attention needs. arXiv:2605.27306",
    "anchor": "Ye L et al. ASMIL: attention-stabilized multiple instance learning. arXiv:2603.06658",
    "coral": "Cao W, Mirjalili V, Raschka S. Rank consistent ordinal regression. arXiv:1901.07884",
    "cox": "Cox DR. Regression models and life-tables. J R Stat Soc B 1972;34:187-220",
    "discrete": "Gensheimer MF, Narasimhan B. A scalable discrete-time survival model. PeerJ 2019;7:e6257",
    "harrell": "Harrell FE et al. Evaluating the yield of medical tests. JAMA 1982;247:2543-2546",
    "youden": "Youden WJ. Index for rating diagnostic tests. Cancer 1950;3:32-35",
    "bootstrap": "Efron B, Tibshirani R. An introduction to the bootstrap. Chapman & Hall, 1993",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70",
}
DEFAULT = 0.5  # threshold without a choice, as in the statistics
SUFFIXES = {"ng": "normal guidance", "kg": "kernel guidance", "anchor": "an attention anchor"}
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LOSSES = {
    "classification": "cross-entropy",
    "multilabel": "binary cross-entropy of each label, leaving out unknown labels",
    "ordinal": "the CORAL loss for ordered classes",
    "regression": "the squared error of the standardized value",
    "survival": "the likelihood of discrete-time hazards",
    "cox": "the Cox partial likelihood",
}
OUTCOMES = {
    "multilabel": "presence of each of {n} labels ({names})",
    "ordinal": "{n} ordered classes ({names})",
    "regression": "a continuous value",
    "survival": "the time to an event, with censoring",
    "cox": "the time to an event, with censoring",
}


def join_words(words: Sequence[str]) -> str:
    """Return words as an enumeration.

    Example:
        >>> join_words(["a", "b", "c"]), join_words(["a", "b"]), join_words([])
        ('a, b and c', 'a and b', '')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _count(number: Any, noun: str, plural: str = "") -> str:
    """Return a number with its noun, small numbers of things in digits."""
    return f"{format_number(number)} {noun if number == 1 else plural or f'{noun}s'}"


def _keys(method: str) -> list[str]:
    """Return the papers of a method by its name, such as ``"TransMIL+NG"``."""
    keys = [re.sub(r"[^a-z]", "", part.lower()) for part in method.split("+")]
    return [key for key in keys if key in PAPERS]


def references(facts: ReportFacts) -> list[str]:
    """Return the references in the order in which the methods text cites them."""
    keys = [key for name in facts.summaries for key in _keys(name)]
    keys += {"ordinal": ["coral"], "cox": ["cox"], "survival": ["discrete"]}.get(facts.task.kind, [])
    keys += ["harrell"] if facts.task.has_times else []
    keys += ["youden"] if _has_chosen_thresholds(facts) else []
    keys += ["bootstrap"]
    keys += ["holm"] if len(facts.comparisons) > 1 else []
    return list(dict.fromkeys(PAPERS[key] for key in keys))


def _cite(facts: ReportFacts, *keys: str) -> str:
    listed = references(facts)
    numbers = sorted({listed.index(PAPERS[key]) + 1 for key in keys if PAPERS.get(key) in listed})
    return f" [{', '.join(map(str, numbers))}]" if numbers else ""


def methods_text(facts: ReportFacts) -> str:
    """Return what was done as a paragraph for the methods section of a paper."""
    parts = (_cohort(facts), _features(facts), _folds(facts), _networks(facts), _selection(facts), _clinical(facts))
    return " ".join(sentence for part in (*parts, _statistics(facts)) for sentence in part)


def _cohort(facts: ReportFacts) -> Iterable[str]:
    cohort, task = facts.cohort, facts.task
    text = _count(cohort.get("num_cases", 0), "case")
    if cohort.get("num_patients"):
        text += f" of {_count(cohort['num_patients'], 'patient')}"
    if (cohort.get("num_sites") or 0) > 1:
        text += f" from {_count(cohort['num_sites'], 'site')}"
    yield f"The {'external ' if facts.external else ''}cohort comprised {text}{_labels(facts)}."
    classes = quote_names(task.class_names)
    names = {"n": count_in_words(len(classes)), "names": join_words(classes)}
    outcome = OUTCOMES[task.kind].format(**names) if task.kind in OUTCOMES else ""
    if not outcome:
        outcome = f"the class of a case ({' or '.join(classes) if task.is_binary else names['names']})"
    yield f"The outcome was {outcome}."
    if left := cohort.get("left_out"):
        number = left if isinstance(left, int) else len(left)
        words = ("case was", "its") if number == 1 else ("cases were", "their")
        counted = count_in_words(number).capitalize()
        yield f"{counted} further {words[0]} left out because {words[1]} data could not be used."


def _labels(facts: ReportFacts) -> str:
    labels = facts.cohort.get("labels") or {}
    if not labels:
        return ""
    if facts.task.kind == "regression":
        known = {key: format_number(value) for key, value in labels.items()}
        spread = f" ± {known['sd']}" if "sd" in known else ""
        ends = f", range {known['min']} to {known['max']}" if {"min", "max"} <= known.keys() else ""
        return f" (mean value {known['mean']}{spread}{ends})" if "mean" in known else ""
    if facts.task.has_times:
        events = labels.get("event", 0)
        return (
            f", with {_count(events, 'event')}"
            + (f" and {labels['censored']} censored" if "censored" in labels else "")
            + _follow_up(facts)
        )
    of = "with " if facts.task.kind == "multilabel" else ""
    return f" ({', '.join(f'{count} {of}{name}' for name, count in facts.label_counts.items())})"


def _follow_up(facts: ReportFacts) -> str:
    median = facts.cohort.get("median_follow_up")
    return "" if median is None else f" (median follow-up {format_number(median)}, by reverse Kaplan-Meier)"


def count_in_words(number: int) -> str:
    """Return a small number as a word.

    Example:
        >>> count_in_words(3), count_in_words(12)
        ('three', '12')
    """
    return WORDS[number] if number < len(WORDS) else str(number)


def _features(facts: ReportFacts) -> Iterable[str]:
    noun = str(facts.cohort.get("instances") or "instances")
    median = facts.cohort.get("median_instances")
    low, high = facts.cohort.get("range_instances") or (None, None)
    spread = f", range {low} to {high}" if low != high else ""
    text = f"Each case was a bag of {noun}" + (f" (median {median:.5g}{spread})" if median else "")
    width, encoder = facts.cohort.get("num_features"), facts.cohort.get("encoder")
    if encoder:
        yield f"{text}, each represented by {f'{width} features' if width else 'the features'} of {encoder}."
    else:
        yield f"{text} with {f'{width} ' if width else ''}precomputed features{' each' if width else ''}."
    if prepared := facts.cohort.get("preparation"):
        yield f"For the encoder, {noun} were prepared as follows: {prepared}."


def plan_words(facts: ReportFacts) -> str:
    """Return how networks were evaluated, as the words after "by"; "" if it is unknown."""
    folds, count = facts.folds, int(facts.folds.get("num_folds") or 0)
    if plan := str(folds.get("plan") or ""):
        return f"{plan[:1].lower()}{plan[1:].rstrip('.')}"
    if not folds or not count:
        return ""
    if folds.get("by") == "site":
        return f"leave-one-site-out cross-validation ({_count(count, 'fold')})"
    if count == 1:
        return "one fixed test set"
    spread = " with sites spread evenly" if folds.get("by") == "spread" else ""
    stratum = {"regression": "", "survival": "event", "cox": "event"}.get(facts.task.kind, "label")
    stratified = f", stratified by {stratum}" if stratum else ""
    repeats = folds.get("repeats") or 1
    again = f", repeated {repeats} times with other folds" if repeats > 1 else ""
    return f"{count}-fold cross-validation by patient{stratified}{spread}{again}"


def _folds(facts: ReportFacts) -> Iterable[str]:
    if facts.external:
        model = (
            "each method's network was trained on all of its cases, for the median number of epochs of the folds"
            if facts.folds.get("refit")
            else "the predictions of the networks of all folds were averaged"
        )
        yield f"Networks, thresholds and all settings were those of the first cohort and were not changed; {model}."
        return
    if plan := plan_words(facts):
        yield f"Networks were evaluated {'on' if plan.endswith('test set') else 'by'} {plan}."
    count = int(facts.folds.get("num_folds") or 0)
    if "patient" not in plan:
        yield "All cases of a patient were in the same part."
    share = facts.folds.get("val_fraction")
    of = f" ({100 * share:.3g} % of the patients outside of the test part)" if share and count > 1 else ""
    yield (
        "In each fold, one network was trained on the training part and the epoch with the lowest loss of the "
        f"validation part{of} was kept; the test part was used for nothing but the evaluation."
    )


def _networks(facts: ReportFacts) -> Iterable[str]:
    names = [f"{_method_words(name)}{_cite(facts, *_keys(name))}" for name in facts.summaries]
    verb = "were compared" if len(names) > 1 else "was evaluated" if facts.external else "was trained"
    loss = {"ordinal": "coral", "cox": "cox", "survival": "discrete"}.get(facts.task.kind, "")
    noun = "One method" if len(names) == 1 else f"{count_in_words(len(names)).capitalize()} methods"
    yield f"{noun} of multiple-instance learning {verb}: {join_words(names)}."
    yield f"The loss was {LOSSES[facts.task.kind]}{_cite(facts, loss) if loss else ''}."
    yield from _training(facts)


def _training(facts: ReportFacts) -> Iterable[str]:
    """State the training settings that all methods share, and that were not chosen in each fold."""
    chosen = {key for method in facts.methods.values() for row in method.get("chosen") or () for key in row}

    def shared(name: str) -> Any:
        values = {str(v): v for m in facts.methods.values() if (v := (m.get("settings") or {}).get(name)) is not None}
        return next(iter(values.values())) if len(values) == 1 and name not in chosen else None

    rate, epochs, patience = shared("learning_rate"), shared("epochs"), shared("patience")
    if epochs is not None:
        at = f" at a learning rate of {rate:g}" if rate is not None else ""
        stop = f", stopped {_count(patience, 'epoch')} after the lowest validation loss" if patience is not None else ""
        yield f"Networks were trained by AdamW{at} for at most {_count(epochs, 'epoch')}{stop}."


def _method_words(name: str) -> str:
    base, *suffixes = name.split("+")
    known = [SUFFIXES.get(suffix.strip().lower(), suffix) for suffix in suffixes]
    return f"{base} with {join_words(known)}" if known else base


def _selection(facts: ReportFacts) -> Iterable[str]:
    counts = {int(m["candidates"]) for m in facts.methods.values() if (m.get("candidates") or 0) > 1}
    if counts:
        number = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        yield (
            f"In each fold, settings were chosen from {number} candidates by the loss of the validation part; "
            "no setting was chosen by test data."
        )
    elif facts.methods:
        yield "Settings were fixed in advance (see the table of methods)."


def _clinical(facts: ReportFacts) -> Iterable[str]:
    if not (facts.clinical.get("summaries") or facts.clinical.get("effects")):
        return
    columns = list(facts.clinical.get("columns") or ())
    named = f" ({join_words(columns)})" if columns else ""
    model = "Cox" if facts.task.has_times else "linear" if facts.task.kind == "regression" else "logistic"
    first = " of the first cohort" if facts.external else ""
    yield (
        f"Clinical variables{named} were modeled alone by {model} regression with a ridge penalty chosen by inner "
        f"cross-validation, fitted in each training part{first}, and combined with the prediction of the bag by late "
        f"fusion, calibrated and weighted by the validation part{first}."
    )
    if missing := facts.clinical.get("missing"):
        cases = join_words([f"{name} ({count})" for name, count in missing.items()])
        yield (
            f"Cases lacked a value of {cases}: missing numbers were replaced by the median of the training part{first} "
            "with an indicator where it lacked values too, and missing categories were a category of their own."
        )


def _thresholds(facts: ReportFacts) -> list[float]:
    rows = [row for summary in facts.finished.values() for row in summary.get("thresholds") or ()]
    values = [row.get("threshold") for row in rows]
    return [float(v) for value in values for v in (value if isinstance(value, (list, tuple)) else [value]) if v]


def has_thresholds(facts: ReportFacts) -> bool:
    """Return whether a method has operating points."""
    return bool(_thresholds(facts))


def _has_chosen_thresholds(facts: ReportFacts) -> bool:
    return any(value != DEFAULT for value in _thresholds(facts))


def _operating(facts: ReportFacts) -> Iterable[str]:
    """State how the operating points were chosen; a part of too few cases has the default."""
    values = _thresholds(facts)
    if not values:
        return
    if not _has_chosen_thresholds(facts):
        yield f"The operating point was a probability of {DEFAULT}, since no validation part allowed a choice."
    elif facts.external:
        youden = _cite(facts, "youden")
        yield f"Operating points were fixed before, by Youden's index{youden} of the predictions of the first cohort."
    else:
        rest = f", and at {DEFAULT} where that part did not allow a choice" if DEFAULT in values else ""
        youden = _cite(facts, "youden")
        yield f"Operating points were chosen for each fold by Youden's index{youden} on its validation part{rest}."


def _statistics(facts: ReportFacts) -> Iterable[str]:
    samples = facts.provenance.get("num_samples") or 1000
    ranked = facts.metric(facts.main)
    if any((s.get("num_folds") or 1) > 1 for s in facts.finished.values()) and facts.main in ("auroc", "c_index"):
        cite = _cite(facts, "harrell") if facts.task.has_times else ""
        yield (
            f"Predictions of different folds were never ranked together: the {ranked}{cite} is that of pairs of the "
            "same fold."
        )
    if any((s.get("num_repeats") or 1) > 1 for s in facts.finished.values()):
        yield "Values are means over the repeats."
    yield from _operating(facts)
    yield (
        "95 % intervals are normal ones, on a scale without bounds (such as the logit of a share), with the standard "
        f"error of a bootstrap of {samples:,} resamples by patient{_cite(facts, 'bootstrap')}, and are conditional on "
        "the trained networks."
    )
    if number := len(facts.comparisons):
        yield (
            f"{'The difference of two methods was' if number == 1 else 'Differences of two methods were'} compared "
            "with the standard error of the same bootstrap, paired by patient, in a two-sided test"
            + (
                f"; p-values are corrected by Holm's procedure{_cite(facts, 'holm')} over {number} comparisons, and "
                "intervals are not."
                if number > 1
                else "."
            )
        )
    if version := (facts.provenance.get("versions") or {}).get("monai-mil-ext"):
        monai = facts.provenance["versions"].get("monai")
        yield f"Analyses used monai-mil-ext {version}" + (f" and MONAI {monai}." if monai else ".")
