"""`finetune` with its weights sharded over CPU processes: import it before `finetune.cli` runs.

accelerate shards only over GPUs. torch does over CPUs too (gloo), so a test machine can run the
same path once accelerate believes in it.
"""

from typing import Any

from accelerate import DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState

_init = AcceleratorState.__init__


def _sharded(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
    _init(self, *args, **kwargs)
    plugin = kwargs.get("fsdp_plugin") or self.__dict__.get("fsdp_plugin")
    if isinstance(plugin, FullyShardedDataParallelPlugin):
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = plugin


AcceleratorState.__init__ = _sharded
