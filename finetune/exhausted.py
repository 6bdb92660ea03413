"""The one place that knows how running out of memory looks. Imports no torch."""

_SIGNS = ("can't allocate memory", "out of memory", "CUDA_ERROR_OUT_OF")


def is_out_of_memory(error: BaseException) -> bool:
    """Of the system, of a GPU (`torch.OutOfMemoryError`), or of what torch calls."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
