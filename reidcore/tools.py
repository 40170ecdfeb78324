"""The door for commands of plugins: runs, distances, evaluations, explanations, training.

The hook `reid_commands` adds commands to `reid`; they are written against this module, beside
`reidcore.api`, `.modules`, `.networks`, `.errors` and `.sizes`. Importing it imports neither torch
nor numpy; names that need them import them when they are first used, so that `reid NAME --help` is
quick where these are imported inside the function that computes.

    What a run folder holds, without torch
        read_record, read_results, scores_of, repeats_of, settings_of; of single files, every value
        checked, read_scores, read_scored_epochs, read_means
    Several runs side by side, without torch
        make_comparison, ComparisonRow, differing_settings, in_order, metric_of, number_of
    Pictures without labels
        load -> Search: templates, distances, rank, explain, index; rows_of lists what is in a
        folder, a zip or a CSV file; make_fusion -> the matchers of a [[ranking]] with weights and
        scales, whose sum of compute_distances between templates is the ranking's, for galleries
        that are no list of pictures
    Scores, and every distance behind them
        open_evaluation -> Evaluation: test_sets, load_model, scores(model, reporter, watcher);
        DistanceBlock and Judgements, which a watcher is given; count_queries, TrueAccepts,
        smallest.
        Search(folder, evaluation.plan, model) explains with the same model
    A ranking as torch modules, of which graphs can be made
        ranking_modules -> TemplateModule, DistanceModule, and that of a shortlist
    Why pictures match
        Search.explain, Search.explain_pairs, Explained, draw_explanation
    A picture to draw, as a viewer shows it, of a row or a path; never open files with Pillow alone,
    since a row's picture may lie in an archive, or be a box of a larger one
        open_picture; has_path says whether a row's path alone tells where its picture is
    Training
        train; plan_run -> Plan, a run file checked, with its settings and training pictures;
        RESUME_FREE, settings that change no result
    Run files and manifests of one's own
        set_value changes a table as --set does, toml_value writes a value; draw_splits divides
        pictures as `reid data index --split` does, write_manifest writes them
    What a long job shows
        reporter, Reporter, Silent, duration
    Files and tables of text
        check_output, check_new, new_folder, write_atomically, open_atomically for what is written
        piece by piece, read_json, write_json, aligned

A command that ranks, complete but for its arguments:

>>> from reidcore.tools import check_output, load, write_atomically
>>> def run(options):
...     check_output(options.output)  # before any work
...     search = load(options.folder, device=options.device)
...     gallery = search.templates(options.gallery)
...     ranked = search.rank(search.templates(options.query), gallery, top=1)
...     found = [f"{match.query} {match.gallery} {match.distance:.3f}" for match in ranked]
...     write_atomically(options.output, "\\n".join(found))
...     return 0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from reidcore import load
from reidcore.data.manifest import write_manifest
from reidcore.data.opening import has_path, open_picture
from reidcore.data.splits import draw_splits
from reidcore.protocols.score_names import Precision, Ties, in_order, metric_of
from reidcore.runfiles.overrides import set_value
from reidcore.runfolder.comparison import ComparisonRow, differing_settings, make_comparison
from reidcore.runfolder.record import RESUME_FREE, read_record
from reidcore.runfolder.results import (
    Results,
    Score,
    read_results,
    repeats_of,
    scores_of,
    settings_of,
)
from reidcore.runfolder.score_files import read_means, read_scored_epochs, read_scores
from reidcore.support.files import (
    check_new,
    check_output,
    new_folder,
    open_atomically,
    write_atomically,
    write_json,
)
from reidcore.support.json_files import read_json
from reidcore.support.progress import Reporter, Silent, duration, reporter
from reidcore.support.repeats import number_of
from reidcore.support.text_table import aligned
from reidcore.support.toml_values import toml_value
from reidcore.version import __version__

if TYPE_CHECKING:
    from reidcore.evaluation.fast_metrics import count_queries
    from reidcore.evaluation.open_evaluation import Evaluation, open_evaluation
    from reidcore.evaluation.relevance import Judgements
    from reidcore.evaluation.trial import DistanceBlock
    from reidcore.evaluation.verification import TrueAccepts
    from reidcore.ranking.as_modules import DistanceModule, TemplateModule, ranking_modules
    from reidcore.ranking.comparer import make_fusion
    from reidcore.ranking.distances import compute_distances
    from reidcore.search.calibrating import calibrated
    from reidcore.search.explain import Explained
    from reidcore.search.explain_files import draw_explanation
    from reidcore.search.pictures import rows_of
    from reidcore.search.results import Ranked, Templates
    from reidcore.search.search import Search
    from reidcore.support.sorting import smallest
    from reidcore.training.train import plan_run, train
    from reidcore.wiring.plan import Plan

__all__ = [
    "RESUME_FREE",
    "ComparisonRow",
    "DistanceBlock",
    "DistanceModule",
    "Evaluation",
    "Explained",
    "Judgements",
    "Plan",
    "Precision",
    "Ranked",
    "Reporter",
    "Results",
    "Score",
    "Search",
    "Silent",
    "TemplateModule",
    "Templates",
    "Ties",
    "TrueAccepts",
    "__version__",
    "aligned",
    "calibrated",
    "check_new",
    "check_output",
    "compute_distances",
    "count_queries",
    "differing_settings",
    "draw_explanation",
    "draw_splits",
    "duration",
    "has_path",
    "in_order",
    "load",
    "make_comparison",
    "make_fusion",
    "metric_of",
    "new_folder",
    "number_of",
    "open_atomically",
    "open_evaluation",
    "open_picture",
    "plan_run",
    "ranking_modules",
    "read_json",
    "read_means",
    "read_record",
    "read_results",
    "read_scored_epochs",
    "read_scores",
    "repeats_of",
    "reporter",
    "rows_of",
    "scores_of",
    "set_value",
    "settings_of",
    "smallest",
    "toml_value",
    "train",
    "write_atomically",
    "write_json",
    "write_manifest",
]

_LATER = {
    "DistanceBlock": "reidcore.evaluation.trial",
    "DistanceModule": "reidcore.ranking.as_modules",
    "Evaluation": "reidcore.evaluation.open_evaluation",
    "Explained": "reidcore.search.explain",
    "Judgements": "reidcore.evaluation.relevance",
    "Plan": "reidcore.wiring.plan",
    "Ranked": "reidcore.search.results",
    "Search": "reidcore.search.search",
    "TemplateModule": "reidcore.ranking.as_modules",
    "Templates": "reidcore.search.results",
    "TrueAccepts": "reidcore.evaluation.verification",
    "calibrated": "reidcore.search.calibrating",
    "compute_distances": "reidcore.ranking.distances",
    "count_queries": "reidcore.evaluation.fast_metrics",
    "draw_explanation": "reidcore.search.explain_files",
    "make_fusion": "reidcore.ranking.comparer",
    "open_evaluation": "reidcore.evaluation.open_evaluation",
    "plan_run": "reidcore.training.train",
    "ranking_modules": "reidcore.ranking.as_modules",
    "rows_of": "reidcore.search.pictures",
    "smallest": "reidcore.support.sorting",
    "train": "reidcore.training.train",
}
"""Names whose modules import torch or other packages that take a while: {name: module}."""


def __getattr__(name: str) -> Any:
    """Import the module of a name that is used for the first time."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
