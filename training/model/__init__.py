"""Models as plain single-device PyTorch; parallelism is laid over them from outside."""
