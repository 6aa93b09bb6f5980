"""The report on kind "frame-weights": sections on the result as a whole, on how it was found, and on the time taken."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from hpcfit.kinds.frame_weights.files import FrameWeightsRun
from hpcfit.kinds.frame_weights.numbers import MISFIT, error_of, minimised, resamples
from hpcfit.kinds.frame_weights.report_experiments import experiments
from hpcfit.kinds.frame_weights.report_explained import explained
from hpcfit.kinds.frame_weights.report_map import agreement, sections, shells
from hpcfit.kinds.frame_weights.report_study import PRIOR_CHOSEN, dropping, starts, theta
from hpcfit.kinds.frame_weights.report_weights import weights
from hpcfit.report.page import (
    Card,
    Cards,
    Figure,
    Section,
    Text,
    correlation,
    grouped,
    near_zero,
    plural,
    plus_minus,
    significant,
)
from hpcfit.report.report import Contents
from hpcfit.report.sections import phases, rate, settings, study

MEANING = {
    "cc_free": ("CC free", "the total one over the orbits that were held out of the fit"),
    "cc_free_anisotropic": ("CC free, anisotropic", "the anisotropic one over the orbits that were held out"),
    "misfit_free": ("misfit, held out", "what the fit minimises, of the orbits that were held out of it"),
    "misfit": ("misfit", "what the fit minimises, without the price of leaving the prior"),
    "cc": ("CC, total", "Pearson correlation with the observed map"),
    "cc_anisotropic": ("CC, anisotropic", "the same of what a smooth radial curve leaves of both"),
    "ess": ("ESS, frames", "Kish effective sample size (Σw)²/Σw²: about how many frames carry the fit"),
    "kl": ("KL from prior", "Σw ln(w/w⁰), nats: how far the weights moved"),
    "chi2": ("χ² of experiments", "the sum over their fitted data of ((calculated − measured) / σ)²"),
    "sum_w": ("Σw", "the weights need not sum to 1; 1 is what an ensemble has"),
    "bragg_leakage": ("Bragg leakage", "share of the calculated intensity that is Bragg intensity, as Σw is not 1"),
}
SHOWN = {
    "misfit": MISFIT.shown, "misfit_free": MISFIT.shown, "ess": significant, "sum_w": significant, "kl": near_zero,
    "bragg_leakage": near_zero, "chi2": near_zero,
}  # fmt: skip
CEILINGS = {"cc": "total", "cc_anisotropic": "anisotropic"}  # what CC* limits them
NO_HOLD_OUT = (
    "These CC are of the same reflections that the weights were fitted to. A higher CC than the baseline does not show "
    "by itself that the weights are right: as many weights as frames can follow noise, and frames that scatter alike "
    "cannot be told apart."
)
HOLD_OUT = (
    "CC free is of orbits that the fit did not see, Friedel mates included. Where it stays behind CC, the difference "
    "is noise that the weights follow: a larger theta, fewer frames or more reflections bring the two together."
)
ERRORS = (
    "± is the standard deviation over {resamples}, both kinds together: of blocks of frames, how well the simulation "
    "sampled; of orbits, how far the noise of the map reaches."
)
FINAL_FIT = "Shown is the final fit, '{name}', one of {n}. "
NEWEST_FIT = "Shown is the newest fit, number {number}. "
BEST_START = "Shown is '{name}', the best of the fits; the result is the prior weights, which no fit led to. "
UNFINISHED = (
    "This run is not finished: {directory} has no metrics.json. Below is its history so far; weights, maps and the "
    "baseline are missing."
)


def outcome(run: FrameWeightsRun) -> Section:
    """The section on the data fitted, the headline numbers beside the baseline, and the end of the fit."""
    m = run.metrics
    judged = HOLD_OUT if "cc_free" in m["fitted"] or m.get("cross_validation") else NO_HOLD_OUT
    said = [*_theta(m), Text(_ending(m)), *_errors(m), Text(judged)]
    return Section("Outcome", [Text(_what(run)), Cards([*_of_folds(m), *_cards(m)]), *said])


def _of_folds(m: dict[str, Any]) -> list[Card]:
    """The held-out CC of the cross-validation, at the theta that was taken, where the fit itself holds nothing out."""
    rows = {row["theta"]: row for row in m.get("cross_validation", [])}
    if "cc_free" in m["fitted"] or not rows:
        return []
    taken, prior = rows[m.get("theta", 0.0)], rows[None]  # weights that have no prior have no theta
    return [
        Card(
            f"{title}, folds", plus_minus(correlation(taken[name]), taken[f"{name}_error"]),
            Markup("prior weights: {}").format(correlation(prior[name])),
            f"mean over {len(taken['folds'])} folds, of orbits that the fit of each did not see; ± its standard error",
        )
        for name, title in (("cc_free", "CC free"), ("cc_free_anisotropic", "CC free, anisotropic"))
    ]  # fmt: skip


def _cards(m: dict[str, Any]) -> list[Card]:
    """One card per headline number; baseline, error and ceiling are left out where they are not known."""
    fitted, uniform, cards = m["fitted"], m.get("uniform", {}), []
    hidden = {"misfit", "misfit_free"} if minimised(m).is_correlation else set()
    for name, (title, meaning) in MEANING.items():
        if name not in fitted or name in hidden:
            continue
        shown = SHOWN.get(name, correlation)
        value = plus_minus(shown(fitted[name]), error_of(m, "metrics", name))
        baseline = [Markup("uniform weights: {}").format(shown(uniform[name]))] if name in uniform else []
        cards.append(Card(title, value, Markup("; ").join([*baseline, *_ceiling(m, name)]), meaning))
    return cards


def _ceiling(m: dict[str, Any], name: str) -> list[Markup]:
    """CC* of the map, for the correlations that it limits."""
    star = m.get("quality", {}).get(CEILINGS.get(name, ""), {}).get("cc_star")
    return [] if star is None else [Markup("ceiling CC*: {}").format(correlation(star))]


def _theta(m: dict[str, Any]) -> list[Text]:
    """The strength of the divergence from the prior, and who chose it."""
    if "theta" not in m or "kl" not in m["fitted"]:  # weights that need not sum to 1 have no such divergence
        return []
    if m["theta"] is None:
        return [Text(PRIOR_CHOSEN, warning=True)]
    chosen = ", chosen by cross-validation among those tried" if "l_curve" in m else ""
    return [Text(f"Strength of the divergence from the prior: theta = {m['theta']:g}{chosen}.")]


def _errors(m: dict[str, Any]) -> list[Text]:
    """What the ± of the numbers are."""
    made = resamples(m)
    return [Text(ERRORS.format(resamples=made))] if made else []


def _what(run: FrameWeightsRun) -> str:
    m = run.metrics
    labels = {row["label"] for row in run.sources if row["label"]}
    labelled = f" ({plural(len(labels), 'label')})" if labels else ""
    return (
        f"Weights of {plural(m['frames'], 'frame')} from {plural(len(run.sources), 'source')}{labelled} were fitted "
        f"to {plural(m['reflections'], 'reflection')} of a diffuse map, {plural(m['orbits'], 'orbit')} of Laue class "
        f"{m['laue']}; objective: {m['objective']}.{_left_out(m.get('left_out', {}))}"
    )


def _left_out(counts: dict[str, int]) -> str:
    """What was not fitted, and why."""
    reasons = [f"{grouped(count)} {reason}" for reason, count in counts.items() if count]
    return f" Left out: {', '.join(reasons)}." if reasons else ""


def _ending(m: dict[str, Any]) -> str:
    grid = " × ".join(str(n) for n in m["grid"])
    return f"{_stopped(m)} It ran on {plural(m['ranks'], 'rank')}, grid {grid} (frames × slices)."


def _stopped(m: dict[str, Any]) -> str:
    """Why the fit ended, and among how many it is the result."""
    n = len(m.get("fits", []))
    evaluations = plural(m.get("evaluations_of_all_fits", 0), "evaluation")
    together = f"of {n} fits of this run, which took {evaluations} together"
    if m.get("final_fit", 0) is None:
        return f"The result is none {together}."
    stopped = f"{plural(m['steps'], 'step')} and {plural(m['evaluations'], 'evaluation')}: {m['stopped']}"
    return f"The fit stopped after {stopped}." + (f" It is one {together}." if n > 1 else "")


def so_far(run: FrameWeightsRun) -> Section:
    """The head of a run that has no results yet."""
    history = run.history.of_fit(run.history.newest_fit)
    last = {name: float(history[name][-1]) for name in MEANING if name in history.columns}
    text = UNFINISHED.format(directory=run.directory)
    fit = f", in fit {run.history.newest_fit + 1}" if run.history.newest_fit else ""
    done = f"After {plural(int(run.history['evaluation'][-1]), 'evaluation')}{fit}:"
    objective = run.config.get("problem", {}).get("objective", "pearson")
    cards = _cards({"fitted": last, "objective": objective})
    return Section("Outcome", [Text(text, warning=True), Text(done), Cards(cards)])


def convergence(run: FrameWeightsRun) -> Section | None:
    """CC, loss, gradient norm and ESS against evaluations, of the final fit; of the newest while there is none."""
    from hpcfit.kinds.frame_weights import figures

    fit, of_fit = _fit_shown(run)
    history = run.history.of_fit(fit)
    if not len(history):
        return None
    uniform = run.metrics["uniform"] if run.finished else {}
    svg = figures.convergence(history, uniform)
    caption = _convergence_caption(bool(uniform), of_fit, history.note)
    return Section("Convergence", [Figure(svg, "CC, loss, gradient norm and ESS against evaluations", caption)])


def _convergence_caption(with_baseline: bool, of_fit: str, note: str) -> str:
    """Under CC, loss, gradient norm and ESS against evaluations; `of_fit` says which fit is shown."""
    baseline = "Dashed lines: uniform weights, the baseline. " if with_baseline else ""
    return (
        f"CC, loss (what is minimised), norm of its gradient and effective sample size at each evaluation. {of_fit}"
        f"{baseline}At the right end of a converged fit CC and loss are flat and the gradient has fallen by orders of "
        f"magnitude; an ESS that keeps falling while CC hardly rises is a sign of over-fitting. {note}"
    )


def _fit_shown(run: FrameWeightsRun) -> tuple[int, str]:
    """The number of the fit, and a sentence that says which it is where the run has several."""
    if not run.finished:
        newest = run.history.newest_fit
        return newest, NEWEST_FIT.format(number=newest + 1) if newest else ""
    names, final = run.metrics.get("fits", []), run.metrics.get("final_fit")
    if final is None and names:  # the prior weights were taken, and no fit led to them
        best = f"start {run.metrics['starts'][0]['start']}"
        return names.index(best), BEST_START.format(name=best)
    several = FINAL_FIT.format(name=names[final], n=len(names)) if len(names) > 1 else ""
    return final or 0, several


def time(run: FrameWeightsRun) -> Section:
    """Phases, and the rate against the measured bandwidth."""
    return Section("Time", [*study(run), phases(run), rate(run, "structure factors")])


CONTENTS = Contents(
    finished=(
        outcome, experiments, starts, theta, weights, explained, convergence, shells, sections, dropping, agreement,
        time, settings,
    ),
    unfinished=(so_far, convergence, settings),
    files=("config.toml", "environment.json", "history.jsonl", "sources.csv", "weights.h5", "map.h5"),
    run=FrameWeightsRun,
)  # fmt: skip
