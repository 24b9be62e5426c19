"""There is no Slurm in these tests: stand-ins for its commands show what the script would start."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "hosts/slurm/train.sbatch"
JOB = {
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_ID": "17",
    "SLURM_CPUS_PER_TASK": "64",
    "SLURM_GPUS_ON_NODE": "8",
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_command_that_is_started(tmp_path):
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$3" = "node[1-2]" ] && printf "node1\\nnode2\\n"\n')
    (tmp_path / "srun").write_text('#!/bin/sh\nprintf "%s\\n" "$OMP_NUM_THREADS" "$@"\n')
    for name in ("scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, **JOB, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["official/gopro", "--pairs", "s3://bucket/a set", "--out", "runs/gopro"]
    done = subprocess.run(
        ["bash", SCRIPT, *words], env=environment, capture_output=True, text=True, check=True
    )
    threads, *command = done.stdout.splitlines()
    assert threads == "8"
    assert command[command.index("torchrun") :] == [
        "torchrun",
        "--nnodes=2",
        "--nproc-per-node=8",
        "--max-restarts=3",
        "--rdzv-backend=c10d",
        "--rdzv-id=17-0",
        "--rdzv-endpoint=node1:29500",
        *("-m", "maximir", "train"),
        *words,
    ]
