"""Orders of elements, for any number of processes."""

from .distributed_sampler import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler
