"""The compiled kernels; see the folder ``native``."""

def convolve(
    lanes: str,
    dtype: str,
    direction: str,
    numbers: list[int],
    input: int,
    input_strides: list[int],
    output: int,
    output_strides: list[int],
    weight: int,
) -> None: ...
def pool(
    operation: str,
    dtype: str,
    direction: str,
    numbers: list[int],
    channels_last: bool,
    divisor: int,
    first: int,
    second: int,
    result: int,
) -> None: ...
def instruction_set() -> str: ...
def use_instruction_set(name: str) -> None: ...
