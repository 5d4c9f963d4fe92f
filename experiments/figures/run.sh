#!/usr/bin/env bash
# Draws the report's Figure 3 (CAM of CIFAR-10 images) and Figure 4 (photographs), with a score under each heatmap.
#   experiments/figures/run.sh LOSSLESS WEIGHTS PHOTOS OUT
# LOSSLESS is a folder with cifar-10-batches-py/, WEIGHTS one with the two files of ImageNet features, PHOTOS one with pictures.
# OUT has frozen-0 and finetune-0, the runs of experiments/table1/run.sh and experiments/gpu/run.sh; VGG-16 is trained here.
# Where torchvision's weights can be downloaded, one command draws the unmodified networks, without training:
#   python -m camlab.explain images=PHOTOS network=vgg16 methods=[grad_cam]
set -euo pipefail
lossless=$1 weights=$2 photos=$3 out=$4
here=$(dirname "$0")

[ -f "$out/vgg16-frozen-0/result.json" ] ||
    python -m camlab.train arch=cam_net arch.backbone=vgg16 mode=frozen logger=csv data.root="$lossless" data.verify=false \
        arch.weights="$weights/vgg16-imagenet1k-features-fp16.safetensors" trainer.max_epochs=60 \
        callbacks.heatmaps.every_n_epochs=10 paths.cache="$out/cache" hydra.run.dir="$out/vgg16-frozen-0"
python "$here/figures.py" figure3 "$out/frozen-0" "$out/finetune-0" "$lossless"
python "$here/figures.py" figure4 "$out/finetune-0" "$photos" finetune
python "$here/figures.py" figure4 "$out/vgg16-frozen-0" "$photos" vgg16
