#!/usr/bin/env bash
# How much accuracy does a feature pass in bf16 cost? Frozen AlexNet on the lossless tenth of CIFAR-10 at 112², 3 seeds.
#   experiments/precision/run.sh DATA WEIGHTS OUT
# Writes results.csv beside this file. bf16 is fast only if the processor has AMX or AVX512-BF16 (see lscpu).
set -euo pipefail
data=$1 weights=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)

echo precision,seed,test_acc_%,feature_pass_s > "$here/results.csv"
for precision in 32-true bf16-mixed; do
    for seed in 0 1 2; do
        run=$out/$precision-$seed
        python -m camlab.train arch=alexnet mode=frozen arch.weights="$weights" data.root="$data" data.verify=false \
            data.val_size=0 data.image_size=112 trainer.max_epochs=30 trainer.precision=$precision seed=$seed \
            callbacks.heatmaps.every_n_epochs=30 logger=csv paths.cache="$out/cache" hydra.run.dir="$run"
        accuracy=$(python -c "import json, sys; print(f'{100 * json.load(open(sys.argv[1]))[\"metrics\"][\"test/acc\"]:.2f}')" "$run/result.json")
        waited=$(sed -n 's/Features are there after \(.*\) s\./\1/p' "$run/train.log")
        echo "$precision,$seed,$accuracy,$waited" >> "$here/results.csv"
    done
done
