"""Every failure that a user can meet, one class each.

A message says what is wrong, where, what was expected, what was found and what to do next, in one line. The command line
prints it and leaves with the class's `exit_code`: 2 for a mistake in what was asked, 1 for work that failed.
Each class takes one message, so that it survives pickling on its way back from a worker.
"""


def one_line(error: BaseException) -> str:
    """The class and the first line of an error of somebody else's, to stand inside a message of ours."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


class WorldModelError(Exception):
    """Base class: work that was asked for correctly, and failed."""

    exit_code = 1


class UsageError(WorldModelError):
    """Base class: what was asked for cannot be done as asked."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting has a value that makes no sense, alone or beside another."""


class EnvironmentNotUsable(UsageError):
    """The environment is unknown, cannot be built, gives no images, or has actions that are neither Box nor Discrete."""


class PolicyNotUsable(UsageError):
    """The policy is unknown, cannot be built, or does not keep the protocol of `worldmodel_v.policies`."""


class NotADataset(UsageError):
    """A directory does not hold the dataset that was expected there."""


class NotReadable(UsageError):
    """A file is there, and the system does not let this process read it."""


class SettingsDiffer(UsageError):
    """A directory holds work made with other settings, so that continuing it would mix two things."""


class DirectoryNotEmpty(UsageError):
    """A directory that is to be made whole holds something already."""


class DatasetBusy(UsageError):
    """Another process is writing into the dataset."""


class DatasetTooSmall(UsageError):
    """The dataset has fewer episodes or rows than the work needs."""


class UnequalEpisodes(UsageError):
    """A format holds sequences of one length, the episodes have several, and nobody said what to do about it."""


class ConstantFrames(UsageError):
    """Every frame of the dataset is the same, so there is nothing to learn from it."""


class ShardDamaged(UsageError):
    """A shard is missing, truncated, changed, or not what the index and the format promise."""


class NotAModel(UsageError):
    """A directory holds no finished VAE, or its files are damaged."""


class ModelMismatch(UsageError):
    """The VAE does not fit the data: another frame size, channel count or latent size."""


class FramesNotUsable(UsageError):
    """Frames that were handed to an encoder have another type, layout or size than it takes."""


class ConditionNotRecorded(UsageError):
    """The data does not record what a VAE is to be conditional on."""


class StaleLatents(UsageError):
    """Latents were made from another rollout shard or by another VAE than the ones at hand."""


class PipelineFileError(UsageError):
    """A pipeline file is not valid; the message starts with its path and line."""


class ClusterNotUsable(UsageError):
    """No Ray cluster answers at the address, or it lacks the resources."""


class JobNotFound(UsageError):
    """The cluster knows no job of this id."""


class JobNotRunning(UsageError):
    """A job that was to be stopped has ended already."""


class PackageMissing(UsageError):
    """An optional package is not installed; the message has the line that installs it."""


class RemoteFailed(WorldModelError):
    """A place behind a URL cannot be reached, broke off, or does not answer as it should; the same again may work."""


class DiskFull(UsageError):
    """The disk cannot hold what is about to be written; nothing was started."""


class WriteFailed(WorldModelError):
    """Writing stopped halfway; everything committed before is intact."""


class EpisodeFailed(WorldModelError):
    """An environment or policy raised an error, or broke its contract, in the middle of an episode."""


class EpisodesSetAside(WorldModelError):
    """Some episodes failed whenever they were tried; all others are committed."""


class WorkerLost(WorldModelError):
    """A piece of work was given to several workers in turn, and each of them died."""


class JobFailed(WorldModelError):
    """A job that was followed to its end failed, or was stopped."""


class TrainingDiverged(WorldModelError):
    """The loss or a gradient became NaN or infinite."""


class PosteriorCollapsed(WorldModelError):
    """The latents say nothing about the frames any more, and the training was asked to stop then."""


class EvaluationFailed(WorldModelError):
    """A VAE gives NaN or infinite values for frames that it was to be evaluated on."""


class EncodingFailed(WorldModelError):
    """An autoencoder does not give the latents that it declares."""


class ExportFailed(WorldModelError):
    """A model in another format does not give what the original gives."""


class VerificationFailed(WorldModelError):
    """A dataset does not match its index; the message names every shard that is off."""
