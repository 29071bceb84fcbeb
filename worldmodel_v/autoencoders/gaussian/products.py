"""The products of Winograd's algorithm in vector instructions: many matrices, each small enough for the core's cache.

Legend: T tiles (rows), K channels in, N channels out.

A BLAS packs both matrices before it multiplies, which pays for large ones. Here a product has 64 rows and 16 to 128 columns,
and all lie in the cache: on a core of AMD's Zen 5, OpenBLAS reaches 60 to 90 GFLOP/s, and this 150 to 240 (for 16 columns with
AVX2 alone 57 and 98). A block of the result stays in registers while its rows and columns are multiplied; `BLOCK_ROWS` and
`BLOCK_VECTORS` say how large it is. Each element is summed in the order of K, so it does not depend on its row.

LLVM translates the vectors for the processor that it finds. Nothing is checked against the arrays' bounds. Numba's cache does
not notice a change in this file: delete `__pycache__`.
"""

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Floats of a vector: one register of AVX-512, two of AVX2."""

HAS_AVX512 = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
BLOCK_ROWS, BLOCK_VECTORS = (8, 2) if HAS_AVX512 else (4, 1)

I32, I64 = ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
CONTRACT = ("contract",)  # multiply and add in one instruction, where there is one


@intrinsic
def multiply_blocks(_: Any, v: Any, weights: Any, m: Any, tiles: Any, inner: Any, columns: Any) -> Any:
    """m (T, N) = v (T, K) times weights (K, N), all contiguous float32. T is a multiple of BLOCK_ROWS, N of a block's width."""
    return types.void(v, weights, m, types.int64, types.int64, types.int64), _generator(BLOCK_VECTORS)


@intrinsic
def multiply_narrow_blocks(_: Any, v: Any, weights: Any, m: Any, tiles: Any, inner: Any, columns: Any) -> Any:
    """The same where N is only a multiple of LANES."""
    return types.void(v, weights, m, types.int64, types.int64, types.int64), _generator(1)


def _generator(vectors: int) -> Any:
    """Writes the code of a product in blocks of BLOCK_ROWS rows and so many vectors."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds = zip(signature.args[:3], arguments[:3], strict=True)
        arrays = [context.make_array(kind)(context, builder, array).data for kind, array in kinds]
        tiles, inner, columns = arguments[3:]
        sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(vectors)] for _ in range(BLOCK_ROWS)]
        with (
            cgutils.for_range_slice(builder, I64(0), tiles, I64(BLOCK_ROWS)) as (row, _),
            cgutils.for_range_slice(builder, I64(0), columns, I64(LANES * vectors)) as (column, _),
        ):
            _block(builder, arrays, sums, row, column, inner, columns)
        return context.get_dummy_value()

    return generate


def _block(builder: Any, arrays: Any, sums: Any, row: Any, column: Any, inner: Any, columns: Any) -> None:
    """One block of the result, whose first element is at (row, column)."""
    v, weights, m = arrays
    for vector in (vector for of_row in sums for vector in of_row):
        builder.store(ir.Constant(VECTOR, [0.0] * LANES), vector)
    starts = [builder.mul(builder.add(row, I64(r)), inner) for r in range(len(sums))]
    with cgutils.for_range(builder, inner) as loop:
        at = builder.add(builder.mul(loop.index, columns), column)
        factors = [builder.load(_vector_at(builder, weights, at, j), align=4) for j in range(len(sums[0]))]
        for start, of_row in zip(starts, sums, strict=True):
            value = _splat(builder, builder.load(builder.gep(v, [builder.add(start, loop.index)])))
            for factor, total in zip(factors, of_row, strict=True):
                product = builder.fmul(value, factor, flags=CONTRACT)
                builder.store(builder.fadd(builder.load(total), product, flags=CONTRACT), total)
    for r, of_row in enumerate(sums):
        at = builder.add(builder.mul(builder.add(row, I64(r)), columns), column)
        for j, total in enumerate(of_row):
            builder.store(builder.load(total), _vector_at(builder, m, at, j), align=4)


def _vector_at(builder: Any, floats: Any, at: Any, j: int) -> Any:
    """The address of the j-th vector from there."""
    return builder.bitcast(builder.gep(floats, [builder.add(at, I64(LANES * j))]), VECTOR.as_pointer())


def _splat(builder: Any, value: Any) -> Any:
    """A vector of equal elements."""
    undefined, order = ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    return builder.shuffle_vector(builder.insert_element(undefined, value, I32(0)), undefined, order)
