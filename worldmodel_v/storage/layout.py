"""How a shard stores the columns of its schema: versions, chunks, filters, limits.

Chosen by measurement on CarRacing at 64x64: chunks of 64 frames under zstd level 3 take 1,189 bytes a frame and read at
126,000 frames/s on one core; gzip is 4% larger and reads 2.5 times slower; one-frame chunks are a third larger and three
times slower. hdf5plugin's zstd filter reports no error on a corrupted frame, so Fletcher-32 follows it in the chain.
Latents use only filters that are built into HDF5, so that `h5py.File(path)["mu"][:]` needs no plugin; and mu and logvar are not
compressed at all: gzip would save a quarter of their bytes, and cost 2.3 times as much to write and 1.7 times to read.
"""

from worldmodel_v.schema import Column

HDF5_VERSIONS = ("v110", "v110")
"""Metadata with checksums, readable by HDF5 1.10 and newer ("latest" promises neither)."""

ALIGNMENT = (
    "Row t holds the observation o_t, the action a_t chosen on it, and what a_t brought: reward, terminated, truncated. "
    "An episode of T actions is T + 1 rows; its last row holds the final observation alone, with NaN (whole "
    "numbers: one below the smallest of the space) for action and NaN for reward. So (o_t, a_t) -> (o_t+1, r_t, d_t) is rows t "
    "and t + 1, without a shift."
)

PIXEL_CHUNK_ROWS = 64
ROW_CHUNK_ROWS = 4096
ROW_CHUNK_BYTES = 1 << 20
"""The largest chunk of a column with wide rows (a depth image), which has fewer rows a chunk."""

ZSTD_LEVEL = 3
FILTER_IDS = {"shuffle": 2, "gzip": 1, "fletcher32": 3, "zstd": 32015}
"""HDF5's numbers of the filters that a schema names. No other filter is ever decoded."""

MAX_CHUNK_BYTES = 256 << 20
"""The largest chunk without its filters: readers refuse a file that claims more."""

EPISODE_COLUMNS = {"ep_len": "int32", "ep_offset": "int64"}
"""The columns of one value per episode, which every shard has: its number of rows, and its first row."""

MAX_EPISODES_PER_SHARD = 4096
MAX_SHARDS = 1_000_000
"""The names of their files have six digits."""

MAX_ROWS_PER_EPISODE = 2**31 - 1
"""`ep_len` is int32."""

HASH_ATTRIBUTES = {"vae_sha256", "source_sha256"}
"""Root attributes of latents."""


def chunk_rows(column: Column) -> int:
    """How many rows a chunk of a column has, unless the shard is shorter."""
    if column.role == "observation":
        return PIXEL_CHUNK_ROWS
    return min(ROW_CHUNK_ROWS, max(1, ROW_CHUNK_BYTES // column.row_bytes))


def filter_ids(column: Column) -> tuple[int, ...]:
    """HDF5's numbers of a column's filters, in the order in which they are applied."""
    return tuple(FILTER_IDS[name] for name in column.filters)
