"""Ensembles of trained runs: their predictions are combined into the prediction of a new run.

    dcase-systems ensemble RUN RUN … --run OUT

- `members` reads the runs, and finds the splits that all of them have predictions for.
- `matrices` combines similarity matrices, for retrieval.
- `consensus` chooses one of the captions that the runs wrote for a clip, for captioning.
- `weights` reads the weights of the runs from a file, or fits them on the validation split.
- `ensemble` writes the new run. It has predictions and a description, so it can be scored and packaged like other runs.
"""
