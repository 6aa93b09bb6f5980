"""What the report on kind "force-map" says: what to see in its figures and tables, and what the baseline is."""

from __future__ import annotations

INVALID = (
    "A map is invalid where it does not fulfil M Wᵀ = 1, or gives the atoms of a rigid group different coefficients: "
    "forces of constraints, which the simulation did not write down, are then missing from it. Its mean is not the "
    "force of the potential of mean force, so that a force field fitted to it is biased, however many frames there "
    "are. That its mean |F|² is shown does not mean that it may be used."
)

HELD_OUT = (
    "Mean |F|² is that of a force component on a bead: the mean force, which is the same for every valid map, and "
    "noise. Held out means on statistical blocks that the map was not fitted to; ± is its standard error over blocks."
)

EFFICIENCY_OF_RESIDUALS = "frames of the basic map that carry as much: ratio of the residuals of their force fields"
EFFICIENCY_OF_SQUARES = "frames of the basic map that carry as much, at least: both mean |F|² hold the mean force"

UNFINISHED = (
    "This run is not finished: {directory} has no metrics.json. {so_far} Maps, their noise and mapped frames are "
    "missing."
)
NO_HISTORY = "It has read frames so far, and no fit has begun."
HISTORY = "Below is the history of its fits so far."

MAPS = (
    "Every map that was made. ridge: strength of the regularisation, chosen by cross-validation over blocks; free: "
    "free coefficients of a bead, mean; frames asked: 33 for each coefficient of the bead that has most, with which "
    "the noise of new frames is within 1% of the least possible; predicted: held-out value by the law of optimism "
    "from the fitted one, for independent frames and without ridge. The last two columns say whether a map is valid: "
    "by how much it misses M Wᵀ = 1, and how much coefficients differ within a rigid group."
)

BEADS = (
    "Mean |F|² on frames that a map was not fitted to, by bead, with standard errors over statistical blocks. The "
    "baseline is the basic map (grey). A good map lies below it at every bead, most where many atoms around the bead "
    "can take part."
)

HEAT_MAP = (
    "Coefficients of the chosen map '{name}': the force on a bead (row) is their sum over atoms (columns) times the "
    "atoms' forces. Red: the force of the atom counts, blue: it counts with the opposite sign, white: not at all. "
    "Framed: the rigid groups of the bead's own atoms, on which alone the basic map, the baseline, has coefficients, "
    "all 1.{names}"
)
CONSTANT_PART = " Shown is the constant part; what depends on distances is added to it."
BORDERS = " Thin lines: borders of residues."

OFFSETS = (
    "Absolute coefficients of the chosen map '{name}', summed over the atoms of the residue so far from the bead's "
    "own: mean over the beads, bars from the 5th to the 95th percentile. The baseline, the basic map, has all of it "
    "on the bead's rigid groups."
)

LARGEST = (
    "The {n} largest coefficients of the chosen map outside the beads' own rigid groups, where the basic map, the "
    "baseline, has 0. Atoms of a rigid group share one."
)

ERRORS = (
    "By the bootstrap over statistical blocks, the standard deviation of the coefficients that were fitted is "
    "{median} in the median and {largest} at most."
)

LEARNING = (
    "Mean |F|² against the number of frames that a map is fitted to: of these frames, and of the last third of the "
    "blocks, which none of these fits has seen. What lies between the two is noise that the map hides by fitting it. "
    "Crosses: what the law of optimism predicts for held-out frames from the fitted ones. Dashed: the basic map on "
    "the same held-out frames, the baseline. Where the curves still fall apart at the right end, more frames, or a "
    "map with fewer coefficients, give less noise."
)

RIDGE = (
    "Mean |F|² on held-out blocks against the strength of the ridge, a fraction of the mean squared force on a rigid "
    "group; 0 is drawn at the left edge. Ringed: the strength taken. A minimum far from 0 says that the frames are "
    "too few for the coefficients; the baseline is no ridge."
)

INEFFICIENCY = (
    "Statistical inefficiency of the mapped forces: g(s) = s ⟨(mean over s frames)²⟩ / ⟨F²⟩. The baseline is 1 "
    "(dashed), which independent frames have at every span. Where g levels off, T/g is the number of independent "
    "frames that T frames are worth, and statistical blocks should be much longer than that span. Below 1, forces of "
    "neighbouring frames cancel each other."
)
GROWING = (
    "g still grows at the largest span for {names}: the memory of the forces is longer than {span} frames, and errors "
    "over blocks are too small unless a block ({block} frames) is much longer than the memory."
)
LEVEL = "Within its error, g does not grow any more at the largest span, {span} frames."
INEFFICIENCIES = "g at the span of {span} frames, and the number of independent frames by it."

COMPARISON = (
    "Mean forces of the maps against those of '{reference}', the baseline. cross: ⟨(F − F_ref)·G⟩ along the field G "
    "fitted to the reference; difference: along the field fitted to what the two differ by in the other blocks. Two "
    "valid maps have the same mean force, so that both are 0 within their standard errors (s.e.). Agreement does not "
    "make a map valid: it says that these frames are too few to see the difference."
)

DECOMPOSITION = (
    "χ² of each map's force along the pair against a potential's: χ² = error of the potential + noise of the map + "
    "cross term. The error of the potential is known as the exact mean force was given. The cross term of a valid map "
    "is 0 for every potential; bias is the mean of the map's force minus the exact one, 0 for a valid map. 'none': a "
    "potential of 0; 'fitted': the one fitted to that map, which takes up the bias of an invalid one."
)

MATCHING = (
    "Force fields of {functions} functions, linear in their coefficients, fitted to the forces of each map. The "
    "residual is the mean squared difference of a force component: error of the force field plus noise of the map. "
    "noise removed: the residual of the basic map, the baseline, minus that of this one; as the mean force is the "
    "same for valid maps, it is noise alone. empty: functions that no frame has seen."
)
RIDGE_OF_FITS = (
    "Residual on held-out blocks against the ridge of the force field; no ridge, the baseline, is drawn at the left "
    "edge. Ringed: the strength taken."
)
POTENTIALS = (
    "{kind} terms of the fitted force fields, each 0 at its minimum and drawn where frames have sampled it; bands: "
    "standard errors by leaving out one statistical block at a time. Blue: the chosen map, '{name}'.{basic}{cut}"
)
BESIDE_BASIC = (
    " Grey: the basic map, the baseline; the narrower band is the gain. Curves of different minima are shifted "
    "against each other."
)
EXACT = " Black, dashed: the exact potential of mean force."
CUT = " Energies above {limit} kJ/mol (15 kT) lie outside the panels."
LEFT_OUT = " Shown are the {shown} of {n} terms with most samples."
MEAN_FORCE = (
    "Force between the two beads of the fitted potentials, −dU/dr, beside the exact mean force (black, dashed), the "
    "baseline, and their difference from it. A valid map lies on it; what an invalid one misses, no number of frames "
    "brings back."
)
NEURAL = (
    "Neural potentials, fitted to the forces of a map. held out: of statistical blocks that were not fitted; the "
    "linear force field of the same map is the baseline. noise floor: what the noise of the forces is at least, which "
    "no potential gets below."
)
LEARNING_OF_FITS = (
    "Residual of the fitted and of the held-out frames at each evaluation. Where the held-out one (green) rises while "
    "the other falls, the network follows noise."
)
LEVELS_OF_FITS = (
    " Dashed: the linear force field on held-out frames, the baseline; dotted: the noise floor, where it is near."
)

SIMULATION = "The {model} model was simulated: {frames}, compared with {reference} of the mapped simulation."
PROFILES = (
    "Free energy of the coarse-grained simulation (blue) and of the mapped frames (grey), the baseline; bands: "
    "standard errors over blocks. JS: Jensen-Shannon divergence of the two distributions, 0 where they are the same, "
    "0.69 where they have nothing in common."
)
SLOW = (
    "Free energy in the two slowest coordinates (TICA of the pair distances, fitted to the mapped frames), on one "
    "colour scale; white: no frame. The mapped frames, the baseline, on the left. Minima should lie at the same "
    "places and be equally deep."
)
DIVERGENCES = "Jensen-Shannon divergence of the distributions of model and mapped frames, nats; ± over walkers."

PASSES = "What the run did with the frames; the rate where it reads each of them once."
