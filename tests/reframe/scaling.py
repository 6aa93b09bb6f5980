"""How a step of hpcfit scales, as a ReFrame test for sites that use ReFrame; hpcfit itself does not need it.

    export HPCFIT_CONFIG=/path/config.toml HPCFIT_RANKS=1,2,4
    reframe -C SITE.py -c tests/reframe/scaling.py -r --performance-report -S ranks_per_node=64

Each number of ranks is a test and, with a scheduler, a job. In it `hpcfit scaling` measures 1 rank and that many, in
turns, starting the ranks itself (by srun in a Slurm job, else by mpiexec); the figures come from its scaling.json. What
a site adds in its own file: modules of its programming environment, access options, references. `hpcfit` is taken from
PATH (-S executable="python -m hpcfit" is another way). Without a scheduler add --exec-policy=serial, since tests that
run at the same time disturb each other.

Tried with ReFrame 4.10.4: the local scheduler on 1, 2 and 4 ranks of 2 cores, and the scheduler `squeue` (which needs
no accounting) with launcher `srun` on 1 and 2 nodes of tools/local-slurm. Not tried on a real cluster.
"""

import json
import os
from pathlib import Path

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.backends import getlauncher
from reframe.core.builtins import parameter, run_before, sanity_function, variable

# Keys of a row of scaling.json: the unit here, and by how much to multiply.
FIGURES = {
    "step": ("ms", 1e3),
    "compute": ("ms", 1e3),
    "reduce": ("ms", 1e3),
    "read": ("ms", 1e3),
    "rate": ("GB/s", 1e-9),
    "stream": ("GB/s", 1e-9),
    "speedup": ("x", 1.0),
    "stream_speedup": ("x", 1.0),
    "efficiency": ("%", 100.0),
}


@rfm.simple_test
class HpcfitScaling(rfm.RunOnlyRegressionTest):
    """One number of ranks against one rank."""

    descr = "time of a step of hpcfit, speed-up and efficiency beside a plain memory stream"
    ranks = parameter([int(word) for word in os.environ.get("HPCFIT_RANKS", "1,2,4").split(",")])
    config = variable(str, value=os.environ.get("HPCFIT_CONFIG", ""))
    repeats = variable(int, value=3)
    ranks_per_node = variable(int, value=0)  # 0: as the scheduler likes
    valid_systems = ["*"]  # noqa: RUF012 (ReFrame's own variables)
    valid_prog_environs = ["*"]  # noqa: RUF012
    executable = "hpcfit"

    @run_before("run")
    def measure(self):
        """One process in the job, which starts the ranks."""
        self.skip_if(not self.config, "name the config of a prepared problem: HPCFIT_CONFIG or -S config=PATH")
        self.num_tasks = self.ranks
        if self.ranks_per_node:
            self.num_tasks_per_node = min(self.ranks, self.ranks_per_node)
        self.job.launcher = getlauncher("local")()
        series = ",".join(str(n) for n in sorted({1, self.ranks}))
        self.executable_opts = [
            "scaling", self.config, "--ranks", series, "--repeats", str(self.repeats), "--directory", "series",
        ]  # fmt: skip

    @sanity_function
    def measured(self):
        """There is a row of this number of ranks, with a time."""
        return sn.assert_gt(self.row()["step"], 0)

    @run_before("performance")
    def figures(self):
        """What of the row is a number: ranks that shared cores have no efficiency."""
        row = self.row()
        self.perf_variables = {
            name: sn.make_performance_function(sn.defer(scale * row[name]), unit)
            for name, (unit, scale) in FIGURES.items()
            if row[name] is not None
        }

    def row(self):
        """The row of scaling.json."""
        results = json.loads((Path(self.stagedir) / "series/scaling.json").read_text(encoding="utf-8"))
        return next(row for row in results["rows"] if row["ranks"] == self.ranks)
