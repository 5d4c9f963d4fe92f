#!/usr/bin/env bash
# How well does a frozen VGG do? VGG-16 with ImageNet weights on the lossless tenth of CIFAR-10 (5,170 training images and
# 1,017 test images) at 224², 150 epochs as in the report, three seeds; AlexNet on the same images beside it.
#   experiments/vgg/run.sh DATA VGG16_WEIGHTS ALEXNET_WEIGHTS OUT
# DATA is a folder with cifar-10-batches-py/ of the lossless images, the weights are files of features. The features of both
# networks are computed once, which takes most of the time: about 30 minutes on one core. Afterwards run:
# python experiments/vgg/collect.py OUT
set -euo pipefail
data=$1 vgg16=$2 alexnet=$3 out=$4
common=(mode=frozen data.root="$data" data.verify=false data.val_size=0 test_each_epoch=true logger=csv
    paths.cache="$out/cache" callbacks.heatmaps.every_n_epochs=50)

for seed in 0 1 2; do
    python -m camlab.train arch=vgg13 arch.backbone=vgg16 arch.weights="$vgg16" "${common[@]}" seed=$seed out="$out/vgg16-$seed"
    python -m camlab.train arch=alexnet arch.weights="$alexnet" "${common[@]}" seed=$seed out="$out/alexnet-$seed"
done
