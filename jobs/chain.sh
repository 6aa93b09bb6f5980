#!/bin/bash
# prepare -> optimize -> report: each job starts when the one before has succeeded. Where one fails, those after
# it leave the queue. To submit all: bash chain.sh
set -euo pipefail

submit() {
    local script
    script=$(hpcfit job config.toml --site generic-cpu --time 01:00:00 \
        "$@") || exit
    # Started from a job, sbatch would take that job's settings for its own.
    (for name in ${!SLURM_@} ${!SBATCH_@} ${!PMI@} ${!OMPI_@}; do
        case $name in SLURM_CONF | SLURM_JWT) ;; *) unset "$name" ;; esac
    done
    sbatch --parsable <<< "$script") | cut --delimiter=';' --fields=1
}

prepare=$(submit --kind prepare)
optimize=$(submit --kind optimize --nodes 4 --set run.report=false --after "$prepare")
report=$(submit --kind report --after "$optimize")
echo "submitted: prepare $prepare optimize $optimize report $report"
