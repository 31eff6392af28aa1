"""A batch script for Slurm: one task per node, which starts the node's ranks with torchrun."""

from planner.export.job import PORT, TRAINING, Job


def files(job: Job) -> dict[str, str]:
    """job.sbatch and the plan."""
    return {"job.sbatch": _script(job), "plan.json": job.plan_json}


def _script(job: Job) -> str:
    device = (
        f"#SBATCH --gpus-per-node={job.ranks_per_node}"
        if job.gpus
        else f"#SBATCH --cpus-per-task={job.ranks_per_node}"
    )
    command = " \\\n  ".join(job.torchrun(f'"$head:{PORT}"', '"$SLURM_JOB_ID"'))
    training = " ".join(TRAINING)
    return f"""\
#!/usr/bin/env bash
# {job.title}
# sbatch job.sbatch [options of the training], from this folder; OUTPUT is the folder for results.
#SBATCH --job-name={job.name}
#SBATCH --nodes={job.nodes}
#SBATCH --ntasks-per-node=1
{device}
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail
OUTPUT="${{OUTPUT:-runs/train}}"
head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
srun --kill-on-bad-exit=1 {command} \\
  plan.json {training} --output "$OUTPUT" "$@"
"""
