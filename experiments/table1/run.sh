#!/usr/bin/env bash
# Runs the frozen row of the report's Table 1: 150 epochs on all 50,000 training images with three seeds, the first with an
# empty feature cache. For comparison, it then runs a tenth of an epoch without the cache. This takes about 40 minutes on
# 2 cores, of which half is for the feature pass.
#   experiments/table1/run.sh DATA WEIGHTS OUT
# DATA is a folder with cifar-10-batches-py/, and WEIGHTS is `imagenet` or a file of features. Afterwards run:
# python experiments/table1/collect.py OUT
set -euo pipefail
data=$1 weights=$2 out=$3
common=(experiment=table1 mode=frozen logger=csv data.root="$data" data.verify=false arch.weights="$weights"
    paths.cache="$out/cache")

for seed in 0 1 2; do
    python -m camlab.train "${common[@]}" seed=$seed hydra.run.dir="$out/frozen-$seed"
done
python -m camlab.train "${common[@]}" cache=false trainer.max_epochs=1 trainer.limit_train_batches=0.1 \
    trainer.limit_val_batches=1 trainer.limit_test_batches=1 hydra.run.dir="$out/uncached"
