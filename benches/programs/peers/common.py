"""What all peers do alike: the arithmetic of the workloads, their check values, and the lines the bench reads.

Owns these. Must not know how a peer shares work. A peer prints `begin` when its workers have started, have their part of the
data and have compiled what they run; `end` when whoever asked has the result; then its check value. The bench takes the time
between both.
"""
import sys
from collections import Counter

import numba
import numpy as np

TASKS = 10_240
INTEGERS = 20_480
CLUSTERS, DIMENSIONS, ROUNDS = 16, 8, 10
FNV_BASIS, FNV_PRIME, WORD_MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def measured(work):
    """The result of the work, with the lines around it."""
    print("begin", flush=True)
    result = work()
    print("end", flush=True)
    return result


def main(workloads):
    """Runs the workload that the command line names: NAME WORKERS [FILE]."""
    name, workers, *file = sys.argv[1:]
    print(workloads[name](int(workers), *file), flush=True)


def points(path, index, parts):
    """A part of the points."""
    return np.array_split(np.fromfile(path, "<i8").reshape(-1, DIMENSIONS), parts)[index].copy()


@numba.njit
def assign(part, means):
    """Sums and counts of the clusters of a part of the points; of centroids that are equally near, the first."""
    sums = np.zeros((CLUSTERS, DIMENSIONS), np.int64)
    counts = np.zeros(CLUSTERS, np.int64)
    for i in range(part.shape[0]):
        best, least = 0, np.int64(2**63 - 1)
        for k in range(CLUSTERS):
            distance = np.int64(0)
            for d in range(DIMENSIONS):
                difference = part[i, d] - means[k, d]
                distance += difference * difference
            if distance < least:
                best, least = k, distance
        for d in range(DIMENSIONS):
            sums[best, d] += part[i, d]
        counts[best] += 1
    return sums, counts


def centroids(means, step):
    """The centroids after all rounds; `step` gives sums and counts of each part."""
    for _ in range(ROUNDS):
        sums, counts = (sum(of_parts) for of_parts in zip(*step(means)))
        means = np.where(counts[:, None] > 0, sums // np.maximum(counts, 1)[:, None], means)
    return means


def first_means(path):
    """The first points."""
    return np.fromfile(path, "<i8", CLUSTERS * DIMENSIONS).reshape(CLUSTERS, DIMENSIONS)


def check_of_means(means):
    """As the DISA program prints it."""
    return f"{fnv(means.astype('<i8').tobytes()):016x}"


def text(path, index, parts):
    """A part of the text, cut between words."""
    with open(path, "rb") as file:
        whole = file.read()

    def cut(at):
        while 0 < at < len(whole) and whole[at - 1] > 0x20:
            at += 1
        return at

    return whole[cut(len(whole) * index // parts) : cut(len(whole) * (index + 1) // parts)]


def count(part):
    """How often each word is in a part of the text."""
    return Counter(part.split())


def merged(counts):
    """The counts of all parts."""
    total = Counter()
    for part in counts:
        total.update(part)
    return total


def check_of_words(counts):
    """As the DISA program prints it."""
    total = sum(fnv(word) * number for word, number in counts.items()) & WORD_MASK
    return f"{total:016x}/{sum(counts.values())}/{len(counts)}"


def fnv(data):
    """FNV-1a of 64 bits."""
    state = FNV_BASIS
    for byte in data:
        state = (state ^ byte) * FNV_PRIME & WORD_MASK
    return state
