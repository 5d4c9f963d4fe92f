#!/usr/bin/env bash
# Runs the studies of conf/experiment/ with a frozen AlexNet: the learning rate on the full data set, and the resolution of
# the maps and the width of cam_conv on a tenth of it. This takes 40 minutes on 2 cores. Half of the time is for features,
# unless experiments/table1/run.sh has left them in CACHE.
#   experiments/studies/run.sh DATA TENTH WEIGHTS CACHE OUT
# DATA and TENTH are folders with cifar-10-batches-py/, and WEIGHTS is `imagenet` or a file of features. The tables are
# written to OUT/sweeps/*/summary.*
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
