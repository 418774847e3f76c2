# A list that only grows: RATE in MiB a second, after CALM seconds.
import sys
import time

rate, calm = float(sys.argv[1]), float(sys.argv[2])
time.sleep(calm)
seen, began = [], time.monotonic()
while True:
    due = (time.monotonic() - began) * rate * 1024
    while len(seen) < due:
        seen.append("x" * 960 + str(len(seen)))
    time.sleep(0.05)
