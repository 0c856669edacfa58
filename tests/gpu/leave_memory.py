#!/usr/bin/env python3
"""leave_memory.py GB - takes the memory of the first GPU but for so many GB (1e9 bytes), says so, and keeps it until it is told to end."""
import sys
import time

import torch

free = torch.cuda.mem_get_info()[0]
taken = torch.empty(max(0, int(free - float(sys.argv[1]) * 1e9)), dtype=torch.uint8, device="cuda")
print(f"{torch.cuda.mem_get_info()[0] / 1e9:.2f} GB are free", flush=True)
time.sleep(600)
