"""A worker process that restores nothing: it does what the upload says, and gives it back reversed.

An upload that is a picture comes back as it is. Any other is JSON, then anything: {"sleep": seconds,
"steps": n, "hold": a file beside the log to wait for, "large": bytes of the result,
"do": "crash" | "crash early" (beside another) | "hang" | "garbage" | "fail"}. argv[1] is a log of its own.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

from maximir.service import wire
from maximir.service.worker import private_streams

orders, replies = private_streams()
lock = threading.Lock()
cancelled = set()
line = queue.Queue()


def tell(**message):
    body = message.pop("body", b"")
    with lock:
        wire.write(replies, message, body)


def log(text):
    with open(sys.argv[1], "a") as file:
        print(text, file=file)


def listen():
    while (received := wire.read(orders)) is not None:
        message, data = received
        if "cancel" in message:
            log(f"cancel {message['cancel']}")
            cancelled.add(message["cancel"])
        elif b"crash early" in data:
            tell(job=message["job"], stage="decoding")
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            line.put((message, data))
    log("gone")
    os._exit(0)


def restore(order, data):
    number = order["job"]
    says = data[:1] == b"{"
    wish = json.JSONDecoder().raw_decode(data.decode("latin-1"))[0] if says else {}
    tell(job=number, stage="decoding")
    tell(job=number, stage="waiting", pixels=4096)
    tell(job=number, stage="computing")
    log(f"computing {wish.get('name', number)}")
    steps = wish.get("steps", 10)
    for step in range(steps):
        if number in cancelled:
            tell(job=number, cancelled=True)
            return
        tell(job=number, fraction=step / steps)
        time.sleep(wish.get("sleep", 0) / steps)
    while "hold" in wish and not Path(sys.argv[1]).with_name(wish["hold"]).exists():
        time.sleep(0.01)
    match wish.get("do"):
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(1000)
        case "garbage":
            os.write(replies.fileno(), b"this is no message\n")
            return
        case "fail":
            tell(job=number, failed="the file is damaged", status=422)
            return
    tell(job=number, stage="encoding")
    body = data[::-1] + bytes(wish.get("large", 0)) if says else data
    tell(
        job=number,
        done=order["kind"] or "png",
        seconds=wish.get("sleep", 0),
        precision="fp32",
        notes=["näive"] if says else [],
        body=body,
    )


signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
received = wire.read(orders)
if received is None:  # the service was killed just then
    sys.exit()
settings, _ = received
device = settings["device"]
log(f"start {os.getpid()} {device}")
print("a library that prints", flush=True)  # must not get among the messages
match device:
    case "none":
        tell(failed="device 'none' cannot be used", usage=True)
        sys.exit(1)
    case "slow":
        time.sleep(2)
    case "asleep":
        time.sleep(1000)
    case "dead":
        sys.exit(3)
    case "dies later":  # the first one runs, no other ever does
        with open(sys.argv[1]) as file:
            if file.read().count(device) > 1:
                sys.exit(3)
threading.Thread(target=listen, daemon=True).start()
tell(ready=f"fake {device}")
while True:
    restore(*line.get())
