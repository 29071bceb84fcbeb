"""The layout of a shard: which columns, in which dtype, under which filters.

Chosen by measurement on CarRacing at 64x64: chunks of 64 frames under zstd level 3 take 1,189 bytes a frame and read at
126,000 frames/s on one core; gzip is 4% larger and reads 2.5 times slower; one-frame chunks are a third larger and three
times slower. hdf5plugin's zstd filter reports no error on a corrupted frame, so Fletcher-32 follows it in the chain.
Latents use only filters that are built into HDF5, so that `h5py.File(path)["mu"][:]` needs no plugin; and mu and logvar are not
compressed at all: gzip would save a quarter of their bytes, and cost 2.3 times as much to write and 1.7 times to read.
"""

import math

import numpy as np

HDF5_VERSIONS = ("v110", "v110")
"""Metadata with checksums, readable by HDF5 1.10 and newer ("latest" promises neither)."""

ALIGNMENT = (
    "Row t holds the observation o_t, the action a_t chosen on it, and what a_t brought: reward, terminated, truncated. "
    "An episode of T actions is T + 1 rows; its last row holds the final observation alone, with NaN (discrete: -1) for "
    "action and NaN for reward. So (o_t, a_t) -> (o_t+1, r_t, d_t) is rows t and t + 1, without a shift."
)

ROLLOUTS = "worldmodel_v/rollouts"
LATENTS = "worldmodel_v/latents"

PIXEL_CHUNK_ROWS = 64
ROW_CHUNK_ROWS = 4096
ZSTD_FILTER_ID = 32015
ZSTD_LEVEL = 3
FLETCHER32_FILTER_ID = 3
PIXEL_FILTERS = ((ZSTD_FILTER_ID, FLETCHER32_FILTER_ID),)
ROW_FILTERS = ((2, 1, FLETCHER32_FILTER_ID), (1, FLETCHER32_FILTER_ID), (2, FLETCHER32_FILTER_ID), (FLETCHER32_FILTER_ID,))
"""The chains of filters that a reader takes off: shuffle (2), deflate (1), Fletcher-32. Nothing else is ever decoded."""

MAX_CHUNK_BYTES = 256 << 20
"""Of a chunk without its filters: what a reader takes at once, whatever a file claims."""

MAX_FRAME_SIZE = math.isqrt(MAX_CHUNK_BYTES // (3 * PIXEL_CHUNK_ROWS))
"""Height and width of the largest frames that fill no larger chunk: 1182."""

COMMON_COLUMNS = ("action", "reward", "terminated", "truncated")
OBSERVATION_COLUMNS = {ROLLOUTS: ("pixels",), LATENTS: ("mu", "logvar")}
INDEX_COLUMNS = ("ep_len", "ep_offset")
OPTIONAL_COLUMNS = ("state",)
MAX_EPISODES_PER_SHARD = 4096
MAX_SHARDS = 1_000_000
"""The names of their files have six digits."""

MAX_ROWS_PER_EPISODE = 2**31 - 1
"""`ep_len` is int32."""

HASH_ATTRIBUTES = {"vae_sha256", "source_sha256"}
"""Root attributes of latents."""

ALLOWED_TYPES: dict[str, tuple[tuple[type, int], ...]] = {
    "pixels": ((np.uint8, 4),),
    "mu": ((np.float32, 2), (np.float16, 2)),
    "logvar": ((np.float32, 2), (np.float16, 2)),
    "action": ((np.float32, 2), (np.int64, 1)),
    "reward": ((np.float32, 1),),
    "terminated": ((np.bool_, 1),),
    "truncated": ((np.bool_, 1),),
    "state": ((np.float32, 2),),
    "ep_len": ((np.int32, 1),),
    "ep_offset": ((np.int64, 1),),
}
"""For each column, the (dtype, number of axes) that a reader accepts."""


def required_columns(dataset_format: str) -> tuple[str, ...]:
    """The columns that a shard of this format cannot do without."""
    return (*OBSERVATION_COLUMNS[dataset_format], *COMMON_COLUMNS, *INDEX_COLUMNS)
