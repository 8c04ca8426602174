"""Linear algebra of numpy, which a library with threads computes: products, solutions, factors, eigenvalues.

Owns what is computed; prints digits that do not depend on how many threads shared the sums. Must not know where they run.
"""
import numpy
from numpy import linalg

SIZE = 512
SMALL = 100


def digits(name, values):
    print(name, " ".join(f"{value:.8e}" for value in numpy.atleast_1d(values)))


random = numpy.random.default_rng(7)
left, right = (random.integers(-9, 10, (SIZE, SIZE)).astype(float) for _ in range(2))
product = left @ right
print("product", int(product.sum()), int((product * product).sum()), int(product.trace()))
singles = left.astype(numpy.float32) @ right.astype(numpy.float32)
print("singles", bool((singles == product).all()))
regular = left + 40 * SIZE**0.5 * numpy.eye(SIZE)
solution = linalg.solve(regular, right)
digits("solution", [abs(solution).sum(), solution[0, 0]])
print("residual", bool(abs(regular @ solution - right).max() < 1e-9))
digits("cholesky", linalg.cholesky(left @ left.T + SIZE * numpy.eye(SIZE)).trace())
symmetric = (left + left.T)[:SMALL, :SMALL]
digits("eigenvalues", linalg.eigvalsh(symmetric)[:4])
digits("singular", linalg.svd(left[:SMALL, :SMALL], compute_uv=False)[:4])
