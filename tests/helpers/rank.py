"""One of two processes that train together: python rank.py RANK MEETING COMMANDS.

Like one of torchrun's, but with several runs in one go, since starting takes longer than training a small
network. MEETING is a file that is not there; COMMANDS are JSON: the arguments of a run, and of one that goes
on with a copy of the first without its last state.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from command import maximir

rank, meeting = int(sys.argv[1]), sys.argv[2]
first, again = json.loads(sys.argv[3])
run, copy = (Path(command[command.index("--out") + 1]) for command in (first, again))
torch.set_num_threads(1)
sys.modules["torch.utils.tensorboard"] = None  # type: ignore[assignment]  # seconds to import
os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
maximir(*first)
if rank == 0:
    shutil.copytree(run, copy)
    sorted((copy / "states").iterdir())[-1].unlink()
dist.barrier()
maximir(*again)
dist.destroy_process_group()
