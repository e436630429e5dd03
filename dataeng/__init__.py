"""What happens to data: pure Python that imports no engine (neither pyspark, ray nor torch)."""
