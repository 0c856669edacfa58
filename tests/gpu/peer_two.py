#!/usr/bin/env python3
"""Guidance on two GPUs from one process, as the peers do it: a copy of the transformer on each, two threads.

usage: peer_two.py --config DIR [--devices 0,1] [--eager] [--steps N] [--repeat N] [--seconds S]
                   [--tokens N] [--size PX]

Networks as in peer_gpu.py: diffusers' transformer with random bf16 weights, compiled unless --eager, batch 1.
In each step the latents go to the second GPU and its prediction comes back; guidance and the Euler step
are computed on the first. One JSON line for each way as soon as it is there:

  one GPU                   both evaluations one after the other on the first GPU
  threads of each step      two threads, made and joined in every step
  threads that stay         two threads for the whole run, fed by queues
  one thread                gives both GPUs their work, one after the other, and waits for neither

its: steps per second, median of the runs of --steps steps; host_ms: what a step takes until all its work has
been given to the GPUs; first_s: the first run, with what it compiles; difference: of the prediction from that
of one GPU, relative. After --seconds no run begins.
"""
import argparse
import json
import queue
import statistics
import threading
import time

import torch

import peer_gpu

GUIDANCE = 4.0


class Side:
    """One GPU, its copy of the network and the condition that it evaluates."""

    def __init__(self, a, device, net, seed):
        self.device = torch.device("cuda", device)
        with torch.cuda.device(self.device):
            self.net = net or peer_gpu.transformer_net(a)
            self.call = self.net if a.eager else torch.compile(self.net)
            self.condition = self.new((1, a.tokens, self.net.config.cap_feat_dim), seed)
            self.mask = torch.ones(1, a.tokens, device=self.device, dtype=torch.bool)
            self.t = torch.full((1,), 0.5, device=self.device, dtype=torch.bfloat16)

    def new(self, shape, seed):
        """The same on every GPU."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(self.device, torch.bfloat16)

    def predict(self, x, condition=None):
        """Inference mode and current device are a thread's own."""
        with torch.inference_mode(), torch.cuda.device(self.device):
            condition = self.condition if condition is None else condition
            return self.call(x, self.t, condition, self.mask, return_dict=False)[0]


class OneGpu:
    name = "one GPU"

    def __init__(self, first, other):
        self.first, self.other = first, other

    def predict(self, x):
        return [self.first.predict(x), self.first.predict(x, self.other)]

    def close(self):
        pass


class TwoGpus:
    def __init__(self, sides):
        self.sides = sides

    def inputs(self, x):
        """Copied before the threads begin: a copy waits for what its source's GPU was given before it."""
        return [x.to(side.device, non_blocking=True) for side in self.sides]

    def outputs(self, predictions):
        for prediction in predictions:
            if isinstance(prediction, BaseException):
                raise prediction
        return [p.to(self.sides[0].device, non_blocking=True) for p in predictions]

    def one(self, i, x):
        try:
            return self.sides[i].predict(x)
        except Exception as e:  # raised again where it ends the measurement
            return e

    def close(self):
        pass


class ThreadsOfAStep(TwoGpus):
    name = "threads of each step"

    def predict(self, x):
        predictions = [None, None]

        def work(i, x):
            predictions[i] = self.one(i, x)
        threads = [threading.Thread(target=work, args=task) for task in enumerate(self.inputs(x))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.outputs(predictions)


class ThreadsThatStay(TwoGpus):
    name = "threads that stay"

    def __init__(self, sides):
        super().__init__(sides)
        self.tasks = [queue.SimpleQueue() for _ in sides]
        self.done = [queue.SimpleQueue() for _ in sides]
        for i in range(len(sides)):
            threading.Thread(target=self.serve, args=(i,), daemon=True).start()

    def serve(self, i):
        while (x := self.tasks[i].get()) is not None:
            self.done[i].put(self.one(i, x))

    def predict(self, x):
        for tasks, mine in zip(self.tasks, self.inputs(x)):
            tasks.put(mine)
        return self.outputs([done.get() for done in self.done])

    def close(self):
        for tasks in self.tasks:
            tasks.put(None)


class OneThread(TwoGpus):
    name = "one thread"

    def predict(self, x):
        return self.outputs([self.one(i, mine) for i, mine in enumerate(self.inputs(x))])


def synchronize(devices):
    for device in devices:
        torch.cuda.synchronize(device)


def run(way, x, steps, devices):
    """Seconds of a whole run, and until the GPUs had been given all of it; nothing waits for a GPU inside it."""
    synchronize(devices)
    begin = time.perf_counter()
    for _ in range(steps):
        cond, uncond = way.predict(x)
        x = x + (uncond + GUIDANCE * (cond - uncond)) / steps
    given = time.perf_counter() - begin
    synchronize(devices)
    assert torch.isfinite(x).all(), "not finite"
    return time.perf_counter() - begin, given


def difference(got, wanted):
    got, wanted = (torch.cat([p.float() for p in pair]) for pair in (got, wanted))
    return ((got - wanted).norm() / wanted.norm()).item()


def measure(way, x, wanted, devices, a):
    begin = time.perf_counter()
    predictions = way.predict(x)
    away = difference(predictions, wanted) if wanted else 0.0
    run(way, x, 2, devices)
    first = time.perf_counter() - begin
    times = []
    while len(times) < a.repeat and (not times or time.perf_counter() < a.until):
        times.append(run(way, x, a.steps, devices))
    rates = [a.steps / t for t, _ in times]
    host_ms = 1e3 * statistics.median(given for _, given in times) / a.steps
    print(json.dumps({"section": "peer", "peer": "eager" if a.eager else "compile", "way": way.name,
                      "its": round(statistics.median(rates), 3), "min_its": round(min(rates), 3),
                      "max_its": round(max(rates), 3), "runs": len(rates), "steps": a.steps,
                      "host_ms": round(host_ms, 2), "first_s": round(first, 1),
                      "difference": float(f"{away:.2e}")}), flush=True)
    way.close()
    return predictions


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--config", required=True)
    p.add_argument("--devices", default="0,1")
    p.add_argument("--eager", action="store_true")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--seconds", type=float, default=240)
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--size", type=int, default=1024)
    a = p.parse_args()
    a.until = time.perf_counter() + a.seconds
    ids = [int(i) for i in a.devices.split(",")]
    devices = [torch.device("cuda", i) for i in ids]

    import diffusers
    print(json.dumps({"section": "peer", "device": torch.cuda.get_device_name(ids[0]), "torch": torch.__version__,
                      "diffusers": diffusers.__version__, "size": a.size, "tokens": a.tokens}), flush=True)
    with torch.inference_mode():
        first = Side(a, ids[0], None, 1)
        side = a.size // 8
        x = first.new((1, first.net.config.in_channels, side, side), 3)
        one = OneGpu(first, first.new(first.condition.shape, 2))
        wanted = measure(one, x, None, devices, a)
        # each network is called once from here, alone: what it compiles is then there for the threads
        second = Side(a, ids[1], first.net if ids[0] == ids[1] else None, 2)
        second.predict(x.to(second.device))
        synchronize(devices)
        for kind in (ThreadsOfAStep, ThreadsThatStay, OneThread):
            if time.perf_counter() < a.until:
                measure(kind([first, second]), x, wanted, devices, a)


if __name__ == "__main__":
    main()
