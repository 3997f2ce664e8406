"""OpenVINO without its conversion tools: importing those tells their makers so, over the network.

Nobody who indexes documents with chunkstore has agreed to that, and the tools are not used.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CompiledModel", "Core", "InferRequest", "Model", "Type", "opset13"]

_TOOLS = "openvino.tools.ovc"


@contextmanager
def _as_if_absent(module: str) -> Iterator[None]:
    """Lets an import of the module fail as if it were not installed; it can be imported afterwards."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] - how the import system marks what is not there
    try:
        yield
    finally:
        del sys.modules[module]


with _as_if_absent(_TOOLS):
    from openvino import CompiledModel, Core, InferRequest, Model, Type, opset13
