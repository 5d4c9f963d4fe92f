#!/usr/bin/env bash
# The studies of conf/experiment/ with a frozen AlexNet: the learning rate on the full set, map resolution and the width of
# cam_conv on a tenth of it. 40 minutes on 2 cores; half of it is for features, which experiments/table1/run.sh may have
# left in CACHE.
#   experiments/studies/run.sh DATA TENTH WEIGHTS CACHE OUT
# DATA and TENTH have cifar-10-batches-py/; WEIGHTS is `imagenet` or a features file. Tables: OUT/sweeps/*/summary.*
set -euo pipefail
data=$1 tenth=$2 weights=$3 cache=$4 out=$5
common=(mode=frozen arch=alexnet arch.weights="$weights" logger=csv data.verify=false callbacks.heatmaps=null
    paths.cache="$cache" paths.outputs="$out" launcher=joblib)

python -m camlab.train -m experiment=learning_rate "${common[@]}" data.root="$data" data.val_size=0 test_each_epoch=true \
    sweep=learning_rate
for study in resolution cam_channels; do
    python -m camlab.train -m experiment=$study "${common[@]}" data.root="$tenth" data.val_size=0 test_each_epoch=true \
        trainer.max_epochs=30 sweep=$study
done
