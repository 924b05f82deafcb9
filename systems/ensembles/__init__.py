"""Ensembles, which combine the predictions of trained runs into the predictions of a new run.

    dcase-systems ensemble RUN RUN … --run OUT

- `members` reads the runs, and finds the splits for which all runs have predictions.
- `matrices` combines similarity matrices, for retrieval.
- `consensus` chooses one of the runs' captions for each clip, for captioning.
- `weights` reads the weights of the runs from a file, or searches for the best weights.
- `ensemble` writes the new run, with predictions and a description. It can be scored and packaged like other runs.
"""
