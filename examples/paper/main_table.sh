#!/bin/sh
# The registered test: every run that has no result yet, then tables and page in `registered/`. Usage: main_table.sh FOLDER
set -eu
data=${1:?usage: main_table.sh FOLDER, the folder of ucihar.npz and watch.npz}
here=$(dirname "$0")
blossom-edge experiment run "$here/registered.toml" --data-folder "$data" --out registered
blossom-edge experiment run "$here/registered-iid.toml" --data-folder "$data" --out registered
blossom-edge experiment report registered
