"""The innermost loops of `kernels`, in vector instructions.

Numba's loops over a dozen rows are too short for its optimiser to vectorise, so
these few are handed to LLVM as vectors of fixed width.  LLVM translates them
for whatever processor it finds; nothing here names one.

All work on the *canvas*: the rows of one band of the surface, **column by
column**, ``ROWS`` pixels per column.  A pixel is a ``uint32``: the bytes red
(lowest), green, blue, and one unused.  Nothing is checked against the arrays'
bounds.

Numba's cache does not notice a change in this file: delete ``__pycache__``.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 12
FULL_COLUMNS = 9  # of full weight in every cell; wide ones have one more
CHANNELS = 4  # the unused one included

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
GROUP = ir.VectorType(I16, 4 * CHANNELS)  # four rows of a column
GROUPS = ROWS // 4


def _data(context, builder, array_type, array):
    """The address of an array's first element."""
    return context.make_array(array_type)(context, builder, array).data


def _splat(builder, value, vector_type):
    """A vector of equal elements."""
    single = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, I32(0))
    order = ir.Constant(ir.VectorType(I32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(single, ir.Constant(vector_type, ir.Undefined), order)


def _load(builder, address, vector_type, align):
    return builder.load(builder.bitcast(address, vector_type.as_pointer()), align=align)


def _store_where(builder, mask, value, address):
    """``address[k] = value[k]`` where ``mask[k]``."""
    pointer = builder.bitcast(address, value.type.as_pointer())
    kept = builder.load(pointer, align=4)
    builder.store(builder.select(mask, value, kept), pointer, align=4)


@intrinsic
def fill_columns(typing_context, canvas, start, stop, rgb, span_lo, span_hi, first):
    """Paint columns ``start..stop - 1``, each row within its own span.

    Row ``r``'s span is ``span_lo[first + r]..span_hi[first + r]``.
    """
    signature = types.void(canvas, types.int64, types.int64, types.uint32, span_lo, span_hi, types.int64)

    def generate(context, builder, sig, args):
        pixels = _data(context, builder, sig.args[0], args[0])
        los = _data(context, builder, sig.args[4], args[4])
        his = _data(context, builder, sig.args[5], args[5])
        start, stop, rgb, first = args[1], args[2], args[3], args[6]
        parts = []  # at most eight rows each
        for row in range(0, ROWS, 8):
            count = min(8, ROWS - row)
            at = builder.add(first, I64(row))
            spans = ir.VectorType(I32, count)
            lo = _load(builder, builder.gep(los, [at]), spans, 4)
            hi = _load(builder, builder.gep(his, [at]), spans, 4)
            colour = _splat(builder, rgb, spans)
            parts.append((row, lo, hi, colour))
        with cgutils.for_range(builder, stop, start=start) as loop:
            column = builder.mul(loop.index, I64(ROWS))
            x = builder.trunc(loop.index, I32)
            for row, lo, hi, colour in parts:
                xs = _splat(builder, x, lo.type)
                inside = builder.and_(builder.icmp_signed(">=", xs, lo), builder.icmp_signed("<=", xs, hi))
                address = builder.gep(pixels, [builder.add(column, I64(row))])
                _store_where(builder, inside, colour, address)
        return context.get_dummy_value()

    return signature, generate


def _widened(builder, address, count):
    """That many bytes as 16-bit lanes."""
    return builder.zext(_load(builder, address, ir.VectorType(I8, count), 4), ir.VectorType(I16, count))


def _blend(context, builder, sig, args, pixels):
    """``canvas[at : at + pixels]`` under ``rgb`` with the given alphas."""
    lanes = ir.VectorType(I16, pixels * CHANNELS)
    canvas, alphas = (_data(context, builder, sig.args[k], args[k]) for k in (0, 3))
    address = builder.gep(canvas, [args[1]])
    under = _widened(builder, address, lanes.count)
    colour = _splat(builder, args[2], ir.VectorType(I32, pixels))
    colour = builder.zext(builder.bitcast(colour, ir.VectorType(I8, lanes.count)), lanes)
    row = builder.gep(alphas, [builder.mul(args[4], I64(2 * CHANNELS))])
    alpha = _load(builder, row, lanes, 2)
    eight = ir.Constant(lanes, [8] * lanes.count)
    # Wraps around and back: the result is one of 16 bits without a sign.
    mixed = builder.add(builder.shl(under, eight), builder.mul(builder.sub(colour, under), alpha))
    mixed = builder.trunc(builder.lshr(mixed, eight), ir.VectorType(I8, lanes.count))
    builder.store(mixed, builder.bitcast(address, mixed.type.as_pointer()), align=4)
    return context.get_dummy_value()


@intrinsic
def blend_one(typing_context, canvas, at, rgb, alphas, weight):
    """``rgb`` over pixel ``at``, with the first alpha of ``alphas[weight]``."""

    def generate(context, builder, sig, args):
        return _blend(context, builder, sig, args, 1)

    return types.void(canvas, types.int64, types.uint32, alphas, types.int64), generate


@intrinsic
def blend_two(typing_context, canvas, at, rgb, alphas, weight):
    """``rgb`` over pixels ``at`` and ``at + 1``, with ``alphas[weight]``."""

    def generate(context, builder, sig, args):
        return _blend(context, builder, sig, args, 2)

    return types.void(canvas, types.int64, types.uint32, alphas, types.int64), generate


def _scaled(builder, values, factors, shift=0):
    """``(values << shift) * factors >> 16``, of unsigned 16-bit lanes."""
    wide = ir.VectorType(I32, values.type.count)
    if shift:
        values = builder.shl(values, ir.Constant(values.type, [shift] * values.type.count))
    product = builder.mul(builder.zext(values, wide), builder.zext(factors, wide))
    high = builder.lshr(product, ir.Constant(wide, [16] * wide.count))
    return builder.trunc(high, values.type)


def _half(builder, vector, start, count):
    order = ir.Constant(ir.VectorType(I32, count), list(range(start, start + count)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)


@intrinsic
def shrink_cell(
    typing_context, canvas, head, tail, head_weight, tail_weight, is_wide, row_weights, band,
    recip_x, recip_y,
):  # fmt: skip
    """The mean of one cell: along x with truncations, then along y likewise.

    Columns ``head`` and ``tail`` have weights in 2.14 fixed point, the
    ``FULL_COLUMNS`` (one more if ``is_wide``) ending at ``tail - 1`` have 1.
    ``row_weights[band]`` holds one weight for each lane of a column.
    Returns red, green, blue as the bytes of an integer, lowest first.
    """
    signature = types.uint32(
        canvas, types.int64, types.int64, types.int64, types.int64, types.int64,
        row_weights, types.int64, types.int64, types.int64,
    )  # fmt: skip

    def generate(context, builder, sig, args):
        pixels = _data(context, builder, sig.args[0], args[0])
        weights = _data(context, builder, sig.args[6], args[6])
        head, tail = args[1], args[2]
        left, right, wide, recip_x, recip_y = (builder.trunc(args[k], I16) for k in (3, 4, 5, 8, 9))
        left, right, recip_x = (_splat(builder, v, GROUP) for v in (left, right, recip_x))
        wide = _splat(builder, builder.neg(wide), GROUP)
        row_at = builder.mul(args[7], I64(ROWS * CHANNELS))
        total = None
        for group in range(GROUPS):

            def column(x, group=group):
                at = builder.add(builder.mul(x, I64(ROWS)), I64(4 * group))
                return _widened(builder, builder.gep(pixels, [at]), GROUP.count)

            # The extra column is one beyond the others on the head's side.
            extra = builder.sub(tail, I64(FULL_COLUMNS + 1))
            line = builder.and_(column(extra), wide)
            for k in range(1, FULL_COLUMNS + 1):
                line = builder.add(line, column(builder.sub(tail, I64(k))))
            line = builder.add(line, _scaled(builder, column(head), left, 2))
            line = builder.add(line, _scaled(builder, column(tail), right, 2))
            line = _scaled(builder, line, recip_x)
            at = builder.add(row_at, I64(group * GROUP.count))
            row_weight = _load(builder, builder.gep(weights, [at]), GROUP, 2)
            line = _scaled(builder, line, row_weight, 2)
            total = line if total is None else builder.add(total, line)
        for count in (8, 4):
            total = builder.add(_half(builder, total, 0, count), _half(builder, total, count, count))
        total = _scaled(builder, total, _splat(builder, recip_y, total.type))
        return builder.bitcast(builder.trunc(total, ir.VectorType(I8, 4)), I32)

    return signature, generate


@intrinsic
def trailing_zeros(typing_context, word):
    """How many of the lowest bits are zero; ``word`` itself must not be."""

    def generate(context, builder, sig, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.uint64), generate
