"""Orders of elements, for any number of processes."""

from d2lite.omitted import omitted_names

from .distributed_sampler import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler

__getattr__ = omitted_names(__name__)
