#!/bin/bash
# A sweep on SLURM's nodes: ray's own symmetric run starts a cluster on all of them, runs the sweep on the first, and
# stops it. Submit it from the clone, with a file system that all nodes share:
#
#     sbatch --nodes=4 --cpus-per-task=16 systems/slurm.sh FILE --data DIR --out SWEEP [--gpus 0.25 …]
#
# Give what else the site wants (--partition, --account, --gres=gpu:4) to sbatch. A job that hits its time limit goes on
# when it is submitted again. It has its nodes to itself: ray's symmetric run starts on no node where another ray is, and
# its end stops every ray there. Without SLURM it runs on this machine alone.
#SBATCH --job-name=sweep
#SBATCH --nodes=1
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=sweep-%j.log
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
port=$((20000 + ${SLURM_JOB_ID:-$$} % 10000))
if [[ -n "${SLURM_JOB_ID:-}" ]]; then
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    # Since SLURM 22.05 srun does not know the job's --cpus-per-task.
    start=(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1
        --cpus-per-task="$SLURM_CPUS_PER_TASK")
    address=$first:$port
else
    start=(env)
    address=127.0.0.1:$port
fi
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # s; nodes start from a slow file system
export RAY_USAGE_STATS_ENABLED=0 PATH="$PWD/.venv/bin:$PATH" # symmetric-run calls `ray` by its name
export RAY_AUTH_MODE=token # nobody else on the network may use the cluster
ray get-auth-token --generate >/dev/null
"${start[@]}" ray symmetric-run --address "$address" --min-nodes "${SLURM_JOB_NUM_NODES:-1}" \
    --num-cpus "${SLURM_CPUS_PER_TASK:-$(nproc)}" --include-dashboard=false -- \
    python -m systems sweep "$@" --address "$address"
