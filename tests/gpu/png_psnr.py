"""png_psnr.py A.png B.png [LEAST] - likeness of two pictures in dB ("inf": the same pixels).

Fails when it is below LEAST.
"""
import math
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import png_diff  # noqa: E402

one, two = png_diff.read(sys.argv[1]), png_diff.read(sys.argv[2])
assert one[:2] == two[:2], "sizes differ"
error = sum((a - b) ** 2 for a, b in zip(one[2], two[2])) / len(one[2])
psnr = math.inf if error == 0 else 10 * math.log10(255 ** 2 / error)
print(f"{psnr:.1f}")
sys.exit(len(sys.argv) > 3 and psnr < float(sys.argv[3]))
