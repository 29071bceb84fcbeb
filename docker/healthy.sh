#!/bin/sh
# Whether a container of these images can do its work, whatever its command: the package is there, /data takes files, and where
# `ray start` made it a node, the cluster answers.
set -eu
python -c 'import worldmodel_v'
test -w "${DATA:-/data}"
if test -e "${RAY_TMPDIR:-/tmp}/ray/ray_current_cluster"; then timeout 20 ray health-check; fi
