"""The GPU's clock and power while cells are timed, from nvidia-smi in the background."""
import subprocess
import threading
import time

import torch

INTERVAL_MS = 100


class Sensors:
    """Collects samples; where nvidia-smi is missing or refuses, there are none."""

    def __init__(self):
        self.samples = []
        self.process = None
        gpu = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        command = ["nvidia-smi", "-i", gpu, "--query-gpu=clocks.sm,power.draw.instant",
                   "--format=csv,noheader,nounits", f"--loop-ms={INTERVAL_MS}"]
        try:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE,
                                            stderr=subprocess.DEVNULL, text=True)
        except OSError:
            return
        threading.Thread(target=self.collect, daemon=True).start()

    def collect(self):
        for line in self.process.stdout:
            try:
                clock_mhz, power_watts = (float(word) for word in line.split(","))
            except ValueError:
                continue
            self.samples.append((time.monotonic(), clock_mhz, power_watts))

    def mean_since(self, start):
        """Mean clock (MHz) and power (watts) of the samples after `start`; None without any."""
        recent = [sample for sample in self.samples if sample[0] >= start]
        if not recent:
            return None, None
        return tuple(round(sum(s[i] for s in recent) / len(recent), 1) for i in (1, 2))

    def stop(self):
        if self.process is not None:
            self.process.terminate()
