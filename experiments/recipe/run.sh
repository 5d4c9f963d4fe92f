#!/usr/bin/env bash
# Do both modes learn as they should with the report's recipe? They are trained on the lossless tenth of CIFAR-10 (5,170
# training images and 1,017 test images) with the real ImageNet weights. Except for the number of epochs, all settings are
# those of the report.
#   experiments/recipe/run.sh DATA WEIGHTS OUT
# DATA is a folder with cifar-10-batches-py/, and WEIGHTS is alexnet-imagenet1k-features.safetensors. Runs are written to OUT.
# This takes about 25 minutes on 2 cores. Afterwards run: python experiments/recipe/collect.py OUT
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
