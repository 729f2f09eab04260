"""What a quantised base stands for: weights through bitsandbytes and back, as training saw them."""

from __future__ import annotations

from pathlib import Path

from workflow.checkpoint import Tensor
from workflow.errors import BuildError
from workflow.lora import FLOATS, as_tensor


def quantized_modules(base: Path) -> list[str]:
    """Names of the modules that training quantises: every linear one but the output layer."""
    from workflow.training.targets import empty_model, linear_modules, output_name

    model = empty_model(base)
    return sorted(set(linear_modules(model)) - {output_name(model)})


def through_quantization(tensor: Tensor, kind: str, double: bool, data: bytearray) -> None:
    """Round a weight in place to the values that its quantised form stands for.

    Raises:
        BuildError: The weight is quantised already, or of another type.
    """
    from bitsandbytes import functional

    if tensor.dtype not in FLOATS:
        raise BuildError(f"{tensor.name} is {tensor.dtype}; only an unquantised base can be merged into")
    weight = as_tensor(data, tensor)
    if kind == "int8":
        codes, scales, _ = functional.int8_vectorwise_quant(weight.half())
        weight.copy_(functional.int8_vectorwise_dequant(codes, scales))
        return
    codes, state = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=double)
    weight.copy_(functional.dequantize_4bit(codes, state))
