"""The GPU's clock and power while cells are timed, from nvidia-smi in the background."""
import subprocess
import threading
import time

import torch

INTERVAL_MS = 100


def limits(gpu):
    """The highest clock and the power cap, where nvidia-smi tells them."""
    command = ["nvidia-smi", "-i", gpu, "--query-gpu=clocks.max.sm,power.limit",
               "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
        clock_mhz, power_watts = (float(word) for word in text.split(","))
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {"clock_limit_mhz": clock_mhz, "power_limit_watts": power_watts}


class Sensors:
    """Collects samples; where nvidia-smi is missing or refuses, there are none."""

    def __init__(self):
        self.samples = []
        # Those of them that were taken while cells were timed.
        self.timed = []
        self.limits = {}
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
        self.limits = limits(gpu)

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
        self.timed.extend(recent)
        return tuple(round(sum(s[i] for s in recent) / len(recent), 1) for i in (1, 2))

    def ranges(self):
        """Smallest, middle and largest clock and power of the samples that counted; None without
        any."""
        if not self.timed:
            return None

        def numbers(column):
            values = sorted(sample[column] for sample in self.timed)
            return {"least": values[0], "median": values[len(values) // 2], "most": values[-1]}

        return {"clock_mhz": numbers(1), "power_watts": numbers(2), "samples": len(self.timed),
                **self.limits}

    def stop(self):
        if self.process is not None:
            self.process.terminate()
