"""The official baseline: a retriever and a captioner in short modules that are easy to read.

This package imports `systems` and `evaluation`.
"""
