"""What happens to models: PyTorch only, no pyspark and no ray."""
