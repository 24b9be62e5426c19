"""Run a command for the plug-in: python supervise.py FOLDER COMMAND …

*Cancel* in GIMP kills the plug-in, which can then clean up nothing. This process outlives it: when the
plug-in's end of standard input closes, it ends the command and removes the folder.
"""

import os
import shutil
import subprocess
import sys
import threading

folder, *command = sys.argv[1:]
process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
cancelled = threading.Event()


def wait_for_plug_in():
    os.read(0, 1)  # returns when the plug-in is gone
    cancelled.set()
    process.terminate()


threading.Thread(target=wait_for_plug_in, daemon=True).start()
code = process.wait()
if cancelled.is_set():
    shutil.rmtree(folder, ignore_errors=True)
sys.exit(code)
