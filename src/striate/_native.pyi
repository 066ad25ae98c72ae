"""The compiled kernels; see the folder ``native``."""

from collections.abc import Sequence

class Convolution:
    def __call__(
        self,
        batch: int,
        input: int,
        input_strides: Sequence[int],
        output: int,
        output_strides: Sequence[int],
        weight: int,
    ) -> None: ...

def convolution(lanes: str, dtype: str, direction: str, numbers: list[int]) -> Convolution: ...

class Pooling:
    def __call__(self, batch: int, channels: int, first: int, others: Sequence[int], result: int) -> None: ...

def pooling(
    operation: str, dtype: str, direction: str, numbers: list[int], channels_last: bool, divisor: int
) -> Pooling: ...

direct_taps: int

def instruction_set() -> str: ...
def use_instruction_set(name: str) -> None: ...
