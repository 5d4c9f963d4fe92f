#!/usr/bin/env bash
# Runs everything that needs a GPU, one after the other, in about half an hour on an H100 with 16 CPU cores.
#   experiments/gpu/run.sh DATA WEIGHTS OUT
# DATA is a folder with cifar-10-batches-py/, WEIGHTS a file of AlexNet's features. Runs are written to OUT, results
# beside the scripts. A step that fails or takes too long is named at the end, and the others go on. The same command
# goes on with training where it was stopped.
set -uo pipefail
cd "$(dirname "$0")/../.."
data=$1 weights=$2 out=$3
mkdir -p "$out"
here=experiments/gpu

step() { # NAME SECONDS COMMAND…: runs a command with a limit of time, and notes how it ended
    local name=$1 limit=$2 began=$SECONDS
    shift 2
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    echo "$name: exit code $? after $((SECONDS - began)) s" | tee -a "$out/steps.txt"
}
table1() { python3 experiments/table1/gpu.py "$data" "$weights" "$out" --only "$@"; }
export -f table1
export data weights out

step tests 200 python3 -m pytest -q -p no:cacheprovider -n 6 -o filterwarnings= -o addopts= tests/test_gpu.py
step finetune-0 560 bash -c 'table1 finetune-0'
step heatmap_speed 120 python3 experiments/heatmap_speed/run.py --out $here/heatmap_speed.csv
step method_speed 200 python3 experiments/method_speed/run.py --rounds 5 --out $here/method_speed.csv
step score_cost 240 python3 experiments/score_cost/run.py --rounds 2 --out $here/score_cost.csv
step choices 330 bash -c 'table1 choice-all choice-float32 choice-unfused choice-host choice-no-heatmaps \
    choice-heatmaps-each-epoch choice-compile'
step frozen-0 260 bash -c 'table1 frozen-0'

# What is not timed runs side by side.
for seed in 0 1 2; do
    for network in vit swin resnet18 convnext; do
        step "architectures-$network-$seed" 500 python3 experiments/architectures/run.py --only $network \
            --seeds $seed --out "$out/architectures-$network-$seed.csv" &
    done
done
for run in finetune-1 finetune-2 frozen-1 frozen-2; do
    step $run 900 python3 -m camlab.train experiment=table1 trainer=gpu logger=csv mode="${run%-*}" seed="${run#*-}" \
        data.root="$data" data.verify=false arch.weights="$weights" hydra.run.dir="$out/$run" paths.cache="$out/cache" &
done
wait
step speed 300 bash -c 'table1 speed-bf16-mixed speed-32-true'
echo finished | tee -a "$out/steps.txt"
