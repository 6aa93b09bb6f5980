"""What the report on kind "frame-weights" says under its figures: what to see, and what the baseline is."""

from __future__ import annotations

from collections.abc import Sequence

NO_HOLD_OUT = (
    "These CC are of the same reflections that the weights were fitted to. A higher CC than the baseline does not show "
    "by itself that the weights are right: as many weights as frames can follow noise, and frames that scatter alike "
    "cannot be told apart."
)

HOLD_OUT = (
    "CC free is of orbits that the fit did not see, Friedel mates included. Where it stays behind CC, the difference "
    "is noise that the weights follow: a larger theta, fewer frames or more reflections bring the two together."
)

PRIOR_CHOSEN = (
    "No strength theta made held-out orbits agree better than the prior weights do: the result is the prior weights "
    "themselves, and its numbers are those of no fit."
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

SHELLS = (
    "CC in each resolution shell (short strokes: its limits). Grey squares are the baseline, uniform weights. The fit "
    "should lie above it in every shell; a gain at low resolution alone is a better radial profile, not better "
    "structure."
)

SHELLS_FREE = " Green squares: held-out orbits of the shell; below the fitted ones by what the weights follow of noise."

SHELLS_CEILING = (
    " Black: CC*, the correlation of the whole map with the intensity without noise, which no right model exceeds but "
    "by chance, and dotted CC1/2, of halves of the data with each other; both known from the {source} of the map."
)

ABOVE_CEILING = (
    "Above the ceiling: {where} CC of the fitted orbits exceeds CC*, by more than twice its standard error. Weights "
    "that agree with the map better than the truth would follow its noise, or the errors of the map are smaller than "
    "it says."
)

HEAVIEST = "The {n} heaviest frames. ΔG = −kT ln(T w) at {temperature:g} K; a uniform weight has ΔG = 0."


def convergence(with_baseline: bool, of_fit: str, note: str) -> str:
    """Under CC, loss, gradient norm and ESS against evaluations; `of_fit` says which fit is shown."""
    baseline = "Dashed lines: uniform weights, the baseline. " if with_baseline else ""
    return (
        f"CC, loss (what is minimised), norm of its gradient and effective sample size at each evaluation. {of_fit}"
        f"{baseline}At the right end of a converged fit CC and loss are flat and the gradient has fallen by orders of "
        f"magnitude; an ESS that keeps falling while CC hardly rises is a sign of over-fitting. {note}"
    )


def weights(n_frames: str, drawn: Sequence[str]) -> str:
    """Under the weights along each source; `drawn` says how they are drawn: shape, colour of the baseline, notes."""
    shape, baseline, *notes = drawn
    notes = " ".join(notes)
    return (
        f"Fitted weight times T = {n_frames}, {shape}. The baseline is 1 ({baseline}): what every frame has under "
        "uniform weights. Stretches well above 1 are what the experiment asks for; single spikes in a smooth "
        f"trajectory point to over-fitting. Σw: share of the source in the fit; ESS: its effective frames. {notes}"
    )


def sections(names: str, laue: str, ndiv: Sequence[int], oblique: bool) -> str:
    """Under the planes of the observed, calculated and difference maps."""
    steps = ", ".join("1" if n == 1 else f"1/{n}" for n in ndiv)
    divisions = "" if all(n == 1 for n in ndiv) else f" Voxels are ({steps}) of an index apart."
    axes = " h is read along the lower edge; the thin lines are h = 0 and k = 0." if oblique else ""
    return (
        f"Planes {names}: observed, calculated and difference intensities, expanded by Laue class {laue}; indices of "
        f"the unit cell, in the metric of the reciprocal lattice.{divisions}{axes} Observed and calculated share one "
        "colour scale (percentiles 1 to 99 of the observed); the calculated map was put on the observed scale by "
        "linear regression (scale and offset). Difference: red where more is observed than calculated, blue where "
        "less; a good fit leaves noise without pattern. Grey: not measured, masked or outside the resolution limits."
    )


def anisotropic(names: str, shells: int) -> str:
    """Under the same planes of what a smooth radial curve leaves."""
    return (
        f"The same planes {names} of the anisotropic maps, those that the anisotropic CC compares: from observed and "
        f"calculated intensities the best smooth curve in 1/d (a cubic spline, knots at the edges of {shells} shells) "
        "is removed, and the calculated map is put on the observed scale by regression of what is left, which no "
        "solvent or scattering by air can imitate. Red: above the curve, blue: below; observed and calculated share "
        "one colour scale. A good fit shows the same pattern twice, and none in the difference."
    )


def agreement(outside: str, held_out: bool) -> str:
    """Under observed against calculated."""
    free = " On the right: the orbits that the fit did not see; their cloud should be no wider." if held_out else ""
    return (
        "Observed against calculated intensity of each orbit, each model put on the observed scale by linear "
        "regression over all orbits. Dashed: equality. The cloud of the fit should be narrower than that of the "
        f"baseline on the left.{free} Outside the axes: {outside} of all panels."
    )


SEPARABILITY = (
    "Can the map tell the labels apart? Uniform weights on the frames of one label alone, on its halves, and on parts "
    "of {n} successive frames. Summed weights are populations only where two labels differ by more than halves of one "
    "do, and their parts do not overlap."
)
