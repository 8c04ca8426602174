"""k-means on PySpark in local mode: the points are a cached RDD with an element for each worker.

Owns the calls of Spark and the assignment in NumPy, as PySpark is used where nothing is compiled. Must not know the rest of the
workload: common.py does.
"""
import numpy as np
from pyspark import SparkConf, SparkContext

import common

# Points at a time, so that what lies between them stays in the cache.
BLOCK = 2048


def assign(part, means):
    """What `common.assign` gives."""
    sums = np.zeros((common.CLUSTERS, common.DIMENSIONS), np.int64)
    counts = np.zeros(common.CLUSTERS, np.int64)
    for first in range(0, len(part), BLOCK):
        block = part[first : first + BLOCK]
        difference = block[:, None, :] - means
        nearest = np.einsum("ikd,ikd->ik", difference, difference).argmin(axis=1)
        np.add.at(sums, nearest, block)
        counts += np.bincount(nearest, minlength=common.CLUSTERS)
    return sums, counts


def k_means(workers, path):
    """Centroids of the points of a file."""
    conf = SparkConf().setMaster(f"local[{workers}]").setAppName("k-means")
    options = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.driver.host": "127.0.0.1"}
    context = SparkContext(conf=conf.setAll(options.items()))
    context.setLogLevel("ERROR")
    indices = context.parallelize(range(workers), workers)
    parts = indices.map(lambda index: common.points(path, index, workers)).cache()
    means = common.first_means(path)

    def step(means):
        return parts.map(lambda part: assign(part, means)).collect()

    step(means)
    result = common.check_of_means(common.measured(lambda: common.centroids(means, step)))
    context.stop()
    return result


if __name__ == "__main__":
    common.main({"kmeans": k_means})
