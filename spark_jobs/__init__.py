"""Spark jobs: glue between the engine and dataeng."""
