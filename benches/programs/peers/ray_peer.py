"""The workloads on Ray: tasks, and actors that keep their part of the data.

Owns the calls of Ray. Must not know what is computed: common.py does.
"""
import tempfile

import ray

import common


@ray.remote
def empty():
    """An empty task."""


@ray.remote
def add(a, b):
    """A task of the tree."""
    return a + b


@ray.remote
class Part:
    """A worker with its part of the data."""

    def __init__(self, read, *where):
        self.data = read(*where)

    def apply(self, work, *arguments):
        """The work, done on the data."""
        return work(self.data, *arguments)


def tasks(_):
    """Empty tasks, all awaited."""
    return len(common.measured(lambda: ray.get([empty.remote() for _ in range(common.TASKS)])))


def tree_sum(_):
    """The sum of 1..INTEGERS: a task for two integers, and one for two results."""

    def work():
        half = common.INTEGERS // 2
        node = [None] * half + [add.remote(2 * i + 1, 2 * i + 2) for i in range(half)]
        for i in reversed(range(1, half)):
            node[i] = add.remote(node[2 * i], node[2 * i + 1])
        return ray.get(node[1])

    return common.measured(work)


def parts_of(read, path, workers):
    """Workers that have read their parts; the function makes each of them work."""
    parts = [Part.remote(read, path, i, workers) for i in range(workers)]
    return lambda work, *arguments: ray.get([part.apply.remote(work, *arguments) for part in parts])


def k_means(workers, path):
    """Centroids of the points of a file."""
    parts, means = parts_of(common.points, path, workers), common.first_means(path)

    def step(means):
        return parts(common.assign, means)

    step(means)
    return common.check_of_means(common.measured(lambda: common.centroids(means, step)))


def word_count(workers, path):
    """Words of a file."""
    parts = parts_of(common.text, path, workers)
    parts(len)
    return common.check_of_words(common.measured(lambda: common.merged(parts(common.count))))


def with_ray(work):
    """The work, with Ray there and its workers warm."""

    def run(workers, *file):
        # Sockets lie in it, whose paths must be short.
        with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as directory:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, _temp_dir=directory)
            ray.get([add.remote(1, 2) for _ in range(1000)])
            result = work(workers, *file)
            ray.shutdown()
        return result

    return run


if __name__ == "__main__":
    workloads = {"tasks": tasks, "treesum": tree_sum, "kmeans": k_means, "wordcount": word_count}
    common.main({name: with_ray(work) for name, work in workloads.items()})
