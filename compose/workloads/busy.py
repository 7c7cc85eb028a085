"""Works for a tenth of a second, rests for three."""
import time


def leaf_of_python():
    return sum(i * i for i in range(2000))


def top_of_python():
    return leaf_of_python()


while True:
    start = time.monotonic()
    while time.monotonic() - start < 0.1:
        top_of_python()
    time.sleep(0.3)
