#!/bin/bash
# pipelines/cluster.yaml on Slurm: one Ray node on each node of the allocation, and the pipeline on the first.
#   sbatch --nodes 5 --cpus-per-task 16 pipelines/slurm.sh pipelines/cluster.yaml --out /data/paper
# --out, like every further word, goes to `wm-pipeline run`. It has to be on a disk that the first node has at every attempt,
# such as the cluster's shared filesystem; the other nodes need no disk. State is that directory alone: two minutes before a
# preemption or the time limit, TERM interrupts the pipeline; what is committed is kept, Slurm runs this script again (or you
# submit it again), and it continues. A node that dies while collecting or encoding is done without.
#SBATCH --job-name=worldmodel_v
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

cpus=${SLURM_CPUS_PER_TASK:-8}
seconds_to_join=${SECONDS_TO_JOIN:-300}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# Its own ports, token and folder for each job, so that jobs do not meet; Ray's sockets need a short path.
port=$((20000 + SLURM_JOB_ID % 5000))
export RAY_ADDRESS=${nodes[0]}:$port
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

started=()
pipeline=''
interrupted=''
# shellcheck disable=SC2329  # trapped
clean_up() {
    trap - EXIT
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    wait
    srun --nodes="${#nodes[@]}" --ntasks-per-node=1 --overlap rm -rf "$RAY_TMPDIR" || true
}
# shellcheck disable=SC2329  # trapped
interrupt() {
    interrupted=yes
    echo "slurm.sh: interrupted; running it again continues" >&2
    if [[ -n $pipeline ]]; then kill -TERM "$pipeline" 2>/dev/null || true; else exit 130; fi
}
trap clean_up EXIT
trap interrupt TERM INT

start_node() {
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap --cpus-per-task="$cpus" \
        bash -c "mkdir -p -m 700 $RAY_TMPDIR && exec ray start --block --num-cpus=$cpus $*" &
    started+=($!)
}

num_alive() {
    python -c 'import os, ray
ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))' 2>/dev/null || echo 0
}

wait_for() {
    local give_up=$((SECONDS + seconds_to_join)) alive
    until alive=$(num_alive) && ((alive >= $1)); do
        if ((SECONDS >= give_up)); then
            echo "slurm.sh: $alive of ${#nodes[@]} nodes joined Ray within $seconds_to_join s; look at their output above" >&2
            exit 1
        fi
        sleep 1
    done
}

start_node "${nodes[0]}" --head --port="$port" --include-dashboard=false \
    --ray-client-server-port=$((port + 5000))
wait_for 1
for node in "${nodes[@]:1}"; do start_node "$node" --address="$RAY_ADDRESS"; done
wait_for "${#nodes[@]}"

wm-pipeline run "$@" &
pipeline=$!
code=0
wait "$pipeline" || code=$?
# A trapped signal ends `wait` before the pipeline has ended.
if [[ -n $interrupted ]]; then code=0 && wait "$pipeline" || code=$?; fi
exit "$code"
