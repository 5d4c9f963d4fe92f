#!/usr/bin/env bash
# Do the two modes learn what the report's recipe should? They are trained on the lossless subset of CIFAR-10 (5,170
# training and 1,017 test images) with the real ImageNet weights; all settings but the number of epochs are the report's.
#   experiments/recipe/run.sh DATA WEIGHTS OUT
# DATA has cifar-10-batches-py/; WEIGHTS is alexnet-imagenet1k-features.safetensors; runs go to OUT.
# About 25 minutes on 2 cores. Then: python experiments/recipe/collect.py OUT
set -euo pipefail
data=$1 weights=$2 out=$3
common=(data.root="$data" data.verify=false data.val_size=0 test_each_epoch=true logger=csv)

python -m camlab.train arch=alexnet mode=finetune "${common[@]}" arch.weights="$weights" \
    trainer.max_epochs=8 hydra.run.dir="$out/finetune"
python -m camlab.train arch=alexnet mode=frozen "${common[@]}" arch.weights="$weights" \
    trainer.max_epochs=15 callbacks.heatmaps.every_n_epochs=5 hydra.run.dir="$out/frozen"
python -m camlab.train arch=vgg13 mode=frozen "${common[@]}" arch.weights=null \
    trainer.max_epochs=1 trainer.limit_train_batches=3 trainer.limit_val_batches=1 trainer.limit_test_batches=1 \
    data.batch_size=100 hydra.run.dir="$out/vgg13"
