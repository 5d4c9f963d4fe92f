#!/usr/bin/env bash
# Draws the report's Figure 3 (CAM of CIFAR-10 images) and Figure 4 (Grad-CAM of photographs).
#   experiments/figures/run.sh DATA WEIGHTS PHOTOS OUT
# DATA is a folder with cifar-10-batches-py/, WEIGHTS one with the two files of ImageNet features, and PHOTOS one with pictures.
# Runs are written to OUT. This takes about an hour on 2 cores, less if OUT contains the runs of experiments/recipe/run.sh.
# Where torchvision's weights can be downloaded, one command draws the unmodified networks, without training:
#   python -m camlab.explain images=PHOTOS network=vgg16 methods=[grad_cam]
set -euo pipefail
data=$1 weights=$2 photos=$3 out=$4
here=$(dirname "$0")
common=(data.root="$data" data.verify=false data.val_size=0 logger=csv)

for run in finetune frozen; do
    [ -f "$out/$run/result.json" ] || "$here/../recipe/run.sh" "$data" "$weights/alexnet-imagenet1k-features.safetensors" "$out"
done
python -m camlab.train arch=vgg13 arch.backbone=vgg16 mode=frozen "${common[@]}" data.image_size=112 \
    arch.weights="$weights/vgg16-imagenet1k-features-fp16.safetensors" trainer.max_epochs=60 \
    callbacks.heatmaps.every_n_epochs=20 hydra.run.dir="$out/vgg16"
python "$here/figure3.py" "$out/frozen" "$out/finetune" "$data"
for run in finetune vgg16; do
    python -m camlab.explain images="$photos" checkpoint="$out/$run" methods=[grad_cam] out="$out/figure4-$run"
    python -c "import cv2, sys; cv2.imwrite(sys.argv[2], cv2.imread(sys.argv[1]))" \
        "$out/figure4-$run/sheet.png" "$here/figure4-$run.jpg"
done
