"""Tables with a row for each action: CSV, parquet and npz files of other people, as named columns.

Legend: R rows.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worldmodel_v.errors import DatasetNotUsable, PackageMissing, one_line
from worldmodel_v.importing.npz_files import read_arrays, read_headers
from worldmodel_v.importing.recording import leave_out, reading
from worldmodel_v.storage.reading import readable

MOST_OF_A_HEAD = 1 << 20
Table = Mapping[str, np.ndarray]
"""Column names to numbers, (R, …) each; of an npz also single numbers, (). Dates and times are datetime64, only to be
compared. A column of anything else (texts) is None in every row, of dtype object."""


def read_table(path: Path, without: Collection[str] = ()) -> Table:
    """The columns of a table that are not empty; those of `without` are not looked at, and so hold no numbers.

    Raises DatasetNotUsable if it is damaged, or two have one name.
    """
    with reading(path):
        table = READERS[path.suffix.lower()](path, without)
    lengths = {name: len(column) for name, column in table.items() if column.ndim}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DatasetNotUsable("its columns differ in length", where=path, expected="one row for each action", got=said)
    return table


def arrow_column(column: Any, shape: tuple[int, ...] | None = None, *, name: str, where: Any) -> np.ndarray:
    """A column of pyarrow, lists within lists included, as numbers (R, …); `shape` is that of a row, if it is known.

    Raises DatasetNotUsable if a value is missing, no number, or if rows differ in length.
    """
    rows = _nested(column.combine_chunks() if hasattr(column, "combine_chunks") else column, name, where)
    if shape is not None and rows.shape[1:] != shape and rows[:1].size == np.prod(shape, dtype=int):
        rows = rows.reshape(len(rows), *shape)  # a single value in a row is stored without its axis
    if shape is not None and rows.shape[1:] != shape:
        raise DatasetNotUsable(f"{name}", where=where, expected=f"rows of {[*shape]}", got=f"{[*rows.shape[1:]]}")
    return rows


def _nested(values: Any, name: str, where: Any) -> np.ndarray:
    """(R, …) of an array of pyarrow; raises DatasetNotUsable."""
    import pyarrow as pa

    if not is_numeric(values.type):
        raise DatasetNotUsable(f"{name}: is of {values.type}", where=where, expected="numbers")
    sizes, num_rows, tensor = [], len(values), None
    while _is_list(values.type) or isinstance(values.type, pa.BaseExtensionType):
        _require_whole(values, name, where)
        if isinstance(values.type, pa.BaseExtensionType):
            tensor = values if isinstance(values, pa.FixedShapeTensorArray) else tensor
            values = values.storage
            continue
        flat = values.flatten()
        size, rest = divmod(len(flat), max(1, len(values)))
        if rest or not _of_one_length(values, size):
            raise DatasetNotUsable(f"{name}: its rows differ in length", where=where, remedy=leave_out(name))
        sizes.append(size)
        values = flat
    _require_whole(values, name, where)
    if tensor is not None:  # it has axes of its own
        rows = tensor.to_numpy_ndarray()
        return rows.reshape(num_rows, *sizes[:-1], *rows.shape[1:])
    return values.to_numpy(zero_copy_only=False).reshape(num_rows, *sizes)


def is_numeric(type_: Any) -> bool:
    """Whether a column of this pyarrow type holds numbers, or lists of them; not tensors of truth values, which pyarrow cannot
    give."""
    import pyarrow as pa

    if isinstance(type_, pa.FixedShapeTensorType) and pa.types.is_boolean(type_.value_type):
        return False
    while _is_list(type_) or isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_.value_type
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_))


def require_pyarrow(what: Any) -> None:
    """Raise PackageMissing without pyarrow; `what` is to be read with it."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise PackageMissing("reading it needs pyarrow", where=what, remedy="pip install 'worldmodel_v[import]'") from None


def _read_csv(path: Path, without: Collection[str]) -> Table:
    require_pyarrow(path)
    import pyarrow

    _require_commas(path)
    try:
        table = _parsed(path)
    except pyarrow.ArrowInvalid as error:
        expected = "a head with a name for each column, and rows with as many values"
        raise DatasetNotUsable(f"is no such CSV ({one_line(error)})", where=path, expected=expected) from None
    columns = _columns(table.rename_columns([name.strip() for name in table.schema.names]), path, without)
    for name in table.schema.names:
        _require_within_int64(columns.get(name.strip()), name, path)
    return columns


def _parsed(path: Path, **options: Any) -> Any:
    """pyarrow's table of a CSV. Without line breaks in values, it loses rows of files over 1 MB in silence."""
    import pyarrow.csv

    return pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True), **options)


def _require_within_int64(rows: np.ndarray | None, name: str, path: Path) -> None:
    """Raise DatasetNotUsable if pyarrow has made floats of whole numbers beyond int64."""
    if rows is None or rows.dtype != np.float64 or not (np.isfinite(rows) & (np.abs(rows) >= 2.0**63)).any():
        return
    import pyarrow.compute as pc
    import pyarrow.csv

    as_text = pyarrow.csv.ConvertOptions(include_columns=[name], column_types={name: pyarrow.string()})
    texts = _parsed(path, convert_options=as_text)[name]
    if pc.any(pc.match_substring_regex(texts, r"^\s*[+-]?\d{19,}\s*$")).as_py():
        raise DatasetNotUsable(f"{name.strip()}: whole numbers that int64 cannot hold", where=path)


def _require_commas(path: Path) -> None:
    """Raise DatasetNotUsable if something else stands between the columns."""
    with readable(path), path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.readline(MOST_OF_A_HEAD).strip()
        if "\ufffd" in head:
            raise DatasetNotUsable("its head is not in UTF-8", where=path, remedy="save it as UTF-8")
        if "," not in head:
            _require_no_gap(file, path)
    if "," not in head and any(mark in head for mark in ";\t|"):
        what, expected = "its columns are not separated by commas", "a head such as steer,gas,reward"
        raise DatasetNotUsable(what, where=path, expected=expected, got=f"{head:.100}")


def _require_no_gap(rows: Iterable[str], path: Path) -> None:
    """Raise DatasetNotUsable for an empty line between rows of one column: pyarrow skips it, and it may be a missing value."""
    gap = 0
    for number, row in enumerate(rows, 2):
        gap = number if not row.strip() and not gap else gap
        if gap and row.strip():
            raise DatasetNotUsable(f"line {gap} is empty", where=path, expected="a number in every row")


def _read_parquet(path: Path, without: Collection[str]) -> Table:
    require_pyarrow(path)
    import pyarrow.parquet

    return _columns(pyarrow.parquet.read_table(path), path, without)


def _read_npz(path: Path, without: Collection[str]) -> Table:
    headers = read_headers(path)
    names = [name for name, header in headers.items() if header.dtype.kind in "fiub" and name not in without]
    numbers = read_arrays(path, names)
    return {name: numbers.get(name, _no_numbers(*header.shape[:1])) for name, header in headers.items()}


def _no_numbers(*num_rows: int) -> np.ndarray:
    return np.broadcast_to(np.array(None), num_rows)


def _columns(table: Any, path: Path, without: Collection[str]) -> Table:
    """Empty cells, and nan in a CSV, become NaN; a column of empty cells alone is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = table.schema.names
    if not len(table):
        raise DatasetNotUsable("has no rows", where=path, expected="one row for each action")
    if doubled := [name for name in names if names.count(name) > 1]:
        raise DatasetNotUsable(f"has two columns of the name {doubled[0]!r:.100}", where=path)
    found: dict[str, np.ndarray] = {}
    for name, column in zip(names, table.columns, strict=True):
        if name in without or not pa.types.is_null(column.type):
            found[name] = _no_numbers(len(column))
        if name in without:
            continue
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.int64() if column.type.scale <= 0 else pa.float64())
        if column.null_count and is_numeric(column.type) and pa.types.is_primitive(column.type):
            whole = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
            column = pc.fill_null(whole.cast(pa.float64()), np.nan)
        if is_numeric(column.type):
            found[name] = arrow_column(column, name=name, where=path)
        elif pa.types.is_temporal(column.type) and not column.null_count:
            if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):  # a time of a day, or how long
                column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
            found[name] = column.to_numpy()
    return found


def _is_list(type_: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _of_one_length(lists: Any, size: int) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    return (
        pa.types.is_fixed_size_list(lists.type) or not len(lists) or pc.all(pc.equal(pc.list_value_length(lists), size)).as_py()
    )


def _require_whole(values: Any, name: str, where: Any) -> None:
    if values.null_count:
        raise DatasetNotUsable(f"{name}: {values.null_count} values are missing", where=where, expected="a number in every row")


READERS: dict[str, Callable[[Path, Collection[str]], Table]] = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
