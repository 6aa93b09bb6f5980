"""What the report on kind "frame-weights" says of the fits beside the final one, and of errors."""

from __future__ import annotations

STARTS = (
    "Summed weight of each group of frames where a fit ended, a bar for each start, the best misfit on top. The fits "
    "share one theta, in the middle of those tried, and differ in nothing but where they began: bars that look the "
    "same say that the end does not depend on it. Lowest bar: the weights before any fit, the baseline."
)

STARTS_TABLE = (
    "The fits from several starts, best misfit first. A start is the prior weights, uniform weights, nearly all weight "
    "on one group of frames (named), or random weights; the sums are of the weights at the end. Last row: before any "
    "fit, the baseline."
)

UNDECIDED = (
    "The map does not decide between these weights: {starts} reach the same misfit (to {tolerance}) with sums that "
    "differ by up to {apart:.2f}, most in '{group}'. Read no populations from the result alone."
)

DECIDED = "The starts {starts} reach the same misfit (to {tolerance}) with sums that agree to {apart:.2f}."

ALONE = "Start {start} alone reaches the best misfit (to {tolerance}); the result begins there."

OTHER_FRAMES = " Frame by frame up to {share} of the weight lies elsewhere: single frames are not determined."

DISTANCE = " On other frames: the weight that would have to be moved to get the weights of the best start."

WORSE = " Worse by more: {starts}; the fit has several minima, or these were not yet at their end."

L_CURVE = (
    "{title} of the fitted orbits against how far the weights moved from the prior, a point for each theta. Where the "
    "curve turns flat, further movement buys hardly any agreement. The prior weights, the baseline, are at KL = 0 on "
    "the left; points without a number lie beside one that has it. A ring marks the theta that cross-validation chose, "
    "if it chose one."
)

THETA_SCAN = (
    "What each theta gives for the orbits that were fitted (blue, all of them) and for held-out ones (green: mean and "
    "standard error over {folds} folds). Dashed: the prior weights over the same folds, the baseline, with its error "
    "as a band. The folds differ more among themselves than the thetas do within a fold: compare thetas by the gain "
    "over the prior in the table. Where green turns back towards the dashes while blue goes on, the weights follow "
    "noise."
)

THETA_TABLE = (
    "Each theta judged by orbits that its fits did not see, largest first. The gain is over the prior weights, fold by "
    "fold, with its standard error over {folds} folds. Fitted: CC, KL and ESS of a fit to all orbits."
)

THETA_RULE = (
    "Chosen is the largest theta whose held-out misfit is the best one, to one standard error of their differences "
    "over the folds: among strengths that the data cannot tell apart, the one that stays nearest to the prior."
)

SUMS = (
    "Summed weight of each of the {what}. Circles: fitted; bars: standard deviation over {resamples}; grey strokes: "
    "before the fit, the baseline. A population has moved where its stroke lies outside both bars. The error by frames "
    "says how well the simulation sampled, that by orbits how far the noise of the map reaches."
)

GROUPS = (
    "Groups of frames. ΔG = −kT ln(weight / prior) at {temperature:g} K is what the map adds to the free energy of the "
    "group in the simulation; 0 is the baseline.{errors}"
)

GROUP_ERRORS = (
    " ± frames and ± orbits: standard deviations over {resamples}; of ΔG both together, as kT times the relative error "
    "of the weight."
)

DROPPING = (
    "Rounds without the frames of least weight in the round before, each fitted anew from uniform weights. The first "
    "row is the result with all its frames, the baseline: a CC that stays while frames go says that they were not "
    "needed; one that rises, while CC free does not, is noise."
)
