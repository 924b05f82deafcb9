#!/bin/bash
# Run a sweep on the nodes of a SLURM job. `ray symmetric-run` starts a Ray cluster on all nodes, runs the sweep on the
# first node, and stops the cluster. Submit the job from the clone, on a file system that all nodes share:
#
#     sbatch --nodes=4 --cpus-per-task=16 systems/slurm.sh FILE --data DIR --out SWEEP [--gpus 0.25 …]
#
# Pass other options that your site needs (--partition, --account, --gres=gpu:4) to sbatch. If a job reaches its time
# limit, submit it again to resume the sweep. No other job may use the nodes (--exclusive): symmetric-run does not start
# on a node where Ray is running, and at its end it stops all Ray processes on the node. Without SLURM, the sweep runs
# on this machine.
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
    # Since SLURM 22.05, srun does not inherit the job's --cpus-per-task.
    start=(srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1
        --cpus-per-task="$SLURM_CPUS_PER_TASK")
    address=$first:$port
else
    start=(env)
    address=127.0.0.1:$port
fi
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 # seconds; nodes may start slowly from a shared file system
export RAY_USAGE_STATS_ENABLED=0 PATH="$PWD/.venv/bin:$PATH" # symmetric-run calls `ray` by name
export RAY_AUTH_MODE=token # other people on the network must not use the cluster
ray get-auth-token --generate >/dev/null
"${start[@]}" ray symmetric-run --address "$address" --min-nodes "${SLURM_JOB_NUM_NODES:-1}" \
    --num-cpus "${SLURM_CPUS_PER_TASK:-$(nproc)}" --include-dashboard=false -- \
    dcase-systems sweep "$@" --address "$address"
