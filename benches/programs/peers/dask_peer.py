"""The workloads on Dask: a scheduler and worker processes of one thread each.

Owns the calls of Dask. Must not know what is computed: common.py does.
"""
import tempfile

import dask
from distributed import Client, LocalCluster, wait

import common


def empty(_):
    """An empty task."""


def add(a, b):
    """A task of the tree."""
    return a + b


def tasks(client, _):
    """Empty tasks, all awaited."""
    return len(common.measured(lambda: client.gather(client.map(empty, range(common.TASKS), pure=False))))


def tree_sum(client, _):
    """The sum of 1..INTEGERS: a task for two integers, and one for two results."""
    task = dask.delayed(add, pure=False)

    def work():
        half = common.INTEGERS // 2
        node = [None] * half + [task(2 * i + 1, 2 * i + 2) for i in range(half)]
        for i in reversed(range(1, half)):
            node[i] = task(node[2 * i], node[2 * i + 1])
        return client.compute(node[1]).result()

    return common.measured(work)


def parts_of(client, read, path, workers):
    """Workers that have read their parts; the function makes each of them work."""
    names = sorted(client.scheduler_info()["workers"])
    parts = [client.submit(read, path, i, workers, workers=[name], pure=False) for i, name in enumerate(names)]
    wait(parts)

    def apply(work, *arguments):
        pairs = zip(names, parts)
        return client.gather([client.submit(work, part, *arguments, workers=[name], pure=False) for name, part in pairs])

    return apply


def k_means(client, workers, path):
    """Centroids of the points of a file."""
    parts, means = parts_of(client, common.points, path, workers), common.first_means(path)

    def step(means):
        return parts(common.assign, means)

    step(means)
    return common.check_of_means(common.measured(lambda: common.centroids(means, step)))


def word_count(client, workers, path):
    """Words of a file."""
    parts = parts_of(client, common.text, path, workers)
    parts(len)
    return common.check_of_words(common.measured(lambda: common.merged(parts(common.count))))


def with_dask(work):
    """The work, with Dask there and its workers warm."""

    def run(workers, *file):
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        with tempfile.TemporaryDirectory(prefix="dask-") as directory:
            with LocalCluster(local_directory=directory, **options) as cluster, Client(cluster) as client:
                client.gather(client.map(empty, range(1000), pure=False))
                return work(client, workers, *file)

    return run


if __name__ == "__main__":
    workloads = {"tasks": tasks, "treesum": tree_sum, "kmeans": k_means, "wordcount": word_count}
    common.main({name: with_dask(work) for name, work in workloads.items()})
