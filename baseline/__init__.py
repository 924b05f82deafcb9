"""The baselines: the official retriever of DCASE 2022 task 6B, and a captioner. Their modules are short.

This package imports `systems` and `evaluation`.
"""
